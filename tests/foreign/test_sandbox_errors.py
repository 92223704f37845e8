"""Every row of the authority's error table, provoked with assertions that PyJWT made."""

import datetime
import time

import pytest

from entra import ASSERTION_TYPE, Certificate, Directory


@pytest.fixture(scope="module")
def directory(sandbox, http):
    return Directory(sandbox, http)


@pytest.fixture(scope="module")
def certificate():
    return Certificate()


@pytest.fixture(scope="module")
def application(directory, certificate):
    return directory.application(certificate)


@pytest.fixture(scope="module")
def audience(directory):
    return directory.entra["token_endpoint"]


def refused(answer, code, error, status=None):
    body = answer.json()
    assert body["error_codes"] == [code], body
    assert body["error"] == error, body
    assert f"AADSTS{code}" in body["error_description"]
    assert {"trace_id", "correlation_id", "timestamp"} <= body.keys()
    assert answer.status_code == (status or (401 if error == "invalid_client" else 400)), (answer.status_code, body)
    assert "access_token" not in body


def test_a_good_assertion_gets_a_token(directory, application, certificate, audience):
    answer = directory.grant(application["appId"], certificate.assertion(application["appId"], audience))
    body = answer.json()
    assert answer.status_code == 200, body
    assert body["token_type"] == "Bearer" and isinstance(body["expires_in"], int)
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("algorithm,header", [("PS256", "x5t#S256"), ("RS256", "x5t#S256"), ("PS256", "x5t"), ("RS256", "x5t")])
def test_both_algorithms_and_both_thumbprints_are_taken(directory, application, certificate, audience, algorithm, header):
    value = certificate.x5t_s256 if header == "x5t#S256" else certificate.x5t
    assertion = certificate.assertion(application["appId"], audience, headers={header: value}, algorithm=algorithm)
    assert directory.grant(application["appId"], assertion).status_code == 200


@pytest.mark.parametrize(
    "oddity",
    [
        {"iat": None},
        {"nbf": None},
        {"iat": time.time() + 0.5, "exp": time.time() + 300.5, "nbf": None},
        {"nbf": str(int(time.time())), "exp": str(int(time.time()) + 300), "iat": None},
    ],
    ids=["no iat", "no nbf", "floats", "numeric strings"],
)
def test_the_oddities_of_real_clients_are_taken(directory, application, certificate, audience, oddity):
    # PyJWT checks no claims when it signs, so every form passes through as it is.
    assertion = certificate.assertion(application["appId"], audience, **oddity)
    assert directory.grant(application["appId"], assertion).status_code == 200


def test_padding_and_a_trailing_newline_are_taken(directory, application, certificate, audience):
    padded = certificate.assertion(application["appId"], audience, headers={"x5t": certificate.x5t + "="}, algorithm="RS256")
    assert directory.grant(application["appId"], padded + "\n").status_code == 200


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
    answer = directory.grant(application["appId"], assertion)
    assert answer.status_code in (400, 401) and answer.json()["error"] == "invalid_client", answer.text


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


def test_secrets_by_body_and_by_basic(directory, application):
    scope, client_id = directory.entra["scopes"][0], application["appId"]
    secret = directory.secret(application)
    assert directory.token(client_id=client_id, client_secret=secret, scope=scope).status_code == 200
    basic = directory.http.post(
        directory.entra["token_endpoint"],
        data={"grant_type": "client_credentials", "scope": scope},
        auth=(client_id, secret),
    )
    assert basic.status_code == 200, basic.text
    refused(directory.token(client_id=client_id, client_secret="wrong", scope=scope), 7000215, "invalid_client")


def test_an_expired_secret_is_7000222(directory, application):
    past = {"startDateTime": "2020-01-01T00:00:00Z", "endDateTime": "2021-01-01T00:00:00Z"}
    secret = directory.secret(application, **past)
    answer = directory.token(client_id=application["appId"], client_secret=secret, scope=directory.entra["scopes"][0])
    refused(answer, 7000222, "invalid_client")


@pytest.mark.parametrize(
    "scope,code,error",
    [
        ("https://vault.example/Secrets.Read", 1002012, "invalid_scope"),
        ("https://nowhere.example/.default", 500011, "invalid_resource"),
        ("https://vault.example/.default https://orders.example/.default", 70011, "invalid_scope"),
    ],
)
def test_scopes_that_the_flow_does_not_take(directory, application, certificate, audience, scope, code, error):
    assertion = certificate.assertion(application["appId"], audience)
    answer = directory.grant(application["appId"], assertion, scope=scope)
    body = answer.json()
    assert answer.status_code == 400 and body["error"] == error, body
    assert code in body["error_codes"] or (code == 70011 and body["error_codes"] == [700022]), body


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
