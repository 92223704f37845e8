"""What the doors do with the broker's cache: one request for many, a live token before an error, a new one for a rejected one."""

import hashlib
import subprocess
import sys
import time

import pytest

from conftest import jeton
from doors import DOORS, VAULT
from probes import ask

ORDERS = "https://orders.example"
PROCESSES, CREDENTIALS = 8, 25
# Each process makes its credential objects first, and all of them ask when they are told to.
CROWD = f"""
import concurrent.futures, hashlib, sys
from azure.identity import ManagedIdentityCredential

credentials = [ManagedIdentityCredential(client_id=sys.argv[1]) for _ in range({CREDENTIALS})]
with concurrent.futures.ThreadPoolExecutor({CREDENTIALS}) as threads:
    print("ready", flush=True)
    sys.stdin.readline()
    tokens = list(threads.map(lambda credential: credential.get_token("{ORDERS}/.default").token, credentials))
print(*(hashlib.sha256(token.encode()).hexdigest() for token in tokens))
"""


@pytest.fixture
def sandbox(doors):
    return Control(doors)


class Control:
    """The sandbox's control door."""

    def __init__(self, doors):
        self.http, self.of = doors.http, doors.broker["sandbox"]

    def asked(self, client_id, scope):
        answer = self.http.get(self.of["url"] + "/sandbox/stats", verify=self.of["ca_file"]).json()
        return answer["by_client"].get(client_id, {}).get("by_scope", {}).get(scope, 0)

    def order(self, **settings):
        answer = self.http.put(self.of["url"] + "/sandbox/settings", json=settings, verify=self.of["ca_file"])
        assert answer.status_code == 200, answer.text


def forget(doors, identity):
    jeton("access", "revoke", "--identity", f"identities/{identity}", "--yes", "--data-dir", doors.broker["data_dir"])


def test_200_credential_objects_in_8_processes_cost_one_request(doors, sandbox):
    forget(doors, "reports")
    client_id, scope = doors.client_id("reports"), f"{ORDERS}/.default"
    before = sandbox.asked(client_id, scope)
    environment = doors.environment("app-service")
    command = [sys.executable, "-c", CROWD, client_id]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    crowd = [subprocess.Popen(command, env=environment, **pipes) for _ in range(PROCESSES)]
    try:
        for process in crowd:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        for process in crowd:
            process.stdin.write("\n")
            process.stdin.flush()
        printed = [process.communicate(timeout=120) for process in crowd]
    finally:
        for process in crowd:
            process.kill()
    assert all(process.returncode == 0 for process in crowd), [errors for _, errors in printed]
    tokens = [token for line, _ in printed for token in line.split()]
    assert len(tokens) == PROCESSES * CREDENTIALS
    assert set(tokens) == {doors.sha256("reports", scope=scope)}
    assert sandbox.asked(client_id, scope) - before == 1


@pytest.mark.parametrize("flavour", DOORS)
def test_a_live_token_beats_an_error_and_a_passing_trouble_is_a_503(doors, sandbox, flavour):
    door, client_id = doors.door(flavour), doors.client_id("billing")
    live = door.ask(client_id=client_id).json()["access_token"]
    forget(doors, "reports")
    sandbox.order(error={"rate": 1.0, "status": 503, "retry_after_seconds": 1})
    try:
        answer = door.ask(client_id=client_id)
        assert (answer.status_code, answer.json()["access_token"]) == (200, live)
        cold = door.ask(client_id=doors.client_id("reports"), resource=ORDERS)
        assert cold.status_code in (429, 503), cold.text
        assert 0 <= int(cold.headers["Retry-After"]) <= 60
        assert door.error(cold)
    finally:
        sandbox.order(error=None)


def test_the_life_that_is_left_is_counted_for_each_reply(doors):
    door = doors.door("app-service")
    first = door.ask().json()
    end = time.monotonic() + 30
    while (later := door.ask().json())["expires_in"] == first["expires_in"]:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert int(later["expires_in"]) < int(first["expires_in"]) and later["access_token"] == first["access_token"]
    # The end stays where it is, but for whole seconds of two clocks.
    assert abs(int(later["expires_on"]) - int(first["expires_on"])) <= 1


def test_a_token_that_its_caller_saw_rejected_is_not_handed_out_again(doors):
    """As MSAL says it at Service Fabric: by the hash of the token."""
    door, client_id = doors.door("service-fabric"), doors.client_id("billing")
    rejected = door.ask(client_id=client_id).json()["access_token"]
    digest = hashlib.sha256(rejected.encode()).hexdigest()
    renewed = door.ask(client_id=client_id, token_sha256_to_refresh=digest, xms_cc="CP1").json()
    assert renewed.get("access_token", rejected) != rejected, renewed
    # Whoever reports the same one later is given what is there by then.
    once_more = door.ask(client_id=client_id, token_sha256_to_refresh=digest, xms_cc="CP1").json()
    assert once_more["access_token"] == renewed["access_token"]
    claims = doors.claims(renewed["access_token"])
    assert (claims["azp"], claims["xms_cc"]) == (client_id, ["CP1"])


def test_a_slow_authority_is_asked_once_though_its_callers_try_again(doors, sandbox):
    """Google's clients give a try three seconds; what the first one began is what the second one gets."""
    forget(doors, "demo-system")
    client_id, scope = doors.client_id("demo-system"), f"{ORDERS}/.default"
    before = sandbox.asked(client_id, scope)
    sandbox.order(latency_ms=4_000)
    try:
        [answer] = ask("python", doors.environment("gce"), [["google", scope]])
    finally:
        sandbox.order(latency_ms=None)
    assert answer.get("sha256") == doors.sha256("demo-system", scope=scope), answer
    assert sandbox.asked(client_id, scope) - before == 1


def test_a_token_that_was_reported_to_the_broker_leaves_the_doors_too(doors, stubs):
    import grpc
    from jeton.v1 import token_pb2, token_pb2_grpc

    door = doors.door("app-service")
    rejected = door.ask(resource_id="identities/billing").json()["access_token"]
    with grpc.insecure_channel(doors.broker["grpc"]) as channel:
        digest = hashlib.sha256(rejected.encode()).digest()
        report = dict(identity="identities/billing", scopes=[f"{VAULT}/.default"], token_sha256=digest)
        token_pb2_grpc.TokenServiceStub(channel).ReportRejectedToken(token_pb2.ReportRejectedTokenRequest(**report), timeout=20)
    end = time.monotonic() + 30
    while (now := door.ask(resource_id="identities/billing").json()["access_token"]) == rejected:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert doors.claims(now)["azp"] == doors.client_id("billing")


