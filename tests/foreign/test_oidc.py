"""The OIDC-shaped tenant, asked by PyJWT and plain HTTP: registration, client authentication, single use, errors."""

import base64
import time
import uuid

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def b64url(number):
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


class Key:
    def __init__(self, kid):
        self.kid = kid
        self.key = ec.generate_private_key(ec.SECP256R1())
        point = self.key.public_key().public_numbers()
        self.jwk = {"kty": "EC", "crv": "P-256", "x": b64url(point.x), "y": b64url(point.y), "kid": kid, "alg": "ES256"}


class Tenant:
    def __init__(self, sandbox, http):
        self.oidc, self.http = sandbox["oidc"], http
        self.initial = {"Authorization": f"Bearer {sandbox['initial_access_token']}"}

    def register(self, headers=None, **metadata):
        body = {
            "client_name": "foreign",
            "grant_types": ["client_credentials"],
            "redirect_uris": [],
            "response_types": [],
            "token_endpoint_auth_method": "private_key_jwt",
            "scope": "orders.read",
            **metadata,
        }
        return self.http.post(self.oidc["registration_endpoint"], json=body, headers=self.initial if headers is None else headers)

    def assertion(self, client, key, kid=None, algorithm="ES256", signer=None, **claims):
        now = int(time.time())
        payload = {"iss": client["client_id"], "sub": client["client_id"], "aud": self.oidc["token_endpoint"]}
        payload |= {"jti": str(uuid.uuid4()), "iat": now, "exp": now + 60, **claims}
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(payload, (signer or key).key, algorithm=algorithm, headers={"kid": kid or key.kid})

    def grant(self, assertion, **form):
        body = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
        return self.http.post(self.oidc["token_endpoint"], data=body | form)


@pytest.fixture(scope="module")
def tenant(sandbox, http):
    return Tenant(sandbox, http)


@pytest.fixture(scope="module")
def key():
    return Key("first")


@pytest.fixture(scope="module")
def client(tenant, key):
    made = tenant.register(jwks={"keys": [key.jwk]})
    assert made.status_code == 201, made.text
    return made.json()


def refused(answer, status, error, *words):
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert all(word in answer.json()["error_description"] for word in words), answer.text


def test_discovery_names_what_is_there(tenant):
    document = tenant.http.get(tenant.oidc["issuer"] + "/.well-known/openid-configuration").json()
    assert document["issuer"] == tenant.oidc["issuer"]
    for member in ("token_endpoint", "jwks_uri", "registration_endpoint"):
        assert document[member] == tenant.oidc[member]


def test_a_registered_key_gets_a_token_that_verifies(tenant, client, key):
    answer = tenant.grant(tenant.assertion(client, key), scope="orders.read", resource="https://orders.example").json()
    keys = jwt.PyJWKSet.from_dict(tenant.http.get(tenant.oidc["jwks_uri"]).json())
    signed_by = keys[jwt.get_unverified_header(answer["access_token"])["kid"]].key
    claims = jwt.decode(
        answer["access_token"], signed_by, algorithms=["RS256"], audience="https://orders.example", issuer=tenant.oidc["issuer"]
    )
    assert claims["client_id"] == client["client_id"] and claims["scope"] == "orders.read"
    assert (answer["token_type"], answer["scope"]) == ("Bearer", "orders.read")


def test_an_assertion_is_taken_once(tenant, client, key):
    assertion = tenant.assertion(client, key)
    assert tenant.grant(assertion).status_code == 200
    refused(tenant.grant(assertion), 401, "invalid_client", "client authentication failed")


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": int(time.time()) + 400},
        {"exp": int(time.time()) - 60},
        {"exp": None},
        {"jti": None},
        {"aud": "https://elsewhere.example"},
        {"iss": "somebody else"},
        {"nbf": int(time.time()) + 300},
    ],
)
def test_every_fault_of_an_assertion_looks_the_same(tenant, client, key, claims):
    refused(tenant.grant(tenant.assertion(client, key, **claims)), 401, "invalid_client", "client authentication failed")


def test_a_key_that_is_not_registered_proves_nothing(tenant, client, key):
    other = Key("other")
    refused(tenant.grant(tenant.assertion(client, other)), 401, "invalid_client")
    refused(tenant.grant(tenant.assertion(client, key, signer=other)), 401, "invalid_client")


def test_wrong_requests_are_told(tenant, client, key):
    wrong_type = {"client_assertion_type": "something"}
    refused(tenant.grant(tenant.assertion(client, key), **wrong_type), 400, "invalid_request", "client_assertion_type")
    refused(tenant.grant(tenant.assertion(client, key), grant_type="password"), 400, "unsupported_grant_type")
    refused(tenant.grant(tenant.assertion(client, key), scope="orders.write"), 400, "invalid_scope")
    refused(tenant.grant(tenant.assertion(client, key), resource="https://nowhere.example"), 400, "invalid_target")
    refused(tenant.grant("no JWT"), 400, "invalid_request")


def test_registration_needs_the_initial_access_token_and_public_keys(tenant, key):
    refused(tenant.register(headers={}, jwks={"keys": [key.jwk]}), 401, "invalid_token")
    refused(tenant.register(headers={"Authorization": "Bearer wrong"}, jwks={"keys": [key.jwk]}), 401, "invalid_token")
    private = key.jwk | {"d": "AAAA"}
    refused(tenant.register(jwks={"keys": [private]}), 400, "invalid_client_metadata")
    refused(tenant.register(), 400, "invalid_client_metadata")


def test_a_registration_is_read_changed_and_removed_with_its_own_token(tenant, key):
    made = tenant.register(jwks={"keys": [key.jwk]}).json()
    uri, bearer = made["registration_client_uri"], {"Authorization": f"Bearer {made['registration_access_token']}"}
    read = tenant.http.get(uri, headers=bearer)
    assert read.status_code == 200 and read.json()["jwks"] == {"keys": [key.jwk]}
    refused(tenant.http.get(uri, headers={"Authorization": "Bearer wrong"}), 401, "invalid_token")

    second = Key("second")
    metadata = {name: made[name] for name in ("client_id", "client_name", "grant_types", "redirect_uris", "response_types")}
    metadata |= {"token_endpoint_auth_method": "private_key_jwt", "scope": "orders.read", "jwks": {"keys": [key.jwk, second.jwk]}}
    changed = tenant.http.put(uri, json=metadata, headers=bearer)
    assert changed.status_code == 200, changed.text
    assert tenant.grant(tenant.assertion(made, second)).status_code == 200
    assert tenant.grant(tenant.assertion(made, key)).status_code == 200
    refused(tenant.http.get(uri, headers=bearer), 401, "invalid_token")

    bearer = {"Authorization": f"Bearer {changed.json()['registration_access_token']}"}
    assert tenant.http.delete(uri, headers=bearer).status_code == 204
    refused(tenant.grant(tenant.assertion(made, key)), 401, "invalid_client")


def test_faults_are_ordered_at_the_control_door(tenant, client, key, sandbox):
    door = sandbox["url"] + "/sandbox/settings"
    only = {"client_id": client["client_id"]}
    assert tenant.http.put(door, json=only | {"error": {"rate": 1.0, "status": 503, "retry_after_seconds": 7}}).status_code == 200
    answer = tenant.grant(tenant.assertion(client, key))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert tenant.http.put(door, json=only | {"error": {"rate": 0.0}, "token_lifetime_seconds": 11}).status_code == 200
    assert tenant.grant(tenant.assertion(client, key)).json()["expires_in"] == 11
    assert tenant.http.put(door, json={"unknown": 1}).status_code == 400
    stats = tenant.http.get(sandbox["url"] + "/sandbox/stats").json()["by_client"][client["client_id"]]
    assert stats["keys"] == [key.kid] and stats["signed_with"] == [key.kid]
    assert stats["ok"] + stats["refused"] == stats["total"]
