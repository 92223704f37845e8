"""Starts what the tests talk to: the sandbox as a process of its own, and `jeton dev`. Free ports, temporary folders."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import requests

from entra import Certificate, Directory

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("JETON", ROOT / "target" / "debug" / "jeton"))
DEADLINE_S = 120


class Process:
    """A program in the background that announces itself by a JSON file."""

    def __init__(self, arguments, announces, log):
        self.log = open(log, "wb")
        self.log_path = log
        self.child = subprocess.Popen([str(a) for a in arguments], stdout=self.log, stderr=subprocess.STDOUT)
        self.info = self._await(announces)

    def _await(self, announces):
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            if self.child.poll() is not None:
                break
            if announces.exists():
                return json.loads(announces.read_text())
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"{announces} did not appear:\n{self.log_path.read_text(errors='replace')}")

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.log.close()

    def kill(self):
        self.child.kill()
        self.child.wait()
        self.log.close()


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sandbox")
    process = Process([BINARY, "sandbox", "--data-dir", folder, "--free-ports"], folder / "sandbox.json", folder / "log.txt")
    yield process.info
    process.stop()


@pytest.fixture(scope="module")
def directory(sandbox, http):
    return Directory(sandbox, http)


@pytest.fixture(scope="module")
def certificate():
    return Certificate()


@pytest.fixture(scope="module")
def application(directory, certificate):
    return directory.application(certificate)


@pytest.fixture(scope="module")
def audience(directory):
    return directory.entra["token_endpoint"]


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dev")
    arguments = [BINARY, "dev", "--data-dir", folder / "data", "--free-ports", "--mtls"]
    process = Process(arguments, folder / "data" / "endpoints.json", folder / "log.txt")
    info = dict(process.info, data_dir=str(folder / "data"), log=str(folder / "log.txt"))
    yield info
    process.stop()


@pytest.fixture(scope="session")
def doors(broker):
    from doors import Doors

    return Doors(broker)


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """Stubs generated from proto/ by grpcio-tools, as any Python user would make them."""
    out = tmp_path_factory.mktemp("stubs")
    protos = sorted(str(p) for p in (ROOT / "proto" / "jeton" / "v1").glob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}"]
    subprocess.run(command + protos, check=True)
    sys.path.insert(0, str(out))
    yield out
    sys.path.remove(str(out))


def session_for(sandbox):
    session = requests.Session()
    session.verify = sandbox["ca_file"]
    session.trust_env = False
    return session


@pytest.fixture(scope="session")
def http(sandbox):
    return session_for(sandbox)


@pytest.fixture
def order(sandbox, http):
    """Settings at the sandbox's control door, cleared again afterwards."""
    door, ordered = sandbox["url"] + "/sandbox/settings", []

    def put(client_id=None, expect=200, **members):
        answer = http.put(door, json={"client_id": client_id, **members})
        assert answer.status_code == expect, answer.text
        if expect == 200:
            ordered.append({"client_id": client_id, **dict.fromkeys(members)})
        return answer.json()

    yield put
    for cleared in ordered:
        assert http.put(door, json=cleared).status_code == 200


def jeton(*arguments, check=True):
    """The command line, as a person would use it."""
    done = subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S)
    if check:
        assert done.returncode == 0, done.stderr
    return done
