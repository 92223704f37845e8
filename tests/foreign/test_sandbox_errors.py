"""Every row of the authority's error table, provoked with assertions that PyJWT made."""

import datetime
import time
import uuid

import jwt
import pytest

from entra import ASSERTION_TYPE, Certificate, refused


def test_a_good_assertion_gets_a_token(directory, application, certificate, audience):
    answer = directory.grant(application["appId"], certificate.assertion(application["appId"], audience))
    body = answer.json()
    assert answer.status_code == 200, body
    assert body["token_type"] == "Bearer" and isinstance(body["expires_in"], int)
    assert answer.headers["Cache-Control"] == "no-store"


def test_an_unknown_thumbprint_is_700027(directory, application, audience):
    stranger = Certificate()
    answer = directory.grant(application["appId"], stranger.assertion(application["appId"], audience))
    refused(answer, 700027, "invalid_client")
    assert "The key was not found" in answer.json()["error_description"]


def test_a_bad_signature_is_700027(directory, application, certificate, audience):
    assertion = certificate.assertion(application["appId"], audience, key=Certificate())
    answer = directory.grant(application["appId"], assertion)
    refused(answer, 700027, "invalid_client")
    assert "signature" in answer.json()["error_description"]


def test_no_thumbprint_is_50027(directory, application, certificate, audience):
    assertion = certificate.assertion(application["appId"], audience, headers={})
    refused(directory.grant(application["appId"], assertion), 50027, "invalid_client")


@pytest.mark.parametrize("times", [{"exp": -400, "nbf": -1000}, {"nbf": 1000, "exp": 1300}], ids=["expired", "not yet valid"])
def test_an_assertion_outside_its_time_is_700024(directory, application, certificate, audience, times):
    now = int(time.time())
    claims = {name: now + by for name, by in times.items()}
    assertion = certificate.assertion(application["appId"], audience, iat=None, **claims)
    refused(directory.grant(application["appId"], assertion), 700024, "invalid_client")


def test_a_wrong_audience_is_700023(directory, application, certificate):
    assertion = certificate.assertion(application["appId"], "https://elsewhere.example/token")
    refused(directory.grant(application["appId"], assertion), 700023, "invalid_client")


def test_a_certificate_past_its_validity_is_refused(directory, audience):
    long_ago = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=40)
    lapsed = Certificate(valid_from=long_ago)
    application = directory.application(lapsed)
    answer = directory.grant(application["appId"], lapsed.assertion(application["appId"], audience))
    refused(answer, 700027, "invalid_client")


@pytest.mark.parametrize("claim", ["iss", "sub"])
def test_issuer_and_subject_must_be_the_client(directory, application, certificate, audience, claim):
    assertion = certificate.assertion(application["appId"], audience, **{claim: "00000000-0000-0000-0000-000000000001"})
    refused(directory.grant(application["appId"], assertion), 700021, "invalid_client")


def test_an_unknown_application_is_700016(directory, certificate, audience):
    nobody = "00000000-0000-0000-0000-000000000001"
    refused(directory.grant(nobody, certificate.assertion(nobody, audience)), 700016, "unauthorized_client")


def test_an_unknown_tenant_is_90002(directory, application, certificate, audience, http, sandbox):
    url = audience.replace(sandbox["entra"]["tenant"], "00000000-0000-0000-0000-000000000001")
    form = {
        "grant_type": "client_credentials",
        "client_id": application["appId"],
        "scope": sandbox["entra"]["scopes"][0],
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": certificate.assertion(application["appId"], audience),
    }
    refused(http.post(url, data=form), 90002, "invalid_request")


@pytest.mark.parametrize("missing", ["grant_type", "client_id", "scope"])
def test_a_missing_parameter_is_900144_and_named(directory, application, certificate, audience, missing):
    form = {
        "grant_type": "client_credentials",
        "client_id": application["appId"],
        "scope": directory.entra["scopes"][0],
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": certificate.assertion(application["appId"], audience),
    }
    del form[missing]
    answer = directory.http.post(audience, data=form)
    refused(answer, 900144, "invalid_request")
    assert f"'{missing}'" in answer.json()["error_description"]


def test_no_credential_is_7000218(directory, application):
    answer = directory.token(client_id=application["appId"], scope=directory.entra["scopes"][0])
    refused(answer, 7000218, "invalid_client")


def test_an_expired_secret_is_7000222(directory, application):
    past = {"startDateTime": "2020-01-01T00:00:00Z", "endDateTime": "2021-01-01T00:00:00Z"}
    secret = directory.secret(application, **past)
    answer = directory.token(client_id=application["appId"], client_secret=secret, scope=directory.entra["scopes"][0])
    refused(answer, 7000222, "invalid_client")


def test_a_resource_parameter_is_901002(directory, application, certificate, audience):
    assertion = certificate.assertion(application["appId"], audience)
    answer = directory.grant(application["appId"], assertion, resource="https://vault.example")
    refused(answer, 901002, "invalid_request")


def test_unknown_parameters_and_a_charset_are_taken(directory, application, certificate, audience):
    form = {
        "grant_type": "client_credentials",
        "client_id": application["appId"],
        "scope": directory.entra["scopes"][0],
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": certificate.assertion(application["appId"], audience),
        "x-client-SKU": "tests",
        "client_info": "1",
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"}
    answer = directory.http.post(audience + "?client-request-id=abc", data=form, headers=headers)
    assert answer.status_code == 200, answer.text


def test_the_callers_request_id_is_echoed(directory, application, http):
    request_id = "3b1e1a9e-2b7a-4c57-8c2e-0f0f5c1d2e3f"
    answer = http.post(
        directory.entra["token_endpoint"],
        data={"grant_type": "client_credentials", "client_id": application["appId"], "scope": "https://vault.example/.default"},
        headers={"client-request-id": request_id},
    )
    assert answer.json()["correlation_id"] == request_id


VAULT, ORDERS = "https://vault.example", "https://orders.example"


@pytest.mark.parametrize(
    "scope,code,error",
    [
        (f"{VAULT}/Secrets.Read", 1002012, "invalid_scope"),
        ("openid", 1002012, "invalid_scope"),
        ("https://nowhere.example/.default", 500011, "invalid_resource"),
        (f"{VAULT}/.default {ORDERS}/.default", 700022, "invalid_scope"),
        (" ", 70011, "invalid_scope"),
        ("/.default", 70011, "invalid_scope"),
    ],
)
def test_scopes_that_the_flow_does_not_take(directory, application, certificate, audience, scope, code, error):
    assertion = certificate.assertion(application["appId"], audience)
    refused(directory.grant(application["appId"], assertion, scope=scope), code, error)


class Api:
    """An application that others ask tokens for, by its id."""

    def __init__(self, directory, with_principal=True):
        self.directory = directory
        self.made = directory.call("POST", "/applications", 201, {"displayName": "an API"})
        self.scope = f"{self.made['appId']}/.default"
        if with_principal:
            self.principal = directory.call("POST", "/servicePrincipals", 201, {"appId": self.made["appId"]})
            self.path = f"/servicePrincipals/{self.principal['id']}"


@pytest.fixture
def ask(directory, application, certificate, audience):
    def ask(api):
        return directory.grant(application["appId"], certificate.assertion(application["appId"], audience), scope=api.scope)

    return ask


def test_an_api_that_is_disabled_is_50001(directory, ask):
    api = Api(directory)
    assert ask(api).status_code == 200
    directory.call("PATCH", api.path, 204, {"accountEnabled": False})
    refused(ask(api), 50001, "invalid_resource")
    directory.call("PATCH", api.path, 204, {"accountEnabled": True})
    assert ask(api).status_code == 200


def test_an_api_without_a_service_principal_is_500011(directory, ask):
    refused(ask(Api(directory, with_principal=False)), 500011, "invalid_resource")
    api = Api(directory)
    directory.call("DELETE", api.path, 204)
    refused(ask(api), 500011, "invalid_resource")


def test_an_api_that_requires_assignment_is_501051_until_there_is_one(directory, application, ask):
    api = Api(directory)
    directory.call("PATCH", api.path, 204, {"appRoleAssignmentRequired": True})
    assert directory.call("GET", api.path, 200)["appRoleAssignmentRequired"] is True
    refused(ask(api), 501051, "invalid_grant")
    client = directory.principal(application["appId"])
    default_access = {"principalId": client["id"], "resourceId": api.principal["id"], "appRoleId": str(uuid.UUID(int=0))}
    directory.call("POST", f"{api.path}/appRoleAssignedTo", 201, default_access)
    granted = ask(api)
    assert granted.status_code == 200, granted.text
    assert "roles" not in jwt.decode(granted.json()["access_token"], options={"verify_signature": False})


def test_a_disabled_application_is_7000112(directory, certificate, audience):
    application = directory.application(certificate)
    path = f"/servicePrincipals/{directory.principal(application['appId'])['id']}"
    directory.call("PATCH", path, 204, {"accountEnabled": False})
    answer = directory.grant(application["appId"], certificate.assertion(application["appId"], audience))
    refused(answer, 7000112, "unauthorized_client")


@pytest.mark.parametrize("name", ["client_id", "scope", "client_assertion"])
def test_a_parameter_that_is_there_twice_is_refused(directory, application, certificate, audience, name):
    form = {
        "grant_type": "client_credentials",
        "client_id": application["appId"],
        "scope": directory.entra["scopes"][0],
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": certificate.assertion(application["appId"], audience),
    }
    answer = directory.http.post(audience, data=[*form.items(), (name, form[name])])
    refused(answer, 9002313, "invalid_request")


def test_a_body_of_another_type_is_not_read(directory, application, audience):
    form = f"grant_type=client_credentials&client_id={application['appId']}&client_secret=x&scope=y"
    answer = directory.http.post(audience, data=form, headers={"Content-Type": "text/plain"})
    refused(answer, 900144, "invalid_request")


def test_a_large_body_is_refused_in_the_errors_form(directory, application):
    answer = directory.token(client_id=application["appId"], scope="x" * (65 * 1024))
    refused(answer, 9002313, "invalid_request", 413)
