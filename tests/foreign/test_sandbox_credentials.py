"""Credentials at the Entra-shaped tenant: assertions with all the oddities of real clients, times, secrets, and the tokens got."""

import base64
import datetime
import json
import time

import jwt
import pytest
from jwt.algorithms import get_default_algorithms

from entra import Certificate, refused


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


def test_padded_segments_are_taken(directory, application, certificate, audience):
    """As azure-identity for Python makes them in its asynchronous half."""

    def segment(value):
        text = json.dumps(value)
        # Blanks at the end are not part of the value; two of three lengths need padding.
        text += " " * ((2 - len(text)) % 3)
        return base64.urlsafe_b64encode(text.encode()).decode()

    now, client_id = int(time.time()), application["appId"]
    header = {"alg": "PS256", "typ": "JWT", "x5t#S256": certificate.x5t_s256}
    claims = {"aud": audience, "iss": client_id, "sub": client_id, "jti": "padded", "nbf": now, "exp": now + 1800}
    message = f"{segment(header)}.{segment(claims)}"
    signature = get_default_algorithms()["PS256"].sign(message.encode(), certificate.key)
    assert message.count("=") == 2
    answer = directory.grant(client_id, f"{message}.{base64.urlsafe_b64encode(signature).decode()}")
    assert answer.status_code == 200, answer.text


def test_a_thumbprint_in_the_standard_alphabet_is_taken(directory, audience):
    """As MSAL for Go makes it."""
    while True:
        certificate = Certificate()
        standard = base64.b64encode(base64.urlsafe_b64decode(certificate.x5t_s256 + "=")).decode()
        if {"+", "/"} & set(standard):
            break
    application = directory.application(certificate)
    assertion = certificate.assertion(application["appId"], audience, headers={"x5t#S256": standard}, iat=None)
    assert directory.grant(application["appId"], assertion).status_code == 200


@pytest.mark.parametrize(
    "x5c",
    [
        lambda c: base64.b64encode(c.der).decode(),
        lambda c: [base64.b64encode(c.der).decode()],
        lambda c: [base64.b64encode(c.pem).decode()],
        lambda c: c.pem.decode(),
    ],
    ids=["one text", "an array", "an array of PEM in base64", "PEM"],
)
def test_every_form_of_x5c_is_taken(directory, application, certificate, audience, x5c):
    headers = {"x5t#S256": certificate.x5t_s256, "x5c": x5c(certificate)}
    assertion = certificate.assertion(application["appId"], audience, headers=headers)
    assert directory.grant(application["appId"], assertion).status_code == 200


# The time passes while a request travels, so the sides of the edge that time moves towards stand a few seconds off.
@pytest.mark.parametrize("claim,seconds,taken", [("exp", -294, True), ("exp", -301, False), ("nbf", 299, True), ("nbf", 306, False)])
def test_clocks_may_differ_by_five_minutes(directory, application, certificate, audience, claim, seconds, taken):
    now = int(time.time())
    claims = {"iat": None, "nbf": now - 900, "exp": now + 900} | {claim: now + seconds}
    answer = directory.grant(application["appId"], certificate.assertion(application["appId"], audience, **claims))
    if taken:
        assert answer.status_code == 200, answer.text
    else:
        refused(answer, 700024, "invalid_client")


@pytest.mark.parametrize(
    "claims,status",
    [({"exp": 2**63 - 1}, 200), ({"exp": 1e300}, 200), ({"exp": "inf"}, 401), ({"exp": -(2**63)}, 401), ({"nbf": -(2**63)}, 200)],
    ids=str,
)
def test_times_beyond_the_calendar_are_judged_and_not_stumbled_over(directory, application, certificate, audience, claims, status):
    assertion = certificate.assertion(application["appId"], audience, **claims)
    assert directory.grant(application["appId"], assertion).status_code == status


def test_a_refused_certificate_is_named_in_hex_with_its_validity(directory, application, certificate, audience):
    def told(certificate, application, **more):
        answer = directory.grant(application["appId"], certificate.assertion(application["appId"], audience, **more))
        refused(answer, 700027, "invalid_client")
        text = answer.json()["error_description"]
        assert f"Thumbprint of key used by client: '{base64.urlsafe_b64decode(certificate.x5t_s256 + '=').hex().upper()}'" in text
        return text

    assert "The key was not found" in told(Certificate(), application)
    start = certificate.certificate.not_valid_before_utc.strftime("%m/%d/%Y %H:%M:%S")
    assert f"Found key 'Start={start}, End=" in told(certificate, application, key=Certificate())
    early = Certificate(valid_from=datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1))
    assert "not yet valid" in told(early, directory.application(early))


def test_a_wrong_assertion_type_is_not_called_missing(directory, application, certificate, audience):
    form = {
        "client_id": application["appId"],
        "scope": directory.entra["scopes"][0],
        "client_assertion_type": "urn:something",
        "client_assertion": certificate.assertion(application["appId"], audience),
    }
    refused(directory.token(**form), 90100, "invalid_request")


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


def test_a_secret_that_is_not_yet_valid_is_wrong(directory, application):
    secret = directory.secret(application, startDateTime="2090-01-01T00:00:00Z", endDateTime="2091-01-01T00:00:00Z")
    answer = directory.token(client_id=application["appId"], client_secret=secret, scope=directory.entra["scopes"][0])
    refused(answer, 7000215, "invalid_client")


def test_a_token_has_the_claims_of_an_app_only_token(directory, certificate, audience, sandbox, http):
    application = directory.application(certificate)
    app_id, principal = application["appId"], directory.principal(application["appId"])
    graph = directory.principal("00000003-0000-0000-c000-000000000000")
    roles = sorted(graph["appRoles"], key=lambda role: role["value"])
    for role in roles[:2]:
        body = {"principalId": principal["id"], "resourceId": graph["id"], "appRoleId": role["id"]}
        directory.call("POST", f"/servicePrincipals/{graph['id']}/appRoleAssignedTo", 201, body)
    keys = jwt.PyJWKSet.from_dict(http.get(sandbox["entra"]["jwks_uri"]).json())
    secret = directory.secret(application)
    by_certificate = directory.grant(app_id, certificate.assertion(app_id, audience), scope=directory.entra["graph_scope"])
    by_secret = directory.token(client_id=app_id, client_secret=secret, scope=directory.entra["graph_scope"])
    for answer, proof in [(by_certificate, "2"), (by_secret, "1")]:
        token = answer.json()["access_token"]
        header = jwt.get_unverified_header(token)
        assert (header["typ"], header["alg"]) == ("JWT", "RS256") and header.keys() == {"typ", "alg", "kid"}
        signer, issuer = keys[header["kid"]].key, sandbox["entra"]["issuer"]
        claims = jwt.decode(token, signer, algorithms=["RS256"], audience=graph["appId"], issuer=issuer)
        assert (claims["azp"], claims["azpacr"], claims["ver"]) == (app_id, proof, "2.0")
        assert claims["oid"] == claims["sub"] == principal["id"] and claims["tid"] == sandbox["entra"]["tenant"]
        assert all(type(claims[name]) is int for name in ("iat", "nbf", "exp"))
        assert claims["exp"] - claims["iat"] == answer.json()["expires_in"]
        assert all(isinstance(claims[name], str) and claims[name] for name in ("uti", "aio", "rh"))
        assert claims["roles"] == [role["value"] for role in roles[:2]] and "scp" not in claims
