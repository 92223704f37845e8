"""What each door refuses, with which status and in which shape, and what it takes however it is spelt. Raw HTTP."""

import hashlib
import re
import socket
import ssl
import time
import urllib.parse
import uuid

import pytest

from conftest import jeton
from doors import DOORS, KEYS, TOKEN_PATH, VAULT

PERMANENT = {400, 401, 403}
SPELLINGS = {
    "client_id": ["client_id", "clientid"],
    "object_id": ["object_id", "principal_id", "principalId"],
    "resource_id": ["mi_res_id", "msi_res_id", "msi-res-id", "resource_id"],
}
SECRETS = ["app-service", "azure-ml", "service-fabric"]
every_door = pytest.mark.parametrize("flavour", DOORS)


def refused(door, answer, *statuses):
    """Permanent, in this door's shape, without a token."""
    assert answer.status_code in (statuses or PERMANENT), (answer.status_code, answer.text)
    assert "access_token" not in answer.text
    return door.error(answer)


@every_door
def test_a_token_is_nothing_but_strings_that_every_sdk_takes(doors, flavour):
    door = doors.door(flavour)
    answer = door.ask(**{"api-version": door.version})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    body = answer.json()
    expected = ["access_token", "client_id", "expires_in", "expires_on", "ext_expires_in", "not_before", "resource", "token_type"]
    assert list(body) == expected and all(isinstance(value, str) for value in body.values())
    claims = doors.claims(body["access_token"])
    assert claims["azp"] == body["client_id"] == doors.client_id("demo-system")
    assert (body["resource"], body["token_type"]) == (VAULT, "Bearer")
    # Counted from when it was asked for, not from when it came.
    assert 0 <= claims["exp"] - int(body["expires_on"]) <= 30
    assert abs(int(body["expires_on"]) - time.time() - int(body["expires_in"])) < 60


@every_door
def test_every_spelling_of_a_selector_selects_and_is_echoed(doors, flavour):
    door = doors.door(flavour)
    for kind, names in SPELLINGS.items():
        for name in names:
            chosen = doors.selector(kind, "billing")
            answer = door.ask(**{name: chosen})
            assert answer.status_code == 200, (name, answer.text)
            assert doors.claims(answer.json()["access_token"])["azp"] == doors.client_id("billing"), name
            assert chosen in answer.json().values(), f"{name} is echoed"
    assert doors.claims(door.ask(client_id="", resource_id="").json()["access_token"])["azp"] == doors.client_id("demo-system")


@every_door
def test_what_sdks_add_and_how_they_spell_it_does_not_matter(doors, flavour):
    door = doors.door(flavour)
    shouted = {name.upper(): value for name, value in door.proof.items()}
    more = {"Metadata": "true", "x-ms-client-request-id": str(uuid.uuid4()), "x-client-SKU": "MSAL.Test"}
    for version in ("2018-02-01", "2019-08-01", "2025-03-30", "", None):
        assert door.ask(**{"api-version": version, "unknown": "1"}).status_code == 200, version
    if flavour == "arc":
        return
    assert door.ask(headers={**more, **shouted}).status_code == 200
    if flavour != "cloud-shell":
        form = "application/x-www-form-urlencoded;charset=utf-8"
        assert door.ask(headers={**door.proof, "Content-Type": form}).status_code == 200
        # Java's own client says so on every GET.
        assert door.ask(headers={**door.proof, "Content-Length": "0"}).status_code == 200
        assert door.ask(path="/").status_code == 200
        # Characters that need no encoding, in the order of nobody.
        raw = f"{door.url}?api-version=x&resource=https://vault.example&client_id={doors.client_id('billing')}"
        prepared = doors.http.get(raw, headers=door.proof, verify=door.ca, timeout=30)
        assert prepared.status_code == 200, prepared.text


@every_door
def test_no_proof_is_no_token(doors, flavour):
    door = doors.door(flavour)
    said = refused(door, door.ask(headers={}), *((401,) if flavour in SECRETS else (400,)))
    assert said
    # The proof of another door is none here.
    others = {"X-IDENTITY-HEADER": "x", "secret": "y", "Authorization": "Basic z", "Metadata": "false"}
    refused(door, door.ask(headers=others), *((401,) if flavour in SECRETS else (400,)))


@pytest.mark.parametrize("flavour", SECRETS)
def test_a_wrong_secret_is_a_401(doors, flavour):
    door = doors.door(flavour)
    for wrong in ("wrong", "", next(iter(door.proof.values()))[:-1], next(iter(door.proof.values())) + "x"):
        refused(door, door.ask(headers={name: wrong for name in door.proof}), 401)


@every_door
@pytest.mark.parametrize("header", ["X-Forwarded-For", "x-forwarded-for", "Forwarded", "Via"])
def test_what_was_forwarded_is_refused(doors, flavour, header):
    door = doors.door(flavour)
    refused(door, door.ask(headers={**door.proof, header: "10.0.0.7"}))


@pytest.fixture(scope="module")
def hidden(broker):
    """An identity that exists, and that nobody may use."""
    jeton("identity", "create", "hidden", "--authority", "entra", "--data-dir", broker["data_dir"])
    return "identities/hidden"


@every_door
def test_unknown_and_not_allowed_look_alike_and_the_operator_learns_which(doors, hidden, flavour):
    door, texts = doors.door(flavour), set()
    for name, value, exists in [
        ("client_id", str(uuid.uuid4()), False),
        ("object_id", str(uuid.uuid4()), False),
        ("mi_res_id", "identities/nobody", False),
        ("mi_res_id", hidden, True),
    ]:
        said = refused(door, door.ask(**{name: value}), 400)
        # SDKs look for these words in what IMDS says.
        assert said.startswith("Identity not found")
        text, correlation = re.fullmatch(r"(.*--correlation )(\S+)`", said).groups()
        texts.add(text)
        explained = jeton("access", "explain", "--correlation", correlation, "--data-dir", doors.broker["data_dir"]).stdout
        assert ("does not exist" in explained) != exists and (value in explained or exists), explained
    assert len(texts) == 1, texts


@every_door
def test_two_selectors_are_refused(doors, flavour):
    door, own = doors.door(flavour), doors.client_id("billing")
    for query in ({"client_id": own, "object_id": doors.selector("object_id", "billing")}, {"client_id": own, "clientid": own}):
        refused(door, door.ask(**query), 400)


@every_door
def test_without_a_resource_there_is_nothing_to_ask_for(doors, flavour):
    door = doors.door(flavour)
    for resource in (None, ""):
        refused(door, door.ask(resource=resource), 400)
    refused(door, door.ask(resource="https://unassigned.example"))


def test_imds_says_what_the_real_one_says_to_a_probe(doors):
    door = doors.door("imds")
    for query in ({}, {"resource": VAULT, "api-version": "2018-02-01"}):
        answer = door.send({}, door.url, query)
        expected = {"error": "invalid_request", "error_description": "Required metadata header not specified"}
        assert (answer.status_code, answer.json()) == (400, expected)
    identifier = str(uuid.uuid4())
    answer = door.ask(headers={**door.proof, "x-ms-client-request-id": identifier})
    assert answer.headers["x-ms-client-request-id"] == identifier


def test_imds_takes_the_form_for_proxies_and_no_other_authority(doors):
    door = doors.door("imds")
    place = urllib.parse.urlsplit(door.url)

    def status(authority, host):
        target = f"http://{authority}{TOKEN_PATH}?resource={VAULT}"
        with socket.create_connection((place.hostname, place.port), timeout=30) as stream:
            stream.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nMetadata: true\r\nConnection: close\r\n\r\n".encode())
            return int(stream.makefile("rb").readline().split()[1])

    assert status("169.254.169.254", "169.254.169.254") == 200
    assert status("metadata.evil.example", "metadata.evil.example") in PERMANENT
    assert status("169.254.169.254.evil.example", "169.254.169.254") in PERMANENT


@pytest.mark.parametrize("flavour", [flavour for flavour in DOORS if flavour != "cloud-shell"])
def test_a_body_that_no_sdk_sends_is_refused(doors, flavour):
    door = doors.door(flavour)
    url = f"{door.url}?resource={VAULT}"
    refused(door, doors.http.get(url, headers=door.proof, data="x=y", verify=door.ca, timeout=30))


def test_a_name_that_was_made_to_lead_here_is_refused(doors):
    """A page in a browser can make any name of its own mean 127.0.0.1."""
    for flavour in ("imds", "arc", "cloud-shell", "app-service"):
        door = doors.door(flavour)
        refused(door, door.ask(headers={**door.proof, "Host": "rebound.example"}))


def test_arc_asks_for_the_key_that_lies_in_its_folder(doors):
    door = doors.door("arc")
    file = KEYS / door.challenged().rsplit("/")[-1]
    key = file.read_text()
    assert file.stat().st_mode & 0o007 == 0, "not for everybody"
    assert key and not key.endswith("\n") and len(key) <= 4096
    for wrong in (f"Basic {key}x", "Basic ", f"Bearer {key}"):
        answer = door.ask(headers={**door.proof, "Authorization": wrong})
        assert answer.status_code in PERMANENT and "access_token" not in answer.text
    headers = {**door.proof, "Authorization": f"Basic {key}"}
    assert door.ask(headers=headers).status_code == 200
    assert not file.exists()
    refused(door, door.ask(headers=headers), 401)


def test_service_fabric_says_its_codes(doors):
    door = doors.door("service-fabric")

    def code(answer):
        refused(door, answer)
        return answer.json()["error"]["code"]

    assert code(door.ask(headers={})) == "SecretHeaderNotFound"
    assert code(door.ask(client_id=str(uuid.uuid4()))) == "ManagedIdentityNotFound"
    assert code(door.ask(resource=None)) == "ArgumentNullOrEmpty"


def test_service_fabric_shows_the_certificate_of_its_thumbprint(doors):
    environment = doors.environment("service-fabric")
    place = urllib.parse.urlsplit(environment["IDENTITY_ENDPOINT"])
    assert place.scheme == "https"
    shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((place.hostname, place.port), timeout=30))
    assert hashlib.sha1(shown).hexdigest().lower() == environment["IDENTITY_SERVER_THUMBPRINT"].lower()


def test_cloud_shell_takes_a_get_too(doors):
    door = doors.door("cloud-shell")
    answer = doors.http.get(door.url, params={"resource": VAULT}, headers={**door.proof, "ContentType": "x"}, timeout=30)
    assert answer.status_code == 200, answer.text
    refused(door, doors.http.get(door.url, params={"resource": VAULT}, timeout=30), 400)
