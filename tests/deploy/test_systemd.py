"""The units, by systemd's own tools; and that the broker keeps to what they allow."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

import pytest
from conftest import BINARY, DEADLINE_S, ROOT, end, key, run, until

UNITS = ROOT / "deploy" / "systemd"
USER = 65532
MOST_EXPOSURE = "20"  # tenths: 2.0


def values(unit, key):
    """What a unit says of a key, line by line."""
    text = (UNITS / unit).read_text()
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def test_the_units_verify_without_a_word(tmp_path):
    for unit in UNITS.glob("jeton*.s*t"):
        shutil.copy(unit, tmp_path)
    for unit in UNITS.glob("jeton*.service"):
        text = unit.read_text().replace("/usr/bin/jeton", str(BINARY))
        (tmp_path / unit.name).write_text(text)
    units = [path for path in tmp_path.iterdir() if path.suffix in (".service", ".socket")]
    assert len(units) == 3
    said = run("systemd-analyze", "verify", "--man=no", *units)
    assert said.stdout + said.stderr == ""


def test_the_service_is_exposed_to_little():
    run("systemd-analyze", "security", "--offline=yes", f"--threshold={MOST_EXPOSURE}", UNITS / "jeton.service")


def test_user_and_folder_are_made(tmp_path):
    root = tmp_path / "root"
    for folder in ("etc", "run", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d"):
        (root / folder).mkdir(parents=True)
    shutil.copy(UNITS / "jeton.sysusers", root / "usr/lib/sysusers.d/jeton.conf")
    shutil.copy(UNITS / "jeton.tmpfiles", root / "usr/lib/tmpfiles.d/jeton.conf")
    run("systemd-sysusers", f"--root={root}")
    line = next(line for line in (root / "etc/passwd").read_text().splitlines() if line.startswith("jeton:"))
    uid = int(line.split(":")[2])
    run("systemd-tmpfiles", f"--root={root}", "--create", "jeton.conf")
    made = (root / "run/jeton").stat()
    assert (made.st_uid, made.st_mode & 0o777) == (uid, 0o755)


def test_the_configuration_of_the_service_is_valid_and_has_the_places_of_the_units(sealing_key):
    config = UNITS / "jeton.toml"
    run(BINARY, "check-config", "--config", config, "--set", f"sealing.key_file={sealing_key}")
    assert values("jeton.socket", "ListenStream")[0] in config.read_text()
    assert f"/var/lib/{values('jeton.service', 'StateDirectory')[0]}" in config.read_text()


def allowed_calls():
    """What SystemCallFilter= comes to: lists with ~ take away, others add."""
    described, groups = run("systemd-analyze", "syscall-filter").stdout, {}
    for line in described.splitlines():
        if line.startswith("@"):
            group = groups.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            group.append(line.strip())

    def expanded(name):
        return set().union(*map(expanded, groups[name])) if name.startswith("@") else {name}

    allowed = set()
    for line in values("jeton.service", "SystemCallFilter"):
        named = set().union(*(expanded(name) for name in line.removeprefix("~").split()))
        allowed = allowed - named if line.startswith("~") else allowed | named
    # Always allowed, as systemd.exec(5) says.
    return allowed | expanded("@default")


@pytest.fixture
def reachable():
    """A folder of another user than root, with the binary: where root alone gets by, the service would not."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jeton-traced-"))
    run("strip", "-o", folder / "jeton", BINARY)
    os.chown(folder, USER, USER)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def traced(reachable):
    """System calls of a broker that serves, is asked, hears SIGHUP and stops."""
    folder, binary, who = reachable, reachable / "jeton", {"user": USER, "group": USER, "extra_groups": []}
    data, log = folder / "data", folder / "calls"
    os.chown(key(folder / "sealing.key"), USER, USER)
    strace = ["strace", "-f", "-qq", "-o", log, "-s", "0", "--signal=none"]
    serve = [binary, "serve", "--data-dir", data, "--set", f"sealing.key_file={folder / 'sealing.key'}"]
    with open(folder / "log", "wb") as said:
        child = subprocess.Popen([str(a) for a in strace + serve], stdout=said, stderr=said, **who)
    said = (folder / "log").read_text
    until("it serves", lambda: (data / "endpoints.json").exists() or child.poll() is not None)
    assert child.poll() is None, said()
    # strace itself heeds no signal while what it traces goes on.
    pid = json.loads((data / "endpoints.json").read_text())["pid"]
    try:
        run(binary, "status", "--data-dir", data, **who)
        run(binary, "token", "get", "--identity", "a", "--scope", "s", "--data-dir", data, ok=False, **who)
        os.kill(pid, signal.SIGHUP)
        until("it reads again", lambda: "was read again" in said())
        os.kill(pid, signal.SIGTERM)
        assert child.wait(timeout=DEADLINE_S) == 0, said()
    finally:
        if child.poll() is None:
            os.kill(pid, signal.SIGKILL)
            child.wait()
    return log.read_text()


def test_the_broker_keeps_to_what_the_service_allows(traced):
    used = set(re.findall(r"^\d+ +(?:<\.\.\. )?([a-z_0-9]+)[( ]", traced, re.MULTILINE)) - {"execve"}
    assert {"accept4", "epoll_wait", "fdatasync"} <= used, "the trace is of a broker"
    assert used - allowed_calls() == set()
    # MemoryDenyWriteExecute=
    assert not re.search(r"PROT_WRITE\|PROT_EXEC", traced)
    families = set(re.findall(r"socket(?:pair)?\((AF_\w+)", traced))
    assert families and families <= set(values("jeton.service", "RestrictAddressFamilies")[0].split())


def test_systemd_hands_over_the_data_socket(tmp_path, sealing_key):
    socket, data = tmp_path / "data.sock", tmp_path / "data"
    name = values("jeton.socket", "FileDescriptorName")[0]
    activate = ["systemd-socket-activate", "-l", socket, f"--fdname={name}"]
    serve = [BINARY, "serve", "--data-dir", data, "--set", f"sealing.key_file={sealing_key}"]
    serve += ["--set", f"data.socket={socket}"]
    with open(tmp_path / "log", "wb") as said:
        child = subprocess.Popen([str(a) for a in activate + serve], stdout=said, stderr=said)
    try:
        until("systemd listens", socket.exists)
        assert not data.exists(), "nobody has come yet"
        asked = run(BINARY, "token", "get", "--socket", socket, "--identity", "a", "--scope", "s", ok=False)
        assert asked.returncode == 4, asked.stderr
        assert end(child) == 0, (tmp_path / "log").read_text()
        assert socket.exists()
    finally:
        child.kill()
