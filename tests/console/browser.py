"""Chromium, and what must not happen in it: errors in its console, violations of the policy, requests to other hosts."""

import contextlib
import os
import urllib.parse

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
NAMES = ("Overview", "Identities", "Authorities", "Events", "Explain")


def launched(playwright):
    # Tests run as root in containers, where Chromium has no sandbox of its own.
    return playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


class Witness:
    """Writes down what a page must not do."""

    def __init__(self, page, url):
        self.host, self.faults = urllib.parse.urlsplit(url).netloc, []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.faults.append(f"page error: {error}"))
        page.on("request", self._requested)
        page.on("dialog", self._alerted)

    def _said(self, message):
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _requested(self, request):
        where = urllib.parse.urlsplit(request.url)
        if where.scheme not in ("data", "blob") and where.netloc != self.host:
            self.faults.append(f"another host: {request.url}")

    def _alerted(self, dialog):
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@contextlib.contextmanager
def opened(browser, url, hash="", *, size=DESKTOP, scheme="light", allowed=None, **more):
    """A page of the console. Afterwards nothing has gone wrong in it, but for faults that contain what is `allowed`."""
    context = browser.new_context(viewport=size, color_scheme=scheme, **more)
    page = context.new_page()
    witness = Witness(page, url)
    try:
        page.goto(url)
        if hash:
            page.goto(urllib.parse.urljoin(page.url, "/") + hash)
        page.wait_for_selector("main h1")
        yield page
        # What has been said is heard before the page goes.
        page.evaluate("() => new Promise((done) => setTimeout(done))")
        wrong = [fault for fault in witness.faults if not (allowed and allowed in fault)]
        assert not wrong, wrong
    finally:
        context.close()


def settled(page):
    """Waits until the page has its content."""
    page.wait_for_function("() => ![...document.querySelectorAll('main .empty')].some((e) => e.textContent === 'Loading…')")


def width_beyond(page):
    """How far the page is wider than its window."""
    return page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
