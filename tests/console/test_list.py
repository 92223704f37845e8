"""A hundred thousand identities: what is shown is what the server's list says, and only a few rows are held."""

import itertools

import pytest
from playwright.sync_api import expect

from browser import DESKTOP, PHONE, opened

MOST_ROWS = 300


def shown(page):
    """The names of the rows that are there."""
    return page.locator("main tbody tr a.name").all_text_contents()


def of(rows):
    return [row["name"].removeprefix("identities/") for row in rows]


def agrees(page, wanted, first=0):
    """Waits until the rows are these, from `first` on."""
    expect(page.locator("main tbody tr a.name").first).to_have_text(of(wanted)[first])
    names = shown(page)
    assert names == of(wanted)[first : first + len(names)]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_scrolling_goes_on_and_back_with_few_rows_held(browser, large, size):
    wanted = of(large.world.chosen())
    with opened(browser, large.url, "#/identities", size=size) as page:
        agrees(page, large.world.chosen())
        reached = 0
        for _ in range(400):
            page.mouse.wheel(0, 9000)
            page.wait_for_timeout(40)
            names = shown(page)
            first = wanted.index(names[0])
            assert names == wanted[first : first + len(names)] and len(names) <= MOST_ROWS
            reached = first + len(names)
            if reached >= 1000:
                break
        assert reached >= 1000
        assert page.evaluate("() => document.querySelectorAll('*').length") < 12_000
        for _ in range(400):
            page.mouse.wheel(0, -9000)
            page.wait_for_timeout(40)
            if page.evaluate("() => scrollY") == 0 and shown(page)[0] == wanted[0]:
                break
        agrees(page, large.world.chosen())


def test_what_is_looked_at_stays_while_rows_are_loaded_around_it(browser, large):
    with opened(browser, large.url, "#/identities?sort=name") as page:
        agrees(page, large.world.chosen(sort="name"))
        for _ in range(4):
            page.locator("main tbody tr").last.scroll_into_view_if_needed()
            page.wait_for_timeout(300)
        watched = page.evaluate(
            """() => { const row = [...document.querySelectorAll('main tbody tr')].find((r) => r.getBoundingClientRect().top > 100);
                       return [row.querySelector('a').textContent, row.getBoundingClientRect().top] }"""
        )
        asked = len(large.asked)
        while not any("page_token" in path or "page_size" in path for path in large.asked[asked:]):
            page.wait_for_timeout(200)
        page.wait_for_timeout(500)
        top = page.get_by_role("link", name=watched[0], exact=True).evaluate("(a) => a.closest('tr').getBoundingClientRect().top")
        assert abs(top - watched[1]) < 2


@pytest.mark.parametrize("q", ["payments.service-0", "SERVICE-099999", "Ledger service 4", "<img"])
def test_a_search_shows_the_rows_that_match(browser, large, q):
    wanted = large.world.chosen(q=q)
    with opened(browser, large.url, "#/identities") as page:
        page.get_by_role("searchbox").fill(q)
        expect(page.get_by_role("status").filter(has_text="identit")).to_contain_text(f"{len(wanted):,} identit")
        agrees(page, wanted)
        assert page.evaluate("() => location.hash").startswith("#/identities?q=")


def test_a_search_by_client_id_finds_one(browser, large):
    row = large.world.rows[4711]
    with opened(browser, large.url, f"#/identities?q={row['client_id']}") as page:
        expect(page.get_by_role("status").filter(has_text="identit")).to_have_text("1 identity")
        agrees(page, [row])


def test_a_search_that_finds_nothing_says_so(browser, large):
    with opened(browser, large.url, "#/identities?q=no-such-thing") as page:
        expect(page.get_by_text("No identity is like that.")).to_be_visible()


@pytest.mark.parametrize("heading,sort", [("Identity", "name"), ("Credential", "credential"), ("Next refresh", "next_refresh"), ("Last use", "last_use")])
def test_headings_sort_in_both_directions(browser, large, heading, sort):
    with opened(browser, large.url, "#/identities") as page:
        column = page.get_by_role("columnheader", name=heading)
        for order, descending in (("ascending", ""), ("descending", "true")):
            column.get_by_role("button").click()
            expect(column).to_have_attribute("aria-sort", order)
            agrees(page, large.world.chosen(sort=sort, descending=descending))


def test_filters_stand_in_the_address_and_back_takes_them_away(browser, large):
    with opened(browser, large.url, "#/identities") as page:
        page.get_by_label("State").select_option("failed")
        agrees(page, large.world.chosen(state="failed"))
        page.get_by_label("Authority").select_option("authorities/oidc")
        agrees(page, large.world.chosen(state="failed", authority="authorities/oidc"))
        assert page.evaluate("() => location.hash") == "#/identities?state=failed&authority=authorities%2Foidc"
        page.reload()
        agrees(page, large.world.chosen(state="failed", authority="authorities/oidc"))
        page.go_back()
        agrees(page, large.world.chosen(state="failed"))
        page.go_back()
        agrees(page, large.world.chosen())
        expect(page.get_by_label("State")).to_have_value("")


def test_back_from_an_identity_leads_to_the_same_rows(browser, large):
    with opened(browser, large.url, "#/identities?sort=name") as page:
        agrees(page, large.world.chosen(sort="name"))
        for _ in itertools.takewhile(lambda _: len(shown(page)) < MOST_ROWS, range(100)):
            page.mouse.wheel(0, 6000)
            page.wait_for_timeout(50)
        row = page.locator("main tbody tr").nth(MOST_ROWS // 2)
        row.scroll_into_view_if_needed()
        name, before = row.locator("a.name").text_content(), page.evaluate("() => scrollY")
        row.locator("a.name").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        page.go_back()
        expect(page.get_by_role("link", name=name, exact=True)).to_be_in_viewport()
        assert before > 3000


def test_rows_say_which_they_are_of_how_many(browser, large):
    with opened(browser, large.url, "#/identities") as page:
        table = page.get_by_role("table", name="Identities")
        expect(table).to_have_attribute("aria-rowcount", "100001")
        expect(table.get_by_role("row").nth(1)).to_have_attribute("aria-rowindex", "2")
