"""The metadata server as Google's clients ask it. Raw HTTP; the clients themselves are in test_managed_identity_sdks.py."""

import pytest

from doors import VAULT

FLAVOR = {"Metadata-Flavor": "Google"}


@pytest.fixture
def get(doors):
    root = f"http://{doors.environment('gce')['GCE_METADATA_HOST']}"

    def get(path, headers=FLAVOR, **query):
        answer = doors.http.get(root + path, headers=headers, params=query, timeout=30, allow_redirects=False)
        assert answer.headers["Metadata-Flavor"] == "Google", "on every answer"
        return answer

    return get


ACCOUNT = "/computeMetadata/v1/instance/service-accounts/default"


def test_a_token_has_its_life_as_a_number(doors, get):
    answer = get(f"{ACCOUNT}/token", scopes=f"{VAULT}/.default")
    assert answer.headers["Content-Type"].startswith("application/json")
    body = answer.json()
    assert set(body) == {"access_token", "expires_in", "token_type"} and body["token_type"] == "Bearer"
    assert isinstance(body["expires_in"], int) and body["expires_in"] > 0
    assert doors.claims(body["access_token"])["azp"] == doors.client_id("demo-system")


def test_detection_and_what_clients_ask_before_a_token(get):
    assert get("/").status_code == 200
    assert get("/computeMetadata/v1/instance").status_code in (200, 301, 403)
    project = get("/computeMetadata/v1/project/project-id")
    assert project.status_code == 200 and project.text
    account = get(f"{ACCOUNT}/", recursive="true").json()
    assert account["email"] and account["aliases"] == ["default"] and isinstance(account["scopes"], list)
    assert get(f"{ACCOUNT}/email").text == account["email"]


def test_another_account_is_another_identity(doors, get):
    account = get("/computeMetadata/v1/instance/service-accounts/billing/token", scopes=f"{VAULT}/.default")
    assert doors.claims(account.json()["access_token"])["azp"] == doors.client_id("billing")


def test_refusals_have_no_token_and_are_asked_once(get):
    query = {"scopes": f"{VAULT}/.default"}
    for headers in ({}, {"Metadata-Flavor": "Amazon"}):
        answer = get(f"{ACCOUNT}/token", headers=headers, **query)
        assert answer.status_code == 403 and "access_token" not in answer.text
    # Google's clients ask once on all of these.
    once = {400, 401, 403, 404}
    answer = get(f"{ACCOUNT}/token", headers={**FLAVOR, "X-Forwarded-For": "10.0.0.7"}, **query)
    assert answer.status_code in once and "access_token" not in answer.text
    for account in ("nobody@example", "reports-that-is-not-there"):
        answer = get(f"/computeMetadata/v1/instance/service-accounts/{account}/token", **query)
        assert answer.status_code in once and "access_token" not in answer.text
    assert get(f"{ACCOUNT}/token", scopes="https://unassigned.example/.default").status_code in once
