"""The image, built as deploy/Containerfile says but for its first stage, and run as strictly as Kubernetes would."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest
from conftest import BINARY, DEADLINE_S, ROOT, key, run, until

NAME = "localhost/jeton:test"
USER = 65532


@pytest.fixture(scope="module")
def store():
    """A store of images of its own, in a short path: sockets lie in it."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jeton-image-"))
    yield folder
    run("podman", *options(folder), "rm", "--all", "--force", ok=False)
    shutil.rmtree(folder, ignore_errors=True)


def options(store):
    return ["--root", store / "store", "--runroot", store / "run", "--storage-driver", "vfs"]


@pytest.fixture(scope="module")
def image(store):
    binary = store / "jeton"
    run("strip", "-o", binary, BINARY)
    run(ROOT / "deploy" / "container" / "root", binary, store / "build" / "image")
    build = ["bud", "--isolation", "chroot", "--build-context", f"build={store / 'build'}"]
    run("buildah", *options(store), *build, "-t", NAME, "-f", ROOT / "deploy" / "Containerfile", ROOT)
    return store / "build" / "image"


@pytest.fixture
def container(store, image, tmp_path):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    os.chown(data, USER, USER)
    # As Kubernetes mounts a secret for a group.
    sealing_key = key(tmp_path / "sealing.key", 0o440)
    os.chown(sealing_key, 0, USER)
    strict = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt", "no-new-privileges"]
    limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--network", "host"]
    mounts = ["-v", f"{data}:/var/lib/jeton", "-v", f"{sealing_key}:/etc/jeton/sealing.key:ro"]
    podman = ["podman", *options(store), "--runtime", "runc"]
    with open(tmp_path / "log", "wb") as said:
        arguments = [*podman, "run", "--name", "jeton", *strict, *limits, *mounts, NAME]
        child = subprocess.Popen([str(a) for a in arguments], stdout=said, stderr=said)
    try:
        said = lambda: (tmp_path / "log").read_text()
        until("it serves", lambda: (data / "endpoints.json").exists() or child.poll() is not None)
        assert child.poll() is None, said()
        yield podman, data, child, said
    finally:
        run(*podman, "rm", "--force", "jeton", ok=False)
        child.kill()


def test_it_serves_on_a_read_only_root_as_nobody_without_capabilities_or_a_shell(container):
    podman, data, child, said = container
    probe = run(*podman, "exec", "jeton", "/usr/bin/jeton", "status", "--alive", ok=False)
    assert probe.returncode == 0, probe.stderr + said()
    pid = run(*podman, "inspect", "--format", "{{.State.Pid}}", "jeton").stdout.strip()
    status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == {str(USER)} and set(status["Gid"].split()) == {str(USER)}
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, 0, "1")
    # Whose memory is closed to others of its user, is root's in /proc.
    assert os.stat(f"/proc/{pid}/environ").st_uid == 0
    root = next(line for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines() if line.split()[4] == "/")
    assert "ro" in root.split()[5].split(","), root
    assert run(*podman, "exec", "jeton", "/bin/sh", "-c", "true", ok=False).returncode != 0
    # A caller outside, by the socket in the volume: known, and let have nothing.
    asked = run(BINARY, "token", "get", "--socket", data / "data.sock", "--identity", "a", "--scope", "s", ok=False)
    assert asked.returncode == 4, asked.stderr
    run(*podman, "stop", "--time", "60", "jeton")
    assert child.wait(timeout=DEADLINE_S) == 0, said()


def test_it_has_the_binary_its_libraries_and_the_authorities_and_no_more(image):
    files = {str(path.relative_to(image)) for path in image.rglob("*") if path.is_file()}
    named = {"usr/bin/jeton", "etc/ssl/certs/ca-certificates.crt", "etc/passwd", "etc/group", "etc/nsswitch.conf"}
    libraries = files - named
    assert named <= files and all("/lib" in f"/{name}" and ".so" in name for name in libraries), libraries
    assert all(not path.stat().st_mode & 0o6022 for path in image.rglob("*")), "nobody else writes, nothing is setuid"


def test_its_first_stage_builds_with_the_toolchain_of_the_project():
    channel = re.search(r'channel = "(.*)"', (ROOT / "rust-toolchain.toml").read_text())[1]
    assert f"rust:{channel}-" in (ROOT / "deploy" / "Containerfile").read_text()
