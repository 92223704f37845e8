"""Programs for any gRPC server: ghz, which loads it, and grpc-health-probe, which asks whether it serves."""

import json
import re
import signal
import subprocess
import threading
import time

import grpc
import pytest
import requests

from conftest import BINARY, DEADLINE_S, ROOT, Process

TOOLS = ROOT / "target" / "ci-tools" / "bin"
CALLS, CONNECTIONS, AT_ONCE = 4_000, 40, 80
PROBE_UNKNOWN_SERVICE = 3
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


def until(what, holds):
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def run(tool, *arguments):
    command = [str(TOOLS / tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)


def doors(broker):
    tls = broker["grpc_tls"]
    proof = next(client for client in tls["clients"] if client["allowed"])
    return tls, proof


@pytest.mark.parametrize("door", ["tcp", "unix", "tls"])
def test_ghz_gets_every_token_over_many_connections(broker, door):
    request = {"identity": "identities/billing", "scopes": [broker["vault"]["scope"]]}
    tls, proof = doors(broker)
    how = {
        "tcp": ["--insecure", broker["grpc"]],
        "unix": ["--insecure", f"unix:{broker['grpc_socket']}"],
        "tls": ["--cacert", tls["ca_file"], "--cert", proof["cert_file"], "--key", proof["key_file"], tls["address"]],
    }[door]
    load = ["-n", CALLS, "-c", AT_ONCE, "--connections", CONNECTIONS, "-O", "json"]
    done = run("ghz", "--call", "jeton.v1.TokenService.GetToken", "-d", json.dumps(request), *load, *how)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["count"], told["statusCodeDistribution"], told["errorDistribution"]) == (CALLS, {"OK": CALLS}, {}), door


@pytest.mark.parametrize("service", ["", "jeton.v1.TokenService"])
def test_the_probe_finds_the_data_plane_serving(broker, service):
    tls, proof = doors(broker)
    with_tls = ["-tls", "-tls-ca-cert", tls["ca_file"], "-tls-client-cert", proof["cert_file"], "-tls-client-key", proof["key_file"]]
    places = [["-addr", broker["grpc"]], ["-addr", f"unix:{broker['grpc_socket']}"], ["-addr", tls["address"], *with_tls]]
    for place in places:
        done = run("grpc-health-probe", *place, "-service", service)
        assert done.returncode == 0 and "SERVING" in done.stderr, (place, done.stderr)


def test_the_probe_finds_the_admin_plane_serving(broker):
    done = run("grpc-health-probe", "-addr", f"unix:{broker['admin_socket']}", "-service", "jeton.v1.IdentityService")
    assert done.returncode == 0, done.stderr


def test_a_service_that_is_not_here_is_unknown_to_the_probe(broker):
    # Each plane has its own.
    for service in ["jeton.v1.IdentityService", "nobody"]:
        done = run("grpc-health-probe", "-addr", broker["grpc"], "-service", service)
        assert done.returncode == PROBE_UNKNOWN_SERVICE and "code = NotFound" in done.stderr, done.stderr


def under_way(broker):
    """Requests that wait for something, at the door for callers on this machine."""
    text = requests.get(broker["metrics"], timeout=DEADLINE_S).text
    return int(re.search(r'^jeton_door_streams\{jeton_door="data \(loopback\)"\} (\d+)$', text, re.M).group(1))


def test_a_broker_that_drains_is_not_serving(tmp_path):
    data, more = tmp_path / "data", threading.Event()
    patient = ["--set", "door.request_deadline_ms=100000", "--set", "door.drain_deadline_ms=100000"]
    arguments = [BINARY, "dev", "--data-dir", data, "--free-ports", *patient]
    process = Process(arguments, data / "endpoints.json", tmp_path / "log.txt")
    try:
        probe = ["grpc-health-probe", "-addr", process.info["grpc"]]
        assert run(*probe).returncode == 0
        with grpc.insecure_channel(process.info["grpc"]) as channel:
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=DEADLINE_S)
            assert next(watch) == SERVING
            # Its message never comes: the drain waits for it as long as a request may take.
            half = channel.stream_unary("/jeton.v1.TokenService/GetToken").future(messages(more), timeout=DEADLINE_S)
            until("both are under way", lambda: under_way(process.info) == 2)
            process.child.send_signal(signal.SIGTERM)
            assert next(watch) == NOT_SERVING
            done = run(*probe)
            assert done.returncode != 0, done.stderr
            assert process.child.poll() is None and not half.done(), "it ended before the probe did"
            half.cancel()
            assert process.child.wait(timeout=DEADLINE_S) == 0
        assert run(*probe).returncode != 0
    finally:
        more.set()
        process.stop()


def messages(more):
    more.wait(DEADLINE_S)
    yield from ()
