"""The Graph API of the Entra-shaped tenant, asked by plain HTTP: who may do what with which application, and with what proof."""

import time
import uuid

import jwt
import pytest

from entra import Certificate, Directory

GRAPH = "00000003-0000-0000-c000-000000000000"
DIRECTORY = "00000002-0000-0000-c000-000000000000"


@pytest.fixture(scope="module")
def directory(sandbox, http):
    return Directory(sandbox, http)


class Client:
    """An application that speaks to Graph with its own token."""

    def __init__(self, directory, role=None):
        self.directory, self.certificate = directory, Certificate()
        self.made = directory.application(self.certificate)
        if role:
            graph = directory.call("GET", f"/servicePrincipals(appId='{GRAPH}')", 200)
            own = directory.call("GET", f"/servicePrincipals(appId='{self.made['appId']}')", 200)
            role = next(r["id"] for r in graph["appRoles"] if r["value"] == role)
            body = {"principalId": own["id"], "resourceId": graph["id"], "appRoleId": role}
            directory.call("POST", f"/servicePrincipals/{graph['id']}/appRoleAssignedTo", 201, body)

    def call(self, method, path, body=None, token=True, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is True:
            assertion = self.certificate.assertion(self.made["appId"], self.directory.entra["token_endpoint"])
            granted = self.directory.grant(self.made["appId"], assertion, scope=self.directory.entra["graph_scope"])
            token = granted.json()["access_token"]
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return self.directory.http.request(method, self.directory.entra["graph"] + path, json=body, headers=headers)

    def proof(self, certificate=None, **claims):
        now = int(time.time())
        payload = {"aud": DIRECTORY, "iss": self.made["id"], "nbf": now, "exp": now + 600} | claims
        signer = certificate or self.certificate
        return jwt.encode(payload, signer.key, algorithm="RS256", headers={"x5t": signer.x5t})


@pytest.fixture(scope="module")
def registrar(directory):
    return Client(directory, "Application.ReadWrite.OwnedBy")


def refused(answer, status, code):
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


def test_no_token_and_a_foreign_token_are_401(registrar, directory):
    refused(registrar.call("GET", "/applications", token=None), 401, "InvalidAuthenticationToken")
    assertion = registrar.certificate.assertion(registrar.made["appId"], directory.entra["token_endpoint"])
    other_api = directory.grant(registrar.made["appId"], assertion).json()["access_token"]
    refused(registrar.call("GET", "/applications", token=other_api), 401, "InvalidAuthenticationToken")


def test_without_the_role_nothing_is_made(directory):
    plain = Client(directory)
    refused(plain.call("POST", "/applications", {"displayName": "x"}), 403, "Authorization_RequestDenied")


def test_an_upsert_by_unique_name_makes_one_application_however_often_it_is_asked(registrar):
    path = f"/applications(uniqueName='upsert-{uuid.uuid4()}')"
    refused(registrar.call("PATCH", path, {"displayName": "x"}), 404, "Request_ResourceNotFound")
    first = registrar.call("PATCH", path, {"displayName": "x"}, Prefer="create-if-missing")
    assert first.status_code == 201, first.text
    assert registrar.call("PATCH", path, {"displayName": "y"}, Prefer="create-if-missing").status_code in (200, 204)
    read = registrar.call("GET", path).json()
    assert (read["id"], read["displayName"]) == (first.json()["id"], "y")


def test_a_registrar_reaches_its_own_applications_alone(registrar, directory):
    foreign = directory.application(Certificate())
    refused(registrar.call("PATCH", f"/applications/{foreign['id']}", {"displayName": "mine"}), 403, "Authorization_RequestDenied")
    refused(registrar.call("DELETE", f"/applications/{foreign['id']}"), 403, "Authorization_RequestDenied")
    own = registrar.call("POST", "/applications", {"displayName": "own"}).json()
    assert registrar.call("DELETE", f"/applications/{own['id']}").status_code == 204
    refused(registrar.call("DELETE", f"/applications/{own['id']}"), 404, "Request_ResourceNotFound")


def test_only_the_administrator_grants_app_roles(registrar, directory):
    graph = directory.call("GET", f"/servicePrincipals(appId='{GRAPH}')", 200)
    own = directory.call("GET", f"/servicePrincipals(appId='{registrar.made['appId']}')", 200)
    body = {"principalId": own["id"], "resourceId": graph["id"], "appRoleId": graph["appRoles"][0]["id"]}
    refused(registrar.call("POST", f"/servicePrincipals/{own['id']}/appRoleAssignments", body), 403, "Authorization_RequestDenied")


def test_an_application_changes_its_own_keys_with_proof_of_possession(directory):
    client, second = Client(directory), Certificate()
    path = f"/applications/{client.made['id']}"
    body = {"keyCredential": second.key_credential(), "passwordCredential": None}
    added = client.call("POST", f"{path}/addKey", body | {"proof": client.proof()})
    assert added.status_code == 200, added.text
    client.certificate, first = second, client.certificate
    keys = directory.call("GET", f"{path}?$select=keyCredentials", 200)["keyCredentials"]
    assert len(keys) == 2
    old = next(k["keyId"] for k in keys if k["keyId"] != added.json()["keyId"])
    assert client.call("POST", f"{path}/removeKey", {"keyId": old, "proof": client.proof()}).status_code == 204
    again = client.call("POST", f"{path}/removeKey", {"keyId": old, "proof": client.proof()})
    assert again.status_code == 400 and "No credentials found" in again.json()["error"]["message"]
    assertion = first.assertion(client.made["appId"], directory.entra["token_endpoint"])
    assert "AADSTS700027" in directory.grant(client.made["appId"], assertion).json()["error_description"]


@pytest.mark.parametrize("fault", ["signer", "audience", "issuer", "too long", "none"])
def test_a_wrong_proof_changes_nothing(directory, fault):
    client = Client(directory)
    now = int(time.time())
    proof = {
        "signer": lambda: client.proof(Certificate()),
        "audience": lambda: client.proof(aud=directory.entra["token_endpoint"]),
        "issuer": lambda: client.proof(iss=client.made["appId"]),
        "too long": lambda: client.proof(nbf=now, exp=now + 3_600),
        "none": lambda: "",
    }[fault]()
    body = {"keyCredential": Certificate().key_credential(), "passwordCredential": None, "proof": proof}
    answer = client.call("POST", f"/applications/{client.made['id']}/addKey", body)
    assert answer.status_code in (401, 403), answer.text
    keys = directory.call("GET", f"/applications/{client.made['id']}?$select=keyCredentials", 200)["keyCredentials"]
    assert len(keys) == 1
