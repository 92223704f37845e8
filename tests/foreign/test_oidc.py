"""The OIDC-shaped tenant, asked by PyJWT and plain HTTP: registration, client authentication, single use, errors."""

import concurrent.futures
import time

import jwt
import pytest

from oidc import Key, Tenant, refused


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
        {"exp": +400},
        {"exp": -60},
        {"exp": None},
        {"jti": None},
        {"aud": "https://elsewhere.example"},
        {"iss": "somebody else"},
        {"nbf": +300},
    ],
)
def test_every_fault_of_an_assertion_looks_the_same(tenant, client, key, claims):
    # Times are from now.
    claims = {name: int(time.time()) + value if isinstance(value, int) else value for name, value in claims.items()}
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


@pytest.mark.parametrize("life,status", [(60, 200), (61, 401)])
def test_an_assertion_lives_for_60_seconds_at_most(tenant, client, key, life, status):
    issued = int(time.time()) - 10
    assertion = tenant.assertion(client, key, iat=issued, exp=issued + life)
    assert tenant.grant(assertion).status_code == status


def test_an_old_assertion_does_not_live_on(tenant, client, key):
    now = int(time.time())
    refused(tenant.grant(tenant.assertion(client, key, iat=now - 3540, exp=now + 60)), 401, "invalid_client")


# The time passes while a request travels, so the sides of the edge that time moves towards stand a few seconds off.
@pytest.mark.parametrize("claim,seconds,status", [("exp", -10, 200), ("exp", -16, 401), ("nbf", 14, 200), ("nbf", 20, 401)])
def test_clocks_may_differ_by_15_seconds(tenant, client, key, claim, seconds, status):
    now = int(time.time())
    claims = {"iat": now - 30, "exp": now + 20} | {claim: now + seconds}
    assert tenant.grant(tenant.assertion(client, key, **claims)).status_code == status


def test_of_eight_uses_at_once_one_is_taken(tenant, client, key):
    assertion = tenant.assertion(client, key)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: tenant.grant(assertion).status_code, range(8)))
    assert sorted(answers) == [200] + [401] * 7


def test_a_refused_use_does_not_make_room_for_another(tenant, client, key):
    now, jti = int(time.time()), "one and the same"
    lasting = tenant.assertion(client, key, jti=jti, iat=now, exp=now + 60)
    assert tenant.grant(lasting).status_code == 200
    ending = tenant.assertion(client, key, jti=jti, iat=now - 60, exp=now - 13)
    refused(tenant.grant(ending), 401, "invalid_client")
    # By now the other one has ended, and with it what its refusal may have written over.
    while time.time() < now + 3:
        time.sleep(0.1)
    refused(tenant.grant(lasting), 401, "invalid_client")


@pytest.mark.parametrize("claim", ["iat", "nbf", "exp"])
def test_a_time_is_a_number(tenant, client, key, claim):
    whole = int(time.time())
    refused(tenant.grant(tenant.assertion(client, key, **{claim: str(whole)})), 401, "invalid_client")
    assert tenant.grant(tenant.assertion(client, key, iat=whole - 0.5, exp=whole + 30.5)).status_code == 200


@pytest.mark.parametrize("exp", [2**63 - 1, 1e300, -(2**63)])
def test_a_time_beyond_the_calendar_is_refused(tenant, client, key, exp):
    refused(tenant.grant(tenant.assertion(client, key, exp=exp)), 401, "invalid_client")


def test_an_unknown_critical_header_is_refused(tenant, client, key):
    assertion = tenant.assertion(client, key, headers={"crit": ["unheard-of"], "unheard-of": 1})
    refused(tenant.grant(assertion), 401, "invalid_client")


def test_who_tried_basic_is_told_by_a_challenge(tenant):
    form = {"grant_type": "client_credentials"}
    basic = tenant.http.post(tenant.oidc["token_endpoint"], data=form, auth=("nobody", "wrong"))
    refused(basic, 401, "invalid_client")
    assert basic.headers["WWW-Authenticate"].startswith(f'Basic realm="{tenant.oidc["issuer"]}"')
    posted = tenant.http.post(tenant.oidc["token_endpoint"], data=form | {"client_id": "nobody", "client_secret": "wrong"})
    refused(posted, 401, "invalid_client")
    assert "WWW-Authenticate" not in posted.headers


def test_what_is_not_routed_is_not_found(tenant):
    for method, url in [("GET", "token"), ("GET", "reg"), ("DELETE", "jwks"), ("GET", "nowhere")]:
        refused(tenant.http.request(method, f"{tenant.oidc['issuer']}/{url}"), 404, "invalid_request", "unrecognized route")


def test_bodies_of_another_type_and_large_ones_are_refused(tenant, key):
    for endpoint, kind in [("token_endpoint", "application/json"), ("registration_endpoint", "text/plain")]:
        headers = tenant.initial | {"Content-Type": kind}
        refused(tenant.http.post(tenant.oidc[endpoint], data="{}", headers=headers), 400, "invalid_request", "content-type")
    large = "x" * (57 * 1024)
    refused(tenant.grant("e", scope=large), 413, "invalid_request")
    refused(tenant.register(jwks={"keys": [key.jwk]}, client_name=large), 413, "invalid_request")


EC, SECRET = {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, {"token_endpoint_auth_method": "client_secret_basic"}


@pytest.mark.parametrize(
    "metadata",
    [
        {"jwks": {"keys": [{"kty": "EC"}]}},
        {"jwks": {"keys": [{"kty": "RSA", "n": "AA"}]}},
        {"jwks": {"keys": [{"kty": "XX"}]}},
        {"jwks": {"keys": [EC | {"kid": 5}]}},
        {"jwks": {"keys": 5}},
        SECRET | {"jwks": "keys"},
        {"jwks": {"keys": [EC]}, "jwks_uri": "https://keys.example"},
        {"token_endpoint_auth_method": "nonsense"},
        {"token_endpoint_auth_method": 5},
        {"token_endpoint_auth_signing_alg": "HS999"},
        {"scope": 5},
        {"scope": "unknown"},
        {"client_name": 5},
    ],
    ids=str,
)
def test_metadata_that_makes_no_sense_is_refused(tenant, metadata):
    refused(tenant.register(**({"jwks": {"keys": [EC]}} | metadata)), 400, "invalid_client_metadata")


def test_a_change_carries_the_secret_that_the_client_has_or_none(tenant):
    made = tenant.register(**SECRET).json()
    bearer = {"Authorization": f"Bearer {made['registration_access_token']}"}
    server_set = ("registration_access_token", "registration_client_uri", "client_secret_expires_at", "client_id_issued_at")
    document = {name: value for name, value in made.items() if name not in server_set}
    wrong = tenant.http.put(made["registration_client_uri"], json=document | {"client_secret": "wrong"}, headers=bearer)
    refused(wrong, 400, "invalid_request", "client_secret")
    right = tenant.http.put(made["registration_client_uri"], json=document, headers=bearer)
    assert right.status_code == 200, right.text
    form = {"grant_type": "client_credentials"}
    basic = tenant.http.post(tenant.oidc["token_endpoint"], data=form, auth=(made["client_id"], made["client_secret"]))
    assert basic.status_code == 200, basic.text
