"""The page over the real broker: what fails is at the top at once, with its reason; the buttons do what they say."""

import json
import time

import pytest
import requests
from playwright.sync_api import expect

from browser import PHONE, opened, settled

WITHIN_MS = 5_000
DOWN = {"rate": 1.0, "status": 503, "retry_after_seconds": 1}


@pytest.fixture
def failing(broker):
    """Makes an identity's authority refuse it, and takes that back."""
    made = []

    def fail(name, **members):
        made.append(client_id := broker.client_id(f"identities/{name}"))
        broker.order(client_id, error=DOWN, **members)
        return client_id

    yield fail
    for client_id in made:
        broker.order(client_id, error=None, token_lifetime_seconds=None)


def test_an_identity_made_to_fail_is_at_the_top_within_five_seconds_with_its_reason(browser, broker, console, failing):
    with opened(browser, console.url) as page:
        settled(page)
        failing("reports")
        # Nobody has asked for this target before: callers are without a token at once.
        assert broker.jeton("token", "get", "--identity", "reports", "--scope", broker.info["scopes"][1], check=False).returncode != 0
        top = page.locator(".problem").first
        expect(top).to_contain_text("identities/reports", timeout=WITHIN_MS)
        expect(top).to_contain_text("starved")
        expect(top).to_contain_text("503")
        expect(top.get_by_role("button", name="Copy: jeton ")).to_be_visible()
        page.get_by_role("link", name="Identities", exact=True).click()
        row = page.locator("main tbody tr").first
        expect(row).to_contain_text("reports", timeout=WITHIN_MS)
        expect(row).to_contain_text("starved")
        expect(row.locator(".error")).to_contain_text("503")


def test_a_token_that_cannot_be_refreshed_counts_down_and_recovers(browser, broker, console, failing):
    client_id = broker.client_id("identities/billing")
    broker.order(client_id, token_lifetime_seconds=60)
    with opened(browser, console.url, "#/identities/billing") as page:
        page.get_by_role("button", name="Refresh tokens").click()
        expect(page.get_by_text("being asked for.")).to_be_visible()
        ends = page.get_by_role("table", name="Tokens in memory").locator("tbody tr").first.locator("time").first
        page.wait_for_function("(t) => Date.parse(t.dateTime) - Date.now() < 61_000", arg=ends.element_handle())
        failing("billing")
        before, end = broker.refused(client_id), time.monotonic() + 60
        while broker.refused(client_id) == before and time.monotonic() < end:
            page.wait_for_timeout(100)
        top = page.locator(".problem").first
        expect(top).to_contain_text("until callers get no token", timeout=WITHIN_MS)
        expect(page.locator(".events")).to_contain_text("refresh failed")
        broker.order(client_id, error=None, token_lifetime_seconds=None)
        expect(page.locator(".problem")).to_have_count(0, timeout=60_000)


def test_rotating_asks_first_and_rotates(browser, broker, console):
    keys = lambda: {each["kid"] for each in json.loads(broker.jeton("identity", "get", "orders", "-o", "json").stdout)["credentials"]}
    before = keys()
    with opened(browser, console.url, "#/identities/orders", size=PHONE) as page:
        page.locator(".head").get_by_role("button", name="Rotate credential").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("the present key stays in use")
        dialog.get_by_role("button", name="Rotate credential").click()
        expect(page.locator(".events")).to_contain_text("rotated", timeout=60_000)
        expect(page.get_by_role("table", name="Credentials")).to_contain_text("current")
    assert len(keys() - before) == 1


def test_disabling_asks_first_and_enabling_brings_it_back(browser, broker, console):
    state = lambda: json.loads(broker.jeton("identity", "get", "reports", "-o", "json").stdout)["state"].lower()
    with opened(browser, console.url, "#/identities/reports") as page:
        page.locator(".head").get_by_role("button", name="Disable").click()
        assert "active" in state()
        page.get_by_role("dialog").get_by_role("button", name="Disable").click()
        expect(page.locator(".head .state-disabled")).to_be_visible()
        assert "disabled" in state()
        page.get_by_role("button", name="Enable").click()
        expect(page.locator(".head .state-active")).to_be_visible()
        assert "active" in state()
        expect(page.locator(".events")).to_contain_text("enabled")


def test_events_are_told_as_they_happen(browser, broker, console):
    with opened(browser, console.url, "#/events") as page:
        expect(page.locator(".status")).to_contain_text("live")
        broker.jeton("identity", "create", "told", "--authority", "entra")
        expect(page.locator(".event").filter(has_text="identities/told").filter(has_text="verified")).to_have_count(1)
        broker.jeton("identity", "delete", "told", "--yes")
        expect(page.locator(".event").filter(has_text="identities/told").filter(has_text="deleted").first).to_be_visible()


def test_a_hostile_display_name_stays_text(browser, broker, console):
    hostile = "<img src=x onerror=alert(1)>"
    broker.jeton("identity", "create", "hostile", "--authority", "entra", "--display-name", hostile)
    with opened(browser, console.url, "#/identities?q=hostile") as page:
        expect(page.locator("main tbody")).to_contain_text(hostile)
        page.get_by_role("link", name="hostile", exact=True).click()
        expect(page.locator(".facts").first).to_contain_text(hostile)
        assert page.locator("main img").count() == 0
    broker.jeton("identity", "delete", "hostile", "--yes")


def test_a_denial_is_explained_with_what_would_allow_it(browser, broker, console):
    with opened(browser, console.url, "#/explain") as page:
        page.get_by_label("Principal", exact=True).fill("loopback://dev")
        page.get_by_label("Identity", exact=True).fill("identities/reports")
        page.get_by_label("Target", exact=True).fill("https://other.example/.default")
        page.get_by_role("button", name="Explain").click()
        answer = page.get_by_role("region", name="Answer")
        expect(answer).to_contain_text("denied")
        expect(answer.get_by_role("button", name="Copy: jeton access assign")).to_be_visible()
        page.get_by_label("Target", exact=True).fill(broker.info["scopes"][0])
        page.get_by_label("Identity", exact=True).fill("identities/billing")
        page.keyboard.press("Enter")
        expect(answer).to_contain_text("allowed")


def test_a_broker_that_ends_is_said(browser, tmp_path):
    from conftest import LINK, BINARY, Broker, Process

    running = Broker(tmp_path)
    log = tmp_path / "console.txt"
    found = lambda: log.exists() and LINK.search(log.read_text())
    console = Process([BINARY, "console", "--no-open", "--data-dir", running.data], log, found)
    try:
        with opened(browser, console.ready.group(), allowed="Failed to load resource") as page:
            settled(page)
            running.process.stop()
            expect(page.locator("#banner .failure")).to_be_visible(timeout=30_000)
            assert page.locator("#banner").inner_text().count("\n") >= 1
            console.stop()
            expect(page.locator("#banner")).to_contain_text("No connection to the console", timeout=30_000)
    finally:
        console.stop()
        running.process.stop()


def test_the_link_lets_in_once_and_its_policy_is_strict(console):
    first = requests.get(console.url, allow_redirects=False)
    assert first.status_code == 303 and "HttpOnly" in first.headers["Set-Cookie"]
    assert requests.get(console.url, allow_redirects=False).status_code == 403
    root = console.url.split("/login")[0]
    policy = requests.get(root + "/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    refused = requests.get(root + "/api/overview")
    assert refused.status_code == 401 and refused.json()["error"]["remedy"]
