"""What the sandbox answered is still so when it was killed right after the answer and started again."""

import pytest

from conftest import BINARY, Process, jeton, session_for
from entra import Certificate, Directory
from oidc import Key, Tenant, refused


class Sandbox:
    """A sandbox of this test's own, to be killed."""

    def __init__(self, folder):
        self.folder, self.starts = folder, 0
        self.start()

    def start(self):
        description = self.folder / "sandbox.json"
        # A killed one leaves it behind.
        description.unlink(missing_ok=True)
        self.starts += 1
        arguments = [BINARY, "sandbox", "--data-dir", self.folder, "--free-ports"]
        self.process = Process(arguments, description, self.folder.parent / f"log-{self.starts}.txt")
        self.info = self.process.info
        self.http = session_for(self.info)

    def kill_and_start(self):
        self.process.kill()
        self.start()


@pytest.fixture
def killed(tmp_path):
    folder = tmp_path / "sandbox"
    folder.mkdir()
    sandbox = Sandbox(folder)
    yield sandbox
    sandbox.process.stop()


def test_the_directory_survives_a_kill(killed):
    directory, certificate = Directory(killed.info, killed.http), Certificate()
    application = directory.application(certificate)
    path = f"/applications/{application['id']}"
    client, graph = directory.principal(application["appId"]), directory.principal("00000003-0000-0000-c000-000000000000")
    body = {"principalId": client["id"], "resourceId": graph["id"], "appRoleId": graph["appRoles"][0]["id"]}
    granted = directory.call("POST", f"/servicePrincipals/{graph['id']}/appRoleAssignedTo", 201, body)
    before = directory.call("GET", path, 200)
    killed.kill_and_start()

    directory = Directory(killed.info, killed.http)
    assert directory.call("GET", path, 200) == before
    assert directory.call("GET", f"/servicePrincipals/{client['id']}/appRoleAssignments", 200)["value"] == [granted]
    assertion = certificate.assertion(application["appId"], directory.entra["token_endpoint"])
    assert directory.grant(application["appId"], assertion).status_code == 200
    directory.call("DELETE", path, 204)
    killed.kill_and_start()
    Directory(killed.info, killed.http).call("GET", path, 404)


def test_registered_clients_and_the_tokens_that_change_them_survive_a_kill(killed):
    tenant, key, second = Tenant(killed.info, killed.http), Key("first"), Key("second")
    made = tenant.register(jwks={"keys": [key.jwk]}).json()
    uri = made["registration_client_uri"]
    killed.kill_and_start()

    tenant = Tenant(killed.info, killed.http)
    old = {"Authorization": f"Bearer {made['registration_access_token']}"}
    read = tenant.http.get(uri, headers=old)
    assert read.status_code == 200 and read.json()["jwks"] == {"keys": [key.jwk]}
    metadata = {name: made[name] for name in ("client_id", "client_name", "grant_types", "redirect_uris", "response_types")}
    metadata |= {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [second.jwk]}}
    changed = tenant.http.put(uri, json=metadata, headers=old).json()
    killed.kill_and_start()

    tenant = Tenant(killed.info, killed.http)
    refused(tenant.http.get(uri, headers=old), 401, "invalid_token")
    new = {"Authorization": f"Bearer {changed['registration_access_token']}"}
    assert tenant.http.get(uri, headers=new).json()["jwks"] == {"keys": [second.jwk]}
    assert tenant.grant(tenant.assertion(made, second)).status_code == 200


def test_settings_survive_a_kill(killed):
    door = killed.info["url"] + "/sandbox/settings"
    killed.http.put(door, json={"token_lifetime_seconds": 33, "error": {"status": 503}})
    killed.http.put(door, json={"client_id": "somebody", "latency_ms": 7})
    killed.kill_and_start()
    settings = killed.http.get(door).json()
    assert (settings["token_lifetime_seconds"], settings["error"]["status"], settings["latency_ms"]) == (33, 503, 0)
    own = killed.http.put(door, json={"client_id": "somebody"}).json()
    assert (own["token_lifetime_seconds"], own["latency_ms"]) == (33, 7)


def test_a_used_assertion_stays_used_over_a_kill(killed):
    tenant, key = Tenant(killed.info, killed.http), Key("used")
    client = tenant.register(jwks={"keys": [key.jwk]}).json()
    assertion = tenant.assertion(client, key)
    assert tenant.grant(assertion).status_code == 200
    killed.kill_and_start()
    tenant = Tenant(killed.info, killed.http)
    refused(tenant.grant(assertion), 401, "invalid_client")
    assert tenant.grant(tenant.assertion(client, key)).status_code == 200


def test_a_second_sandbox_on_the_folder_is_told_who_has_it(killed):
    second = jeton("sandbox", "--data-dir", killed.folder, "--free-ports", check=False)
    assert second.returncode != 0 and f"process {killed.info['pid']}" in second.stderr, second.stderr
    assert killed.http.get(killed.info["url"] + "/sandbox/stats").status_code == 200
    assert (killed.folder / "sandbox.json").exists()


def test_dev_says_that_no_sandbox_runs_where_one_was_killed(killed, tmp_path):
    killed.process.kill()
    dev = jeton("dev", "--data-dir", tmp_path / "dev", "--free-ports", "--sandbox", killed.folder, check=False)
    assert dev.returncode != 0 and "no sandbox runs on" in dev.stderr, dev.stderr
