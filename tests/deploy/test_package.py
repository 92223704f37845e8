"""The Debian package, made by cargo-deb of the binary that is there, and looked into by dpkg."""

import pytest
from conftest import BINARY, ROOT, run

FILES = {
    "usr/bin/jeton": "-rwxr-xr-x",
    "usr/lib/systemd/system/jeton.service": "-rw-r--r--",
    "usr/lib/systemd/system/jeton.socket": "-rw-r--r--",
    "usr/lib/systemd/system/jeton-tls.socket": "-rw-r--r--",
    "usr/lib/sysusers.d/jeton.conf": "-rw-r--r--",
    "usr/lib/tmpfiles.d/jeton.conf": "-rw-r--r--",
    "etc/jeton/jeton.toml": "-rw-r--r--",
    "usr/share/doc/jeton/jeton.full.toml": "-rw-r--r--",
    "usr/share/doc/jeton/README.md": "-rw-r--r--",
    "usr/share/doc/jeton/SECURITY.md": "-rw-r--r--",
    "usr/share/doc/jeton/docs/deploy.md": "-rw-r--r--",
    "usr/share/doc/jeton/copyright": "-rw-r--r--",
    "usr/share/jeton/prometheus/jeton.rules.yaml": "-rw-r--r--",
    "usr/share/jeton/grafana/jeton-overview.json": "-rw-r--r--",
    "usr/share/jeton/otel/collector.yaml": "-rw-r--r--",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    options = ["--no-build", "--profile", "dev", "--package", "jeton", "--fast", "--output", folder]
    run("cargo-deb", *options, cwd=ROOT)
    (made,) = folder.glob("jeton_*.deb")
    return made


def test_it_has_what_runs_the_service_and_nobody_else_may_write_any_of_it(package):
    lines = [line.split(None, 5) for line in run("dpkg-deb", "--contents", package).stdout.splitlines()]
    assert {line[1] for line in lines} <= {"root/root", "0/0"}
    modes = {line[5].removeprefix("./"): line[0] for line in lines}
    assert {name: modes.get(name) for name in FILES} == FILES
    assert not [name for name, mode in modes.items() if mode[5] == "w" or mode[8] == "w"]


def test_its_configuration_is_the_administrators_and_its_user_is_made_before_its_units_are_touched(package, tmp_path):
    run("dpkg-deb", "--control", package, tmp_path / "control")
    assert "/etc/jeton/jeton.toml" in (tmp_path / "control" / "conffiles").read_text().splitlines()
    script = (tmp_path / "control" / "postinst").read_text()
    assert "#DEBHELPER#" not in script and script.index("systemd-sysusers jeton.conf") < script.index("deb-systemd")
    for name in ("postinst", "prerm", "postrm"):
        run("sh", "-n", tmp_path / "control" / name)
    depends = run("dpkg-deb", "--field", package, "Depends").stdout
    assert "libc6" in depends and "systemd" in depends


def test_its_binary_runs(package, tmp_path):
    run("dpkg-deb", "--extract", package, tmp_path)
    assert run(tmp_path / "usr/bin/jeton", "--version").stdout == run(BINARY, "--version").stdout
