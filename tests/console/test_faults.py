"""What the page does when something is wrong: hostile names, a session that ends, a broker that is away; and that it asks first."""

import pytest
from playwright.sync_api import expect

from browser import PHONE, opened, settled
from made_up import HOSTILE, World

REFUSED = "Failed to load resource"


@pytest.fixture
def active(mock):
    return next(row for row in mock.world.rows if row["state"] == "active")


def path(row):
    return "#/" + row["name"]


@pytest.mark.parametrize("hash", ["#/", "#/identities", "#/events", "#/authorities", "identity", "#/explain?principal=p&identity=" + HOSTILE])
def test_what_comes_from_others_stays_text(browser, mock, active, hash):
    for row in mock.world.rows[:40]:
        row.update(display_name=HOSTILE, last_error=HOSTILE, starves_in_seconds=30.0, workload=HOSTILE, authority=f"authorities/{HOSTILE}")
    mock.events.append(("event", mock.world.event(0, f"identities/{HOSTILE}", "refresh_failed") | {"message": HOSTILE, "kind": HOSTILE}))
    with opened(browser, mock.url, path(mock.world.rows[0]) if hash == "identity" else hash) as page:
        settled(page)
        expect(page.locator("main")).to_contain_text(HOSTILE) if hash != "#/authorities" else None
        assert page.locator("main img, [onerror]").count() == 0


def test_a_session_that_ended_says_how_to_begin_another(browser, mock):
    with opened(browser, mock.url, allowed=REFUSED) as page:
        settled(page)
        mock.session = False
        banner = page.get_by_role("alert").filter(has_text="This session has ended.")
        expect(banner).to_contain_text("jeton console")
        expect(banner.get_by_role("button", name="Copy: jeton console")).to_be_visible()
        mock.session = True
        expect(banner).to_have_count(0)


@pytest.mark.parametrize("hash", ["#/", "#/identities", "#/authorities", "identity"])
def test_a_console_that_is_gone_is_said_and_what_was_there_stays(browser, mock, active, hash):
    with opened(browser, mock.url, path(active) if hash == "identity" else hash, allowed="net::ERR_FAILED") as page:
        settled(page)
        cards = page.locator("main :is(.card, tr)").count()
        page.route("**/api/**", lambda route: route.abort())
        expect(page.get_by_role("alert").filter(has_text="No connection to the console")).to_be_visible()
        page.wait_for_timeout(6000)
        assert page.locator("main :is(.card, tr)").count() == cards > 2
        page.unroute("**/api/**")
        expect(page.get_by_role("alert").filter(has_text="No connection")).to_have_count(0)


def test_a_broker_that_does_not_answer_is_said_with_its_remedy(browser, mock):
    failure = {"reason": "UNREACHABLE", "message": "the broker does not answer", "remedy": "jeton status"}
    with opened(browser, mock.url, allowed=REFUSED) as page:
        settled(page)
        mock.failures = dict.fromkeys(("/api/me", "/api/overview", "/api/history"), {"status": 503, "error": failure})
        banner = page.get_by_role("alert").filter(has_text="the broker does not answer")
        expect(banner).to_contain_text("jeton status")
        mock.failures = {}
        expect(banner).to_have_count(0)


def test_an_identity_that_does_not_exist_is_said(browser, mock):
    with opened(browser, mock.url, "#/identities/nobody", allowed=REFUSED) as page:
        expect(page.get_by_role("alert").filter(has_text="There is no such identity.")).to_be_visible()


@pytest.mark.parametrize("verb,button", [("rotate", "Rotate credential"), ("disable", "Disable")])
def test_what_takes_something_away_asks_first(browser, mock, active, verb, button):
    with opened(browser, mock.url, path(active)) as page:
        pressed = page.locator(".head").get_by_role("button", name=button)
        pressed.click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(active["name"])
        expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.press("Enter")
        expect(dialog).to_have_count(0)
        assert mock.posted == []
        expect(pressed).to_be_focused()
        pressed.click()
        dialog.get_by_role("button", name=button).click()
        expect(dialog).to_have_count(0)
        assert mock.posted == [(active["name"], verb)]


def test_refresh_and_enable_act_at_once(browser, mock, active):
    with opened(browser, mock.url, path(active)) as page:
        page.get_by_role("button", name="Refresh tokens").click()
        expect(page.get_by_text(f"{active['name']}: ")).to_be_visible()
        active["state"] = "disabled"
        page.get_by_role("button", name="Enable").click()
        expect(page.get_by_role("button", name="Disable")).to_be_visible()
        assert mock.posted == [(active["name"], "refresh"), (active["name"], "enable")]


def test_who_may_not_has_no_buttons(browser, mock, active):
    mock.may = dict.fromkeys(mock.may, False)
    with opened(browser, mock.url, path(active)) as page:
        expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
        assert page.locator(".head button").count() == 0


def test_a_refusal_is_shown_in_the_dialog(browser, mock, active):
    with opened(browser, mock.url, path(active), allowed=REFUSED) as page:
        settled(page)
        mock.may = dict.fromkeys(mock.may, False)
        page.get_by_role("button", name="Rotate credential").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Rotate credential").click()
        expect(dialog.get_by_role("alert")).to_contain_text("No role of yours allows this.")
        assert mock.posted == []


def test_updates_take_neither_focus_nor_selection_nor_nodes(browser, mock):
    with opened(browser, mock.url, "#/identities?sort=name") as page:
        settled(page)
        link = page.locator("main tbody a.name").nth(5)
        link.focus()
        page.evaluate("() => { const a = document.activeElement; a.same = true; getSelection().selectAllChildren(a) }")
        asked = len(mock.asked)
        while sum("/api/identities?" in each for each in mock.asked[asked:]) < 2:
            page.wait_for_timeout(100)
        page.wait_for_timeout(200)
        assert page.evaluate("() => document.activeElement.same && getSelection().toString() === document.activeElement.textContent")


def test_events_come_live_and_wait_while_paused(browser, mock):
    mock.events.append(("event", mock.world.event(1, "identities/first", "rotated")))
    with opened(browser, mock.url, "#/events", size=PHONE) as page:
        expect(page.locator(".event")).to_have_count(1)
        page.get_by_role("button", name="Pause").click()
        mock.events.append(("event", mock.world.event(2, "identities/second", "refresh_failed")))
        mock.events.append(("lagged", {"missed": 12}))
        expect(page.locator(".status")).to_contain_text("1 more since")
        expect(page.locator(".event")).to_have_count(1)
        page.get_by_role("button", name="Go on").click()
        expect(page.locator(".event").first).to_contain_text("identities/second")
        expect(page.locator(".status")).to_contain_text("12 were too many to follow")
        page.get_by_label("Severity").select_option("error")
        expect(page.locator(".event")).to_have_count(1)
        page.get_by_role("searchbox").fill("nothing like it")
        expect(page.locator(".event")).to_have_count(0)


def test_the_life_of_an_identity_tells_once_what_happens_again_and_again(browser, mock, active):
    failed = mock.world.event(0, active["name"], "refresh_failed") | {"message": "it is away"}
    life = [failed | {"id": 9 - n, "time": mock.world.later(-n)} for n in range(4)] + [mock.world.event(1, active["name"], "rotated")]
    mock.world.detail = lambda row: World.detail(mock.world, row) | {"timeline": life}
    with opened(browser, mock.url, path(active)) as page:
        expect(page.locator(".event")).to_have_count(2)
        expect(page.locator(".event").first).to_contain_text("4 times since")


def test_a_command_is_copied(browser, mock):
    mock.world.rows[0]["starves_in_seconds"] = 5.0
    with opened(browser, mock.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        command = f"jeton identity rotate {mock.world.rows[0]['name']}"
        page.get_by_role("button", name=f"Copy: {command}").click()
        expect(page.get_by_text("Copied.")).to_be_visible()
        assert page.evaluate("() => navigator.clipboard.readText()") == command


def test_seconds_to_starvation_count_down(browser, mock):
    mock.world.rows[0]["starves_in_seconds"] = 100.0
    with opened(browser, mock.url) as page:
        left = page.locator(".problem time").first
        before = left.text_content()
        page.route("**/api/**", lambda route: None)
        expect(left).not_to_have_text(before)


def test_a_chart_is_read_off_by_keyboard_and_has_its_words(browser, mock):
    with opened(browser, mock.url) as page:
        chart = page.get_by_role("img", name="Look-ups a second since")
        chart.focus()
        page.keyboard.press("ArrowLeft")
        expect(page.locator(".chart").first.locator(".when")).to_be_visible()


def test_a_page_that_nobody_sees_asks_for_nothing(browser, mock):
    hide = """(hidden) => { Object.defineProperty(document, 'hidden', { get: () => hidden, configurable: true });
                            document.dispatchEvent(new Event('visibilitychange')) }"""
    with opened(browser, mock.url) as page:
        settled(page)
        page.evaluate(hide, True)
        page.wait_for_timeout(1000)
        asked = len(mock.asked)
        page.wait_for_timeout(7000)
        assert len(mock.asked) == asked
        page.evaluate(hide, False)
        expect(page.locator(".figures")).to_be_visible()
        page.wait_for_timeout(500)
        assert len(mock.asked) > asked
