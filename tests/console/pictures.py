"""Makes the pictures of docs/console.md: a broker under load, one of whose identities fails. Needs `cargo build --bin jeton --bin loadtest`."""

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from playwright.sync_api import sync_playwright

from browser import PHONE, launched, settled
from conftest import BINARY, LINK, ROOT, Broker, Process

OUT = ROOT / "docs" / "images"
MOST_BYTES = 250_000
SIZE = {"width": 1280, "height": 860}
TEAMS = {
    "payments": ("checkout", "refunds", "ledger", "payouts"),
    "orders": ("intake", "shipping", "returns"),
    "search": ("index", "suggest"),
    "people": ("payroll", "directory"),
    "media": ("encode", "thumbnails"),
}
LOAD_S = 600
SHORT_S = 240


def provision(broker, folder):
    """Identities with names as real ones have them, each with somebody who may use it; those at Entra."""
    names = [f"{team}.{part}" for team, parts in TEAMS.items() for part in parts]
    file = folder / "state.toml"
    file.write_text("".join(written(name, n, broker.info["scopes"][0]) for n, name in enumerate(names)))
    broker.jeton("apply", "-f", file)
    return [name for n, name in enumerate(names) if at(n) == "entra"]


def at(n):
    return "oidc" if n % 4 == 3 else "entra"


def written(name, n, scope):
    """An identity and its role assignment, as `jeton apply` reads them."""
    target = scope if at(n) == "entra" else "resource:https://orders.example"
    return f"""
[[identities]]
name = "{name}"
authority = "{at(n)}"
display_name = "{name.replace(".", " ").title()}"
labels = {{ team = "{name.split(".")[0]}" }}
[[role_assignments]]
name = "{name.replace(".", "-")}"
member = "workloads/demo"
role = "token-user"
identity = "{name}"
targets = ["{target}"]
"""


@contextlib.contextmanager
def load(broker, identities, rate):
    loadtest = BINARY.with_name("loadtest")
    named = [argument for name in identities for argument in ("--identity", f"identities/{name}")]
    command = [loadtest, "run", "--data-dir", broker.data, "--rate", str(rate), "--connections", str(rate // 16), "--seconds", str(LOAD_S), "--quiet", *named]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        assert child.poll() is None, "the load has ended before its time"
    finally:
        child.kill()
        child.wait()


def busy(broker, used, seconds):
    """Waits so long that the charts have a course: now and then somebody asks who may not, and for a third of it more do who may."""
    refused = ("token", "get", "--identity", "reports", "--scope", "https://other.example/.default")
    for third in range(3):
        with load(broker, used, 320) if third == 1 else contextlib.nullcontext():
            end = time.monotonic() + seconds / 3
            while time.monotonic() < end:
                broker.jeton(*refused, check=False)
                time.sleep(2)


def fail(broker, name):
    """Its authority is away for it."""
    identity = json.loads(broker.jeton("identity", "get", name, "-o", "json").stdout)
    broker.order(identity["client_id"], token_lifetime_seconds=SHORT_S, error={"rate": 1.0, "status": 503, "retry_after_seconds": 5})
    return identity["client_id"]


def pictures(page, tag, name):
    shown = {"overview": "#/", "identities": "#/identities", "identity": f"#/identities/{name}", "events": "#/events"}
    for picture, hash in shown.items():
        page.evaluate("(hash) => { location.hash = hash }", hash)
        page.wait_for_timeout(3000)
        settled(page)
        file = OUT / f"console-{picture}{tag}.png"
        page.screenshot(path=file)
        assert file.stat().st_size < MOST_BYTES, f"{file} is too large"
        print(file.relative_to(ROOT), file.stat().st_size)


def take(playwright, broker, folder, name):
    browser = launched(playwright)
    for tag, scheme, size in (("", "light", SIZE), ("-dark", "dark", SIZE), ("-phone", "dark", PHONE)):
        log = folder / f"console{tag}.txt"
        found = lambda: log.exists() and LINK.search(log.read_text())
        console = Process([BINARY, "console", "--no-open", "--data-dir", broker.data], log, found)
        try:
            page = browser.new_context(color_scheme=scheme, viewport=size).new_page()
            page.goto(console.ready.group())
            page.wait_for_selector("main h1")
            pictures(page, tag, name)
        finally:
            console.stop()
    browser.close()


def main():
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        folder = pathlib.Path(folder)
        broker = Broker(folder)
        ends.callback(broker.process.stop)
        names = provision(broker, folder)
        failing = names[0]
        # Short, so that something is refreshed while we look.
        broker.order(token_lifetime_seconds=SHORT_S)
        used = [*names, "billing", "reports"]
        with load(broker, used, 400):
            busy(broker, used, float(sys.argv[1]) if len(sys.argv) > 1 else 240)
            fail(broker, failing)
            end = time.monotonic() + SHORT_S
            problems = lambda: json.loads(broker.jeton("status", "-o", "json", check=False).stdout)["problems"]
            while not problems() and time.monotonic() < end:
                time.sleep(1)
            with sync_playwright() as playwright:
                take(playwright, broker, folder, failing)


if __name__ == "__main__":
    main()
