"""The control door: faults reach the token endpoints alone, and one client alone where one is named; nonsense is refused."""

import email.utils
import time
import uuid

import jwt
import pytest

from entra import refused
from oidc import Key, Tenant

FAULT = {"rate": 1.0, "status": 503, "retry_after_seconds": 7}


@pytest.fixture(scope="module")
def tenant(sandbox, http):
    return Tenant(sandbox, http)


@pytest.fixture(scope="module")
def key():
    return Key("ordered")


@pytest.fixture(scope="module")
def client(tenant, key):
    return tenant.register(jwks={"keys": [key.jwk]}).json()


def ask(directory, application, certificate, **form):
    assertion = certificate.assertion(application["appId"], directory.entra["token_endpoint"])
    return directory.grant(application["appId"], assertion, **form)


def clock(answer):
    """How far the answer's Date is from ours, in seconds."""
    return email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()


def test_a_fault_reaches_the_token_endpoints_alone(directory, application, certificate, tenant, client, key, sandbox, order):
    before = directory.token_for(directory.entra["scopes"][0])
    order(error=FAULT)
    assert ask(directory, application, certificate).status_code == 503
    assert tenant.grant(tenant.assertion(client, key)).status_code == 503
    directory.call("GET", f"/applications/{application['id']}", 200)
    http, registered = directory.http, tenant.register(jwks={"keys": [key.jwk]})
    assert registered.status_code == 201
    for url in (
        sandbox["entra"]["jwks_uri"],
        sandbox["entra"]["authority"] + "/v2.0/.well-known/openid-configuration",
        sandbox["oidc"]["jwks_uri"],
        sandbox["oidc"]["issuer"] + "/.well-known/openid-configuration",
        sandbox["url"] + "/sandbox/stats",
    ):
        assert http.get(url).status_code == 200, url
    vault = f"{sandbox['vault']['url']}/secrets/{sandbox['vault']['secret']}?api-version=7.4"
    # The administrator has no role there: the vault has read the token, and says so.
    assert http.get(vault, headers={"Authorization": f"Bearer {before}"}).status_code == 403


def test_a_fault_of_one_client_leaves_the_others_alone(directory, application, certificate, order):
    other = directory.application(certificate)
    order(application["appId"], error=FAULT, token_lifetime_seconds=33)
    answer = ask(directory, application, certificate)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    granted = ask(directory, other, certificate)
    assert (granted.status_code, granted.json()["expires_in"]) == (200, 3600)


@pytest.mark.parametrize(
    "status,code,error",
    [(503, 90033, "temporarily_unavailable"), (504, 90024, "temporarily_unavailable"), (500, 90006, "server_error")],
)
def test_a_transient_failure_at_entra_has_entras_body(directory, application, certificate, order, status, code, error):
    order(application["appId"], error=FAULT | {"status": status})
    refused(ask(directory, application, certificate), code, error, status)


def test_throttling_at_entra_is_plain_text(directory, application, certificate, order):
    order(application["appId"], error=FAULT | {"status": 429})
    answer = ask(directory, application, certificate)
    assert (answer.status_code, answer.text, answer.headers["Retry-After"]) == (429, "Too Many Requests", "7")
    assert answer.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_at_the_provider_is_an_oauth_error(tenant, client, key, order, status):
    order(client["client_id"], error=FAULT | {"status": status})
    answer = tenant.grant(tenant.assertion(client, key))
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, "7")
    assert answer.json()["error"] in ("temporarily_unavailable", "server_error") and "AADSTS" not in answer.text


def test_what_is_named_for_one_client_freezes_nothing_else(directory, application, certificate, order):
    order(application["appId"], latency_ms=1)
    order(token_lifetime_seconds=33)
    assert ask(directory, application, certificate).json()["expires_in"] == 33
    order(application["appId"], token_lifetime_seconds=44)
    assert ask(directory, application, certificate).json()["expires_in"] == 44
    order(application["appId"], token_lifetime_seconds=None)
    assert ask(directory, application, certificate).json()["expires_in"] == 33


def test_the_ids_of_groups_make_a_token_as_large_as_is_named(directory, application, certificate, order):
    plain = ask(directory, application, certificate).json()["access_token"]
    assert "groups" not in jwt.decode(plain, options={"verify_signature": False})
    order(application["appId"], token_bytes=2_000)
    large = ask(directory, application, certificate).json()["access_token"]
    groups = jwt.decode(large, options={"verify_signature": False})["groups"]
    assert 2_000 <= len(large) < 2_100 and len({uuid.UUID(group) for group in groups}) == len(groups)


def test_the_settings_show_the_lifetime_that_is_given(sandbox, http):
    assert http.get(sandbox["url"] + "/sandbox/settings").json()["token_lifetime_seconds"] == 3600


@pytest.mark.parametrize(
    "members,told",
    [
        ({"client_id": 5}, "client_id"),
        ({"client_id": ""}, "client_id"),
        ({"unknown": 1}, "unknown"),
        ({"latency_ms": "long"}, "string"),
        ({"error": {"foo": 1}}, "foo"),
        ({"error": {"rate": 7}}, "error.rate"),
        ({"error": {"status": 99}}, "error.status"),
        ({"error": {"status": 200}}, "error.status"),
        ({"hang_seconds": -5}, "hang_seconds"),
        ({"token_bytes": 10_001}, "token_bytes"),
        ({"clock_offset_seconds": 10**12}, "clock_offset_seconds"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused_and_change_nothing(sandbox, http, members, told):
    door = sandbox["url"] + "/sandbox/settings"
    before = http.get(door).json()
    answer = http.put(door, json=members)
    assert answer.status_code == 400 and told in answer.json()["error_description"], answer.text
    assert http.get(door).json() == before


def test_tokens_are_checked_by_the_clock_by_which_they_were_made(directory, application, sandbox, order):
    secret = directory.secret(application, startDateTime="2020-01-01T00:00:00Z")
    order(application["appId"], clock_offset_seconds=-1200, token_lifetime_seconds=600)
    form = {"client_id": application["appId"], "client_secret": secret}
    for scope, url in [
        (directory.entra["graph_scope"], directory.entra["graph"] + "/applications"),
        (directory.entra["scopes"][0], f"{sandbox['vault']['url']}/secrets/{sandbox['vault']['secret']}?api-version=7.4"),
    ]:
        token = directory.token(scope=scope, **form).json()["access_token"]
        answer = directory.http.get(url, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code in (200, 403), answer.text
    order(application["appId"], clock_offset_seconds=0)
    assert directory.http.get(url, headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_every_answer_is_dated_by_the_tenants_clock(directory, application, certificate, tenant, key, order):
    order(clock_offset_seconds=500)
    entra, oidc = directory.entra, tenant.oidc
    urls = (entra["jwks_uri"], entra["graph"] + "/applications", oidc["jwks_uri"], oidc["issuer"] + "/x")
    answers = [directory.http.get(url) for url in urls]
    answers += [tenant.register(jwks={"keys": [key.jwk]}), tenant.register(headers={})]
    assert all(abs(clock(answer) - 500) < 30 for answer in answers), [answer.headers["Date"] for answer in answers]
    order(application["appId"], clock_offset_seconds=-500, error=FAULT)
    assert abs(clock(ask(directory, application, certificate)) + 500) < 30


def test_replays_are_refused_where_that_was_ordered_and_nowhere_else(directory, application, certificate, audience, order):
    assertion = certificate.assertion(application["appId"], audience)
    assert [directory.grant(application["appId"], assertion).status_code for _ in range(2)] == [200, 200]
    order(application["appId"], reject_replay=True)
    for claims in ({}, {"jti": None}):
        one, other = (certificate.assertion(application["appId"], audience, **claims, nbf=at) for at in (1, 2))
        assert directory.grant(application["appId"], one).status_code == 200
        refused(directory.grant(application["appId"], one), 700028, "invalid_client")
        assert directory.grant(application["appId"], other).status_code == 200


def test_the_stats_count_what_was_asked_and_name_the_keys(tenant, key, sandbox, order):
    client = tenant.register(jwks={"keys": [key.jwk]}).json()
    order(client["client_id"], token_lifetime_seconds=11)
    assert tenant.grant(tenant.assertion(client, key), scope="orders.read").json()["expires_in"] == 11
    tenant.grant(tenant.assertion(client, Key("other")))
    stats = tenant.http.get(sandbox["url"] + "/sandbox/stats").json()["by_client"][client["client_id"]]
    assert stats["keys"] == [key.kid] and stats["signed_with"] == [key.kid]
    assert (stats["total"], stats["ok"], stats["refused"]) == (2, 1, 1)
    assert stats["by_scope"]["orders.read"] == 1


def test_clients_that_nobody_knows_are_counted_as_one(directory, sandbox):
    for number in range(3):
        directory.token(client_id=f"stranger-{number}", scope="x")
    clients = directory.http.get(sandbox["url"] + "/sandbox/stats").json()["by_client"]
    assert not any(name.startswith("stranger") for name in clients)
