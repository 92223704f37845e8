"""The browser, a console over made-up identities, and the real one over `jeton dev`. Free ports, temporary folders."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time
import types

import pytest
import requests
from playwright.sync_api import expect, sync_playwright

from browser import launched
from made_up import Still, World
from mock import Mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("JETON", ROOT / "target" / "debug" / "jeton"))
DEADLINE_S = 120
LINK = re.compile(r"http://(?:127\.0\.0\.1|localhost):\d+/login\?code=\S+")

expect.set_options(timeout=15_000)


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        chromium = launched(playwright)
        yield chromium
        chromium.close()


@pytest.fixture
def mock():
    served = Mock(World(400))
    yield served
    served.stop()


@pytest.fixture(scope="session")
def large():
    served = Mock(Still(100_000))
    yield served
    served.stop()


class Process:
    """A program in the background; `until` finds out whether it is ready, and its answer is kept."""

    def __init__(self, arguments, log, until):
        self.log_path, self.log = log, open(log, "wb")
        self.child = subprocess.Popen([str(a) for a in arguments], stdout=self.log, stderr=subprocess.STDOUT)
        end = time.monotonic() + DEADLINE_S
        while not (ready := until()) and self.child.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        self.ready = ready
        if not ready:
            self.stop()
            raise RuntimeError(f"{arguments} is not ready:\n{log.read_text(errors='replace')}")

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.log.close()


class Broker:
    """`jeton dev`, its sandbox's settings and its command line."""

    def __init__(self, folder):
        self.folder, self.data = folder, folder / "data"
        endpoints = self.data / "endpoints.json"
        arguments = [BINARY, "dev", "--data-dir", self.data, "--free-ports"]
        self.process = Process(arguments, folder / "dev.txt", lambda: endpoints.exists() and json.loads(endpoints.read_text()))
        self.info = self.process.ready
        self.http = requests.Session()
        self.http.verify, self.http.trust_env = self.info["sandbox"]["ca_file"], False

    def client_id(self, name):
        return next(each["client_id"] for each in self.info["identities"] if each["name"] == name)

    def order(self, client_id=None, **members):
        answer = self.http.put(self.info["sandbox"]["url"] + "/sandbox/settings", json={"client_id": client_id, **members})
        assert answer.status_code == 200, answer.text

    def refused(self, client_id):
        """How many of its requests the sandbox has refused."""
        stats = self.http.get(self.info["sandbox"]["url"] + "/sandbox/stats").json()
        return stats["by_client"].get(client_id, {}).get("refused", 0)

    def jeton(self, *arguments, check=True):
        done = subprocess.run([BINARY, *arguments, "--data-dir", self.data], capture_output=True, text=True, timeout=DEADLINE_S)
        assert not check or done.returncode == 0, done.stderr
        return done


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    running = Broker(tmp_path_factory.mktemp("console"))
    yield running
    running.process.stop()


@pytest.fixture
def console(broker, tmp_path):
    """`jeton console`: `url` is its link, which lets in once."""
    log = tmp_path / "console.txt"
    found = lambda: log.exists() and LINK.search(log.read_text())
    process = Process([BINARY, "console", "--no-open", "--data-dir", broker.data], log, found)
    yield types.SimpleNamespace(url=process.ready.group(), process=process)
    process.stop()


@pytest.fixture(params=["made up", "real"])
def served(request):
    """A console of either kind: `url`, and an `identity` that it has."""
    if request.param == "real":
        return types.SimpleNamespace(url=request.getfixturevalue("console").url, identity="billing")
    made_up = request.getfixturevalue("mock")
    return types.SimpleNamespace(url=made_up.url, identity=made_up.world.chosen()[0]["name"].removeprefix("identities/"))
