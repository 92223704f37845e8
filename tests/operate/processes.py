"""Programs on loopback that tests start and end, on free ports."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("JETON", ROOT / "target" / "debug" / "jeton"))
TOOLS = ROOT / "target" / "ci-tools" / "operate" / "bin"
DEADLINE_S = 120


def until(what, holds, seconds=DEADLINE_S):
    """Waits for what must come; what it was."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"{what} after {seconds} s"
        time.sleep(0.1)
    return found


def free_ports(count):
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Process:
    """A program in the background, and what it says."""

    def __init__(self, log, *arguments, **environment):
        self.log_path = log
        self.log = open(log, "ab")
        # Nothing of whoever runs the tests points somewhere else.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "JETON"))}
        self.child = subprocess.Popen(
            [str(a) for a in arguments], env=inherited | environment, stdout=self.log, stderr=subprocess.STDOUT
        )

    def until(self, what, holds):
        def alive_and_holds():
            assert self.child.poll() is None, f"{what}: it ended\n{self.said()}"
            return holds()

        try:
            return until(what, alive_and_holds)
        except AssertionError:
            self.stop()
            raise

    def said(self):
        return self.log_path.read_text(errors="replace")

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.kill()
        self.log.close()

    def kill(self):
        self.child.kill()
        self.child.wait()


def run(*arguments, ok=True, **more):
    """A program that ends."""
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=DEADLINE_S, **more)
    assert not ok or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done
