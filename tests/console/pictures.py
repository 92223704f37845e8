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
TEAMS = {"payments": ("checkout", "refunds", "ledger"), "orders": ("intake", "shipping"), "search": ("index", "suggest"), "people": ("payroll",)}
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
def load(broker, identities):
    loadtest = BINARY.with_name("loadtest")
    named = [argument for name in identities for argument in ("--identity", f"identities/{name}")]
    command = [loadtest, "run", "--data-dir", broker.data, "--rate", "400", "--connections", "24", "--seconds", str(LOAD_S), "--quiet", *named]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        assert child.poll() is None, "the load has ended before its time"
    finally:
        child.kill()
        child.wait()


def fail(broker, name):
    """Its tokens are short, so that their refresh is due soon; and then its authority is away."""
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
        identity = json.loads(broker.jeton("identity", "get", failing, "-o", "json").stdout)
        broker.order(identity["client_id"], token_lifetime_seconds=SHORT_S)
        with load(broker, [*names, "billing", "reports"]):
            # Long enough for the charts to have a course.
            time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 150)
            fail(broker, failing)
            end = time.monotonic() + SHORT_S
            problems = lambda: json.loads(broker.jeton("status", "-o", "json", check=False).stdout)["problems"]
            while not problems() and time.monotonic() < end:
                time.sleep(1)
            with sync_playwright() as playwright:
                take(playwright, broker, folder, failing)


if __name__ == "__main__":
    main()
