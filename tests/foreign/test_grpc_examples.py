"""The programs of examples/grpc, generated, built and run by the commands of docs/clients.md as they stand."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest
import requests

from conftest import BINARY, DEADLINE_S, ROOT, Process, jeton
from test_bearer_callers import door  # noqa: F401

CLIENTS = (ROOT / "docs" / "clients.md").read_text()
EXAMPLES = ROOT / "examples" / "grpc"
SECTIONS = {"python": "Python", "go": "Go", "node": "Node and TypeScript", "java": "Java", "rust": "Rust"}
WITH_TLS = ["python", "go", "node", "java"]
# A first build fetches what it needs.
BUILD_S = 600
TOOLS = ROOT / "target" / "ci-tools"
VAULT, ORDERS = "https://vault.example/.default", "https://orders.example/.default"
# What `jeton dev` has at once: a token of its own for each language.
WATCHED = {
    "python": ("identities/billing", VAULT),
    "go": ("identities/billing", ORDERS),
    "node": ("identities/reports", VAULT),
    "java": ("identities/reports", ORDERS),
    "rust": ("identities/demo-system", VAULT),
}


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", CLIENTS, re.M | re.S).group(1)


def commands(title):
    return [line for block in re.findall(r"```sh\n(.*?)```", section(title), re.S) for line in block.splitlines()]


class Examples:
    """A copy of the definitions and the examples, so that what is generated and built leaves the tree as it is."""

    def __init__(self, folder, broker):
        self.folder, self.broker = folder, broker
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "proto", "examples/grpc"]
        for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        (folder / ".jeton").symlink_to(broker["data_dir"])
        path = [BINARY.parent, TOOLS / "bin", TOOLS / "buf" / "node_modules" / ".bin", os.environ["PATH"]]
        self.environment = dict(os.environ, PATH=":".join(map(str, path)), JETON_DATA_DIR=broker["data_dir"])
        # A program that ends after a second needs no better code than this.
        self.environment["JAVA_TOOL_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"

    def start(self, line):
        # What pip installs is kept from run to run.
        line = line.replace(".venv", str(TOOLS / "grpc-python"))
        line = line.replace("127.0.0.1:7411", self.broker["grpc"]).replace("127.0.0.1:7412", self.broker["grpc_tls"]["address"])
        # The one that is a part of the workspace.
        folder = ROOT if line.startswith("cargo ") else self.folder
        how = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        return subprocess.Popen(line, shell=True, cwd=folder, env=self.environment, **how)

    def shell(self, line):
        child = self.start(line)
        return self.end(child)

    @staticmethod
    def end(child):
        try:
            out, err = child.communicate(timeout=BUILD_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(child.args, child.returncode, out, err)

    def beside(self, languages, **arguments):
        """All at once, each to its end."""
        children = {language: self.start(self.line(language, **arguments)) for language in languages}
        return {language: self.end(child) for language, child in children.items()}

    def line(self, language, **arguments):
        """The command with which the guide runs an example, and arguments."""
        return " ".join([commands(SECTIONS[language])[-1], *(f"--{name} {value}" for name, value in arguments.items())])

    def run(self, language, **arguments):
        done = self.shell(self.line(language, **arguments))
        assert done.returncode == 0, done.stdout + done.stderr
        return done


def result(output):
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def examples(broker, tmp_path_factory):
    """Built by the commands of the guide."""
    examples = Examples(tmp_path_factory.mktemp("examples"), broker)
    for language, title in SECTIONS.items():
        for line in commands(title):
            done = examples.shell(line)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert result(done.stdout)["language"] == language
    return examples


def token_of(data_dir, identity, scope):
    return json.loads(jeton("token", "get", "--identity", identity, "--scope", scope, "-o", "json", "--data-dir", data_dir).stdout)


def short_hash(token):
    return hashlib.sha256(token["access_token"].encode()).hexdigest()[:8]


@pytest.mark.parametrize("language", SECTIONS)
def test_an_example_gets_reports_and_watches_tokens_and_reads_a_refusal(examples, broker, language):
    identity, data_dir = f"identities/demo-{language}", broker["data_dir"]
    jeton("identity", "create", identity, "--authority", "entra", "--data-dir", data_dir)
    jeton("access", "assign", "--member", "workloads/demo", "--identity", identity, "--target", VAULT, "--data-dir", data_dir)
    before = token_of(data_dir, identity, VAULT)
    done = examples.run(language, identity=identity, updates=2)
    after = token_of(data_dir, identity, VAULT)

    told = result(done.stdout)
    assert told["language"] == language and told["address"] == f"unix:{broker['grpc_socket']}"
    expires_at = told["token"].pop("expires_at")
    assert time.strptime(expires_at[:19], "%Y-%m-%dT%H:%M:%S") == time.strptime(before["expires_at"][:19], "%Y-%m-%dT%H:%M:%S")
    assert told["token"] == {"identity": identity, "client_id": before["client_id"], "sha256": short_hash(before)}
    assert told["batch"] == [
        {"identity": identity, "sha256": short_hash(before)},
        {"identity": "identities/nobody", "reason": "ACCESS_DENIED"},
    ]
    correlation_id = told["refusal"].pop("correlation_id")
    assert told["refusal"] == {"code": "PERMISSION_DENIED", "reason": "ACCESS_DENIED", "retry_after_seconds": None}
    explained = jeton("access", "explain", "--correlation", correlation_id, "--data-dir", data_dir)
    assert "does not exist" in explained.stdout
    assert told["report"] == "REPORT_OUTCOME_REFRESHING"
    assert told["updates"] == [short_hash(before), short_hash(after)] and before["access_token"] != after["access_token"]
    assert told["interruptions"] == 0
    for part in [*before["access_token"].split("."), *after["access_token"].split(".")]:
        assert part not in done.stdout + done.stderr


@pytest.mark.parametrize("language", SECTIONS)
def test_an_example_connects_to_loopback(examples, broker, language):
    assert result(examples.run(language, address=broker["grpc"]).stdout)["address"] == broker["grpc"]


@pytest.mark.parametrize("language", WITH_TLS)
def test_an_example_connects_with_its_certificate_and_not_with_a_strangers(examples, broker, language):
    tls = broker["grpc_tls"]
    for client in tls["clients"]:
        files = dict(ca=tls["ca_file"], cert=client["cert_file"], key=client["key_file"])
        done = examples.shell(examples.line(language, address=tls["address"], **files))
        if client["allowed"]:
            assert result(done.stdout)["address"] == tls["address"], done.stderr
        else:
            assert done.returncode != 0 and "access denied" in done.stdout + done.stderr


@pytest.mark.parametrize("language", WITH_TLS)
def test_an_example_shows_the_bearer_token_in_a_file(examples, door, language, tmp_path):  # noqa: F811
    file = tmp_path / "token"
    where = dict(address=door.tls["address"], ca=door.tls["ca_file"], bearer=file)
    file.write_text(door.world.token() + "\n")
    assert result(examples.run(language, **where).stdout)["token"]["identity"] == "identities/billing"
    file.write_text(door.world.token(aud="vault"))
    done = examples.shell(examples.line(language, **where))
    assert done.returncode != 0 and "UNAUTHENTICATED" in (done.stdout + done.stderr).upper()


class Own:
    """A broker of this module's own, to be stopped and killed; it is found at the same places again."""

    def __init__(self, folder, *settings):
        self.folder, self.settings, self.starts = folder, settings, 0
        self.start()

    def start(self):
        endpoints = self.folder / "data" / "endpoints.json"
        # A killed one leaves it behind.
        endpoints.unlink(missing_ok=True)
        self.starts += 1
        arguments = [BINARY, "dev", "--data-dir", endpoints.parent, "--free-ports", *self.settings]
        self.process = Process(arguments, endpoints, self.folder / f"log-{self.starts}.txt")
        self.info = dict(self.process.info, data_dir=str(endpoints.parent))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    own = Own(tmp_path_factory.mktemp("own"))
    yield own
    own.process.stop()


class Watching:
    """An example that runs beside the test, which follows what it says."""

    def __init__(self, examples, language, own, identity=None):
        identity, scope = (identity, VAULT) if identity else WATCHED[language]
        arguments = {"data-dir": own.info["data_dir"], "identity": identity, "scope": scope, "updates": 5}
        self.language, self.said = language, ""
        self.child = examples.start(examples.line(language, **arguments))
        self.deadline = threading.Timer(DEADLINE_S, self.kill)
        self.deadline.start()

    def until(self, words):
        """Reads until a line has these words, or the deadline has ended the program."""
        for line in self.child.stdout:
            self.said += line
            if words in line:
                return
        raise AssertionError(f"{self.language} ended before {words!r}:\n{self.said}\n{self.child.stderr.read()}")

    def end(self):
        out, err = self.child.communicate(timeout=DEADLINE_S)
        assert self.child.returncode == 0, err
        return result(out)

    def kill(self):
        self.deadline.cancel()
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()


def test_a_watch_goes_on_over_a_stop_a_kill_and_a_revocation(examples, own):
    watching = [Watching(examples, language, own) for language in SECTIONS]
    try:
        for example in watching:
            example.until("update 2")
        own.process.stop()
        own.start()
        for example in watching:
            example.until("update 3")
        own.process.kill()
        own.start()
        for example in watching:
            example.until("update 4")
        jeton("access", "revoke", "--all", "--yes", "--data-dir", own.info["data_dir"])
        for example in watching:
            told = example.end()
            first, refreshed, stopped, killed, new = told["updates"]
            assert told["report"] == "REPORT_OUTCOME_REFRESHING", example.language
            assert first != refreshed == stopped == killed != new, example.language
            assert told["interruptions"] >= 3
            assert new == short_hash(token_of(own.info["data_dir"], *WATCHED[example.language]))
    finally:
        for example in watching:
            example.kill()


def test_a_watch_ends_when_its_token_is_not_allowed_any_longer(examples, own):
    data_dir, identity = own.info["data_dir"], "identities/leaving"
    jeton("identity", "create", identity, "--authority", "entra", "--data-dir", data_dir)
    jeton("access", "assign", "--member", "workloads/demo", "--identity", identity, "--target", VAULT, "--data-dir", data_dir)
    watching = [Watching(examples, language, own, identity) for language in SECTIONS]
    try:
        for example in watching:
            example.until("update 1")
        jeton("identity", "delete", identity, "--yes", "--data-dir", data_dir)
        for example in watching:
            out, err = example.child.communicate(timeout=DEADLINE_S)
            assert example.child.returncode > 0 and re.search("access.denied", out + err, re.I), (example.language, err)
    finally:
        for example in watching:
            example.kill()


def test_a_watch_goes_on_when_its_connection_has_its_age(examples, tmp_path):
    aged = Own(tmp_path, "--set", "door.max_age_ms=1000", "--set", "door.age_grace_ms=100")
    try:
        for language, done in examples.beside(SECTIONS, **{"data-dir": aged.info["data_dir"], "updates": 4}).items():
            assert done.returncode == 0, (language, done.stderr)
            # A report may have brought one more.
            assert result(done.stdout)["interruptions"] >= 2, language
    finally:
        aged.process.stop()


def test_an_example_waits_for_a_broker_until_its_deadline(examples, tmp_path):
    waiting = ["python", "go", "node", "java"]
    for language, done in examples.beside(waiting, address=f"unix:{tmp_path}/nobody.sock").items():
        assert done.returncode != 0
        assert re.search("DEADLINE_EXCEEDED|DeadlineExceeded", done.stderr), (language, done.stderr)


def test_the_examples_read_when_a_retry_is_worth_it(examples, own):
    data_dir, identity = own.info["data_dir"], "identities/failing"
    jeton("identity", "create", identity, "--authority", "entra", "--data-dir", data_dir)
    jeton("access", "assign", "--member", "workloads/demo", "--identity", identity, "--target", VAULT, "--data-dir", data_dir)
    client_id = json.loads(jeton("identity", "get", identity, "-o", "json", "--data-dir", data_dir).stdout)["client_id"]
    fault = {"client_id": client_id, "error": {"rate": 1.0, "status": 503, "retry_after_seconds": 60}}
    sandbox = own.info["sandbox"]
    answer = requests.put(sandbox["url"] + "/sandbox/settings", json=fault, verify=sandbox["ca_file"])
    assert answer.status_code == 200, answer.text
    for language in SECTIONS:
        told = result(examples.run(language, **{"data-dir": data_dir, "refused": identity}).stdout)
        refusal = told["refusal"]
        assert (refusal["code"], refusal["reason"]) == ("UNAVAILABLE", "AUTHORITY_UNAVAILABLE"), language
        assert 0 < refusal["retry_after_seconds"] <= 60 and refusal["correlation_id"]
        assert told["batch"][1]["reason"] == "AUTHORITY_UNAVAILABLE"


def test_the_commands_for_grpcurl_work(examples):
    lines = commands("grpcurl")
    for line in lines:
        done = examples.shell(line)
        assert done.returncode == 0 and ("jeton.v1." in done.stdout or '"accessToken"' in done.stdout), (line, done.stderr)
    assert any("describe" in line for line in lines) and any("-unix" in line for line in lines)


def test_every_command_of_the_guide_is_run():
    run = [line for title in [*SECTIONS.values(), "grpcurl"] for line in commands(title)]
    every = [line for block in re.findall(r"```sh\n(.*?)```", CLIENTS, re.S) for line in block.splitlines()]
    assert sorted(run) == sorted(every)


def test_what_the_guide_shows_is_in_the_examples():
    suffixes = {"python": "*.py", "go": "*.go", "js": "*.js", "java": "*.java", "rust": "*.rs"}
    shown = re.findall(r"^```(\w+)\n(.*?)^```", CLIENTS, re.M | re.S)
    assert suffixes.keys() <= {language for language, _ in shown}
    for language, text in shown:
        if language in suffixes:
            files = [f for f in EXAMPLES.rglob(suffixes[language]) if "node_modules" not in f.parts]
            assert any(text in file.read_text() for file in files), text


def test_the_service_config_is_one():
    config = (EXAMPLES / "service-config.json").read_text()
    assert re.search(r"```json\n(.*?)```", CLIENTS, re.S).group(1) == config
    assert (EXAMPLES / "go" / "service-config.json").read_text() == config


def test_csharp_stubs_have_their_own_namespace(examples, tmp_path):
    # The protoc that Maven fetched; grpcio-tools has no C#.
    protoc = next((examples.folder / "examples/grpc/java/target/protoc-plugins").glob("protoc-[0-9]*"))
    done = examples.shell(f"{protoc} --descriptor_set_in=proto/released.binpb --csharp_out={tmp_path} jeton/v1/token.proto")
    assert done.returncode == 0, done.stderr
    assert "namespace Jeton.V1 {" in (tmp_path / "Token.cs").read_text()
