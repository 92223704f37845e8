"""Every command of the README, run as it stands, and the lines to copy that a first start prints."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from conftest import BINARY, ROOT, jeton

README = (ROOT / "README.md").read_text()
# Run by `.ci/run` itself, or by every fixture here.
ELSEWHERE = {"cargo run --release --bin jeton -- dev", "cargo test --workspace"}
# Programs that run until they are stopped, and what shows that they are up.
SERVERS = {"jeton serve": "data/endpoints.json", "jeton sandbox": "sandbox/sandbox.json"}


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def shell(broker, tmp_path_factory):
    """A shell in which `jeton` is the binary and finds the running broker."""
    folder = tmp_path_factory.mktemp("readme")
    path = f"{BINARY.parent}:{ROOT / 'target' / 'ci-tools' / 'bin'}:{os.environ['PATH']}"
    environment = dict(os.environ, PATH=path, JETON_DATA_DIR=broker["data_dir"])
    environment.pop("JETON", None)

    # The data directory and the port of whoever types `jeton dev --mtls`.
    (folder / ".jeton").symlink_to(broker["data_dir"])

    def run(line, **more):
        line = line.replace("127.0.0.1:7412", broker["grpc_tls"]["address"])
        line = line.replace("http://127.0.0.1:7431/metrics", broker["metrics"])
        arguments = dict(shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
        return subprocess.run(line, **{**arguments, **more})

    run.folder, run.environment = folder, environment
    return run


def test_every_command_of_the_readme_works(shell):
    seen = set()
    for line in commands():
        if line in ELSEWHERE:
            continue
        server = next((name for name in SERVERS if line.startswith(name)), None)
        if server:
            child = subprocess.Popen(f"exec {line}", shell=True, cwd=shell.folder, env=shell.environment)
            try:
                for _ in range(600):
                    if (shell.folder / SERVERS[server]).exists():
                        break
                    assert child.poll() is None, line
                    shell("sleep 0.1")
                else:
                    raise AssertionError(f"{line} is not up")
            finally:
                child.terminate()
                assert child.wait(timeout=60) == 0, line
        else:
            done = shell(line)
            assert done.returncode == 0, (line, done.stderr)
        seen.add(line.split()[0])
    assert {"jeton", "loadtest", "grpcurl"} <= seen


def test_the_python_program_of_the_readme_works(shell, broker, stubs):
    program = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    for address in (broker["grpc"], f"unix:{broker['grpc_socket']}"):
        environment = dict(os.environ, PYTHONPATH=str(stubs))
        done = subprocess.run(
            [sys.executable, "-c", program, address], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0 and "seconds:" in done.stdout, done.stderr


def test_the_lines_to_copy_of_the_tour_work(shell, broker, stubs):
    tour = open(broker["log"]).read()
    line = re.search(r"^ +(\S*jeton token get .*)$", tour, re.M).group(1)
    assert shell(line).returncode == 0
    python = re.search(r"^  # Python.*?\n((?:  .*\n)+)", tour, re.M).group(1)
    program = "\n".join(line[2:] for line in python.splitlines())
    environment = dict(os.environ, PYTHONPATH=str(stubs))
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    tools = ROOT / "target" / "ci-tools" / "bin"
    grpcurl = re.search(r"^ +(grpcurl .*)$", tour, re.M).group(1)
    assert shutil.which("grpcurl", path=f"{tools}:{os.environ['PATH']}"), "grpcurl is not installed: .ci/foreign installs it"
    done = shell(f"PATH={tools}:$PATH {grpcurl}")
    assert done.returncode == 0 and '"accessToken"' in done.stdout, done.stderr


def test_the_help_of_every_command_says_something(broker):
    for command in ["identity attach", "authority create", "token get", "access assign", "serve", "dev", "apply"]:
        assert len(jeton(*command.split(), "--help").stdout.splitlines()) > 5, command
