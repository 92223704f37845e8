"""The binary, its tools, and what `jeton serve` needs. Free ports, temporary folders; what is started is ended."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("JETON", ROOT / "target" / "debug" / "jeton"))
HELM = ROOT / "target" / "ci-tools" / "deploy" / "bin" / "helm"
DEADLINE_S = 120


def run(*arguments, ok=True, **more):
    """A program that ends; what it printed."""
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=600, **more)
    assert not ok or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def until(what, holds):
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def end(child):
    """Ends a process as a supervisor does; its exit code."""
    child.send_signal(signal.SIGTERM)
    try:
        return child.wait(timeout=60)
    finally:
        child.kill()


def key(path, mode=0o600):
    path.write_bytes(os.urandom(32))
    path.chmod(mode)
    return path


@pytest.fixture
def sealing_key(tmp_path):
    return key(tmp_path / "sealing.key")
