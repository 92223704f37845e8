"""Every page, by mouse and by keyboard, in light and dark, at a desk and on a phone."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from browser import DESKTOP, NAMES, PHONE, opened, settled, width_beyond

SERIOUS = ("serious", "critical")


def hashes(identity):
    return ("#/", "#/identities", f"#/identities/{identity}", "#/authorities", "#/events", "#/explain?principal=loopback://nobody&identity=identities/none")


def test_all_pages_are_clicked_through_without_a_fault(browser, served):
    with opened(browser, served.url) as page:
        for name in NAMES:
            page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
            expect(page.get_by_role("heading", level=1)).to_have_text(name)
            settled(page)
        page.get_by_role("link", name="Identities").click()
        page.get_by_role("link", name=served.identity, exact=True).first.click()
        expect(page.get_by_role("heading", level=1)).to_have_text(served.identity)
        expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
        page.go_back()
        expect(page.get_by_role("heading", level=1)).to_have_text("Identities")


def test_the_keyboard_alone_reaches_everything(browser, served):
    with opened(browser, served.url) as page:
        keyboard, title = page.keyboard, page.get_by_role("heading", level=1)
        keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        for key, name in zip("oiaex", NAMES):
            keyboard.press("g")
            keyboard.press(key)
            expect(title).to_have_text(name)
        keyboard.press("/")
        expect(title).to_have_text("Identities")
        expect(page.get_by_role("searchbox")).to_be_focused()
        keyboard.type(served.identity)
        expect(page.get_by_role("row")).to_have_count(2)
        keyboard.press("Enter")
        expect(page.get_by_role("link", name=served.identity, exact=True)).to_be_focused()
        keyboard.press("Enter")
        expect(title).to_have_text(served.identity)
        keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
        keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_tab_goes_through_a_page_and_shows_where_it_is(browser, mock):
    with opened(browser, mock.url, "#/identities") as page:
        settled(page)
        seen = set()
        for _ in range(24):
            page.keyboard.press("Tab")
            outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
            name = page.evaluate("() => document.activeElement.textContent || document.activeElement.type")
            assert outline != "none", name
            seen.add(name)
        assert len(seen) > 15


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious_and_nothing_is_too_wide(browser, served, scheme, size):
    with opened(browser, served.url, scheme=scheme, size=size) as page:
        for hash in hashes(served.identity):
            page.evaluate("(hash) => { location.hash = hash }", hash)
            page.wait_for_timeout(300)
            settled(page)
            assert width_beyond(page) <= 0, hash
            found = Axe().run(page).response["violations"]
            serious = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found if each["impact"] in SERIOUS]
            assert not serious, (hash, serious)


def test_dialogs_are_accessible_too(browser, mock):
    with opened(browser, mock.url, f"#/identities/{active(mock)}", size=PHONE, scheme="dark") as page:
        page.get_by_role("button", name="Disable").click()
        found = Axe().run(page).response["violations"]
        assert not [each["id"] for each in found if each["impact"] in SERIOUS]
        assert width_beyond(page) <= 0


def test_the_theme_is_chosen_and_kept(browser, mock):
    with opened(browser, mock.url, scheme="light") as page:
        ground = lambda: page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
        light, button = ground(), page.get_by_role("button", name=re.compile("^Theme"))
        button.click()
        assert ground() == light
        button.click()
        assert ground() != light
        page.reload()
        expect(button).to_contain_text("Dark")
        assert ground() != light


def active(mock):
    return next(row for row in mock.world.rows if row["state"] == "active")["name"].removeprefix("identities/")
