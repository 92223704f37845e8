"""What is acknowledged is on disk: in the order of system calls, the answer comes after the WAL was flushed."""

import re
import shutil
import subprocess

import grpc
import pytest

from conftest import BINARY, Process

CALLS = "fdatasync,fsync,recvfrom,read,readv,write,writev,sendto,sendmsg"


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed: .ci/run installs it")
def test_an_identity_is_flushed_before_it_is_acknowledged(tmp_path, stubs):
    from jeton.v1 import identity_pb2, identity_pb2_grpc

    data, trace = tmp_path / "data", tmp_path / "trace.txt"
    arguments = ["strace", "-f", "-yy", "-qq", "-s", "2048", "-e", f"trace={CALLS}", "-o", trace]
    broker = Process([*arguments, BINARY, "dev", "--data-dir", data, "--free-ports"], data / "endpoints.json", tmp_path / "log.txt")
    try:
        with grpc.insecure_channel(f"unix:{broker.info['admin_socket']}") as channel:
            stub = identity_pb2_grpc.IdentityServiceStub(channel)
            grpc.channel_ready_future(channel).result(timeout=60)
            for n in range(3):
                request = identity_pb2.CreateIdentityRequest(identity_id=f"flushed-{n}", authority="authorities/entra")
                stub.CreateIdentity(request, timeout=60)
    finally:
        subprocess.run(["kill", "-TERM", str(broker.info["pid"])], check=False)
        broker.child.wait(timeout=60)
        broker.log.close()
    lines = calls(trace.read_text(errors="replace"))
    for n in range(3):
        asked = index(lines, rf"(recvfrom|read|readv)\(.*admin\.sock.*flushed-{n}")
        answered = index(lines, rf"(write|writev|sendto|sendmsg)\(.*admin\.sock.*flushed-{n}", asked)
        between = [line for line in lines[asked:answered] if re.search(r"f(data)?sync\(.*registry\.db-wal.* = 0$", line)]
        assert between, f"flushed-{n} was acknowledged before the WAL was flushed"


def calls(trace):
    """The lines of a trace. A call that another thread's interrupts has two: the second, where it ends, gets what the first says."""
    begun, lines = {}, []
    for line in trace.splitlines():
        thread, _, call = line.partition(" ")
        if resumed := re.match(r" *<\.\.\. \w+ resumed>(.*)", call):
            line = begun.pop(thread, "") + resumed[1]
        elif call.endswith("<unfinished ...>"):
            begun[thread] = line.removesuffix("<unfinished ...>")
        lines.append(line)
    return lines


def index(lines, pattern, start=0):
    for number in range(start, len(lines)):
        if re.search(pattern, lines[number]):
            return number
    raise AssertionError(f"no {pattern} in the trace")
