"""MSAL and azure-identity get tokens from the Entra-shaped tenant, and azure-keyvault-secrets reads the vault with one."""

import os

import jwt
import msal
import pytest
from azure.identity import CertificateCredential
from azure.keyvault.secrets import SecretClient

from entra import Certificate, Directory


@pytest.fixture(scope="module")
def client(sandbox, http):
    directory, certificate = Directory(sandbox, http), Certificate()
    application = directory.application(certificate)
    return directory, application, certificate


def claims_of(token, sandbox, http, audience):
    keys = jwt.PyJWKSet.from_dict(http.get(sandbox["entra"]["jwks_uri"]).json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, key.key, algorithms=["RS256"], audience=audience, issuer=sandbox["entra"]["issuer"])


def audience_of(directory, uri):
    found = directory.call("GET", f"/applications?$filter=identifierUris/any(x:x eq '{uri}')", 200)["value"]
    return found[0]["appId"]


def test_msal_gets_a_token_that_verifies(client, sandbox, http):
    directory, application, certificate = client
    app = msal.ConfidentialClientApplication(
        application["appId"],
        authority=sandbox["entra"]["authority"],
        client_credential={"private_key": certificate.key_pem.decode(), "public_certificate": certificate.pem.decode()},
        instance_discovery=False,
        http_client=http,
    )
    answer = app.acquire_token_for_client(scopes=[sandbox["entra"]["scopes"][0]])
    assert "access_token" in answer, answer
    claims = claims_of(answer["access_token"], sandbox, http, audience_of(directory, "https://vault.example"))
    assert claims["azp"] == application["appId"] and claims["azpacr"] == "2" and claims["ver"] == "2.0"
    assert claims["oid"] == claims["sub"] and claims["tid"] == sandbox["entra"]["tenant"]
    assert "roles" not in claims and "scp" not in claims


def test_azure_identity_reads_the_vault_once_the_role_is_granted(client, sandbox, tmp_path, monkeypatch):
    directory, application, certificate = client
    bundle = tmp_path / "client.pem"
    bundle.write_bytes(certificate.key_pem + certificate.pem)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", sandbox["ca_file"])
    monkeypatch.setitem(os.environ, "NO_PROXY", "127.0.0.1,localhost")

    def vault():
        credential = CertificateCredential(
            sandbox["entra"]["tenant"],
            application["appId"],
            certificate_path=str(bundle),
            authority=sandbox["url"],
            disable_instance_discovery=True,
        )
        return SecretClient(sandbox["vault"]["url"], credential, verify_challenge_resource=False)

    with pytest.raises(Exception) as refused:
        vault().get_secret(sandbox["vault"]["secret"])
    assert refused.value.status_code == 403

    principals = directory.call("GET", f"/servicePrincipals?$filter=appId eq '{application['appId']}'", 200)["value"]
    api = audience_of(directory, "https://vault.example")
    resource = directory.call("GET", f"/servicePrincipals?$filter=appId eq '{api}'", 200)["value"][0]
    role = next(r["id"] for r in resource["appRoles"] if r["value"] == "Secrets.Read")
    body = {"principalId": principals[0]["id"], "resourceId": resource["id"], "appRoleId": role}
    directory.call("POST", f"/servicePrincipals/{resource['id']}/appRoleAssignedTo", 201, body)
    assert vault().get_secret(sandbox["vault"]["secret"]).value


def test_the_vault_asks_for_a_token(sandbox, http):
    answer = http.get(f"{sandbox['vault']['url']}/secrets/{sandbox['vault']['secret']}?api-version=7.4")
    assert answer.status_code == 401
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith("Bearer ") and 'authorization="' in challenge and '", resource="' in challenge


