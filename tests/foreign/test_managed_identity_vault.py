"""Unmodified key vault clients read the vault's secret: by its own name, or with the one switch of the examples."""

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from conftest import BINARY, ROOT
from probes import MADE, ask

EXAMPLES = ROOT / "examples" / "key-vault"
NAMED = "greeting.vault.localhost"
PROGRAMS = {
    "python": [sys.executable, EXAMPLES / "python" / "main.py"],
    "node": ["node", MADE / "key-vault-node" / "main.js"],
    "go": [MADE / "key-vault-go" / "program"],
    "java": ["java", "-jar", MADE / "key-vault-java" / "target" / "key-vault.jar"],
    "rust": [MADE / "rust-target" / "debug" / "key-vault"],
}
SDKS = list(PROGRAMS)


@pytest.fixture(scope="module")
def secret(doors):
    vault, headers = doors.broker["vault"], {"Authorization": f"Bearer {doors.token('billing')}"}
    url = f"{vault['url']}/secrets/{vault['secret']}"
    answer = doors.http.get(url, headers=headers, verify=doors.broker["sandbox"]["ca_file"])
    return answer.json()["value"]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """A command in whose mount namespace the vault's name resolves, though no line of the machine's own hosts file says so."""
    file = tmp_path_factory.mktemp("hosts") / "hosts"
    file.write_text(f"127.0.0.1 localhost {NAMED}\n")
    within = ["unshare", "-m", "sh", "-c", f'mount --bind {file} /etc/hosts && exec "$@"', "sh"]
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed, and the vault's name needs a hosts file of its own")
    tried = subprocess.run([*within, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"a hosts file for the vault's name needs a mount namespace, and this user may have none: {tried.stderr}")
    return within


@pytest.mark.parametrize("sdk", SDKS)
def test_a_client_that_verifies_the_challenges_resource_reads_the_secret(doors, secret, hosts, sdk):
    url = doors.broker["vault"]["named_url"]
    assert f"//{NAMED}:" in url
    lines = [["secret", url], ["secret", url, "client_id", doors.client_id("billing")]]
    assert [answer.get("secret", answer) for answer in ask(sdk, doors.environment("app-service"), lines, hosts)] == [secret, secret]


@pytest.mark.parametrize("sdk", SDKS)
def test_an_identity_without_the_role_is_refused_by_the_vault(doors, hosts, sdk):
    line = ["secret", doors.broker["vault"]["named_url"], "client_id", doors.client_id("reports")]
    [answer] = ask(sdk, doors.environment("app-service"), [line], hosts)
    assert "does not have the app role" in answer["message"] or "Forbidden" in answer["message"], answer


def test_a_client_that_verifies_refuses_a_vault_whose_name_is_not_below_its_resource(doors):
    [answer] = ask("python", doors.environment("app-service"), [["secret", doors.broker["vault"]["url"]]])
    assert "does not match the requested domain" in answer["message"], answer


@pytest.mark.parametrize("language", PROGRAMS)
def test_the_example_reads_the_secret_under_jeton_run(doors, secret, tmp_path, language):
    run = [BINARY, "run", "--data-dir", doors.broker["data_dir"], "--workload", "demo", "--"]
    command = [*run, *PROGRAMS[language], doors.broker["vault"]["url"]]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, f"{secret}\n"), done.stderr


def test_the_example_as_an_identity_without_the_role_says_what_the_vault_says(doors, tmp_path):
    run = [BINARY, "run", "--data-dir", doors.broker["data_dir"], "--workload", "demo", "--"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AZURE_CLIENT_ID": doors.client_id("reports")}
    command = [*run, *PROGRAMS["python"], doors.broker["vault"]["url"]]
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "does not have the app role" in done.stderr, done.stderr


def test_the_examples_know_nothing_of_jeton():
    sources = subprocess.run(["git", "ls-files"], cwd=EXAMPLES, capture_output=True, text=True, check=True).stdout.split()
    assert len(sources) >= 2 * len(PROGRAMS)
    assert not [path for path in sources if "jeton" in (EXAMPLES / path).read_text().lower()]


def test_the_examples_are_pinned_to_what_runs_here():
    pins = json.loads((EXAMPLES / "node" / "package.json").read_text())["dependencies"]
    ours = json.loads((ROOT / "tests" / "foreign" / "sdk" / "node" / "package.json").read_text())["dependencies"]
    assert pins.items() <= ours.items()
    python = (EXAMPLES / "python" / "requirements.txt").read_text().split()
    assert set(python) <= set((ROOT / "tests" / "foreign" / "requirements.txt").read_text().split())
    # The one that nothing here can build.
    project = xml.etree.ElementTree.parse(EXAMPLES / "dotnet" / "key-vault.csproj")
    versions = [reference.get("Version") for reference in project.iter("PackageReference")]
    assert len(versions) == 2 and all(version.count(".") == 2 for version in versions)
