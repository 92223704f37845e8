"""The Graph API of the Entra-shaped tenant, asked by plain HTTP: who may do what with which application, and with what proof."""

import time
import uuid

import jwt
import pytest

from entra import Certificate

GRAPH = "00000003-0000-0000-c000-000000000000"
DIRECTORY = "00000002-0000-0000-c000-000000000000"


class Client:
    """An application that speaks to Graph with its own token."""

    def __init__(self, directory, role=None):
        self.directory, self.certificate = directory, Certificate()
        self.made = directory.application(self.certificate)
        if role:
            graph, own = directory.principal(GRAPH), directory.principal(self.made["appId"])
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
    graph, own = directory.principal(GRAPH), directory.principal(registrar.made["appId"])
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


@pytest.mark.parametrize("fault", ["signer", "audience", "issuer", "too long", "endless", "none"])
def test_a_wrong_proof_changes_nothing(directory, fault):
    client = Client(directory)
    now = int(time.time())
    proof = {
        "signer": lambda: client.proof(Certificate()),
        "audience": lambda: client.proof(aud=directory.entra["token_endpoint"]),
        "issuer": lambda: client.proof(iss=client.made["appId"]),
        "too long": lambda: client.proof(nbf=now, exp=now + 3_600),
        "endless": lambda: client.proof(nbf=-(2**63), exp=2**63 - 1),
        "none": lambda: "",
    }[fault]()
    body = {"keyCredential": Certificate().key_credential(), "passwordCredential": None, "proof": proof}
    answer = client.call("POST", f"/applications/{client.made['id']}/addKey", body)
    assert answer.status_code in (401, 403), answer.text
    keys = directory.call("GET", f"/applications/{client.made['id']}?$select=keyCredentials", 200)["keyCredentials"]
    assert len(keys) == 1


def test_a_token_signed_by_a_strange_key_is_401(registrar, directory):
    own = registrar.certificate.assertion(registrar.made["appId"], directory.entra["token_endpoint"])
    true = directory.grant(registrar.made["appId"], own, scope=directory.entra["graph_scope"]).json()["access_token"]
    claims, header = jwt.decode(true, options={"verify_signature": False}), jwt.get_unverified_header(true)
    forged = jwt.encode(claims, Certificate().key, algorithm="RS256", headers={"kid": header["kid"]})
    assert registrar.call("GET", "/applications", token=true).status_code == 200
    refused(registrar.call("GET", "/applications", token=forged), 401, "InvalidAuthenticationToken")


@pytest.mark.parametrize(
    "body,status", [(b"{", 400), (b"[]", 400), (b"", 400), (b"x" * 300_000, 413)], ids=["broken", "a list", "none", "large"]
)
def test_a_body_that_is_not_read_is_not_acknowledged(directory, body, status):
    made = directory.application(Certificate())
    for method, path in [("PATCH", f"/applications/{made['id']}"), ("POST", "/applications")]:
        headers = directory.headers | {"Content-Type": "application/json"}
        answer = directory.http.request(method, directory.entra["graph"] + path, data=body, headers=headers)
        assert answer.status_code == status and "displayName" not in answer.text, answer.text


def test_an_error_has_a_date_and_the_ids_of_its_request(directory):
    own = str(uuid.uuid4())
    headers = directory.headers | {"client-request-id": own}
    answer = directory.http.get(directory.entra["graph"] + "/applications/none", headers=headers)
    inner = answer.json()["error"]["innerError"]
    assert (inner["request-id"], inner["client-request-id"]) == (answer.headers["request-id"], own)
    assert answer.headers["client-request-id"] == own
    assert inner["date"].startswith(time.strftime("%Y-", time.gmtime()))


def test_a_key_is_shown_where_it_is_selected_and_nowhere_else(directory):
    certificate = Certificate()
    made = directory.application(certificate)
    path = f"/applications/{made['id']}"
    (selected,) = directory.call("GET", f"{path}?$select=keyCredentials", 200)["keyCredentials"]
    assert selected["key"] == certificate.key_credential()["key"]
    listed = directory.call("GET", f"/applications?$filter=appId eq '{made['appId']}'&$select=keyCredentials", 200)["value"]
    for other in (made, directory.call("GET", path, 200), *listed):
        assert other["keyCredentials"][0]["key"] is None
        assert other["keyCredentials"][0]["keyId"] == selected["keyId"]


@pytest.mark.parametrize("name", ["x" * 257, 5, "", None], ids=["long", "number", "empty", "null"])
def test_a_display_name_is_a_text_of_at_most_256_characters(directory, name):
    made, body = directory.application(), {"displayName": name}
    directory.call("PATCH", f"/applications/{made['id']}", 400, body)
    directory.call("POST", "/applications", 400, body)
    directory.call("PATCH", f"/applications/{made['id']}", 204, {"displayName": "é" * 256})


def test_an_application_has_at_most_a_hundred_keys(directory):
    made, key = directory.application(), Certificate().key_credential()
    directory.call("PATCH", f"/applications/{made['id']}", 204, {"keyCredentials": [key] * 100})
    directory.call("PATCH", f"/applications/{made['id']}", 403, {"keyCredentials": [key] * 101})
    assert len(directory.call("GET", f"/applications/{made['id']}", 200)["keyCredentials"]) == 100


def test_a_quote_in_a_name_is_doubled(registrar):
    name = f"o'brien-{uuid.uuid4()}"
    doubled = name.replace("'", "''")
    made = registrar.call("PATCH", f"/applications(uniqueName='{doubled}')", {"displayName": "x"}, Prefer="create-if-missing")
    assert (made.status_code, made.json()["uniqueName"]) == (201, name)
    found = registrar.call("GET", f"/applications?$filter=uniqueName eq '{doubled}'").json()["value"]
    assert [a["id"] for a in found] == [made.json()["id"]]
    empty = registrar.call("PATCH", "/applications(uniqueName='')", {"displayName": "x"}, Prefer="create-if-missing")
    refused(empty, 400, "Request_BadRequest")


@pytest.mark.parametrize("filter", ["nonsense", "colour eq 'red'", "appId eq x", "appId ne 'x'", "appId eq 'x' and id eq 'y'"])
def test_a_filter_that_is_not_understood_is_refused(directory, filter):
    directory.call("GET", f"/applications?$filter={filter}", 400)


def test_pages_show_everything_once_with_the_same_filter_and_selection(registrar):
    name = f"a & b {uuid.uuid4()}"
    made = {registrar.call("POST", "/applications", {"displayName": name}).json()["id"] for _ in range(5)}
    base = registrar.directory.entra["graph"]
    page = registrar.call("GET", f"/applications?$top=2&$select=id,appId&$filter=displayName eq '{name.replace('&', '%26')}'").json()
    seen = []
    while True:
        assert all(value.keys() == {"id", "appId"} for value in page["value"])
        seen += [value["id"] for value in page["value"]]
        if "@odata.nextLink" not in page:
            break
        # What is made or goes meanwhile moves nothing else from one page to another.
        registrar.call("DELETE", f"/applications/{seen[0]}")
        page = registrar.call("GET", page["@odata.nextLink"].removeprefix(base)).json()
    assert sorted(seen) == sorted(made)


def test_assignments_are_paged_and_shown_from_both_sides(directory):
    graph, client = directory.principal(GRAPH), directory.principal(directory.application()["appId"])
    made = []
    for role in graph["appRoles"]:
        body = {"principalId": client["id"], "resourceId": graph["id"], "appRoleId": role["id"]}
        made.append(directory.call("POST", f"/servicePrincipals/{client['id']}/appRoleAssignments", 201, body))
    assert all(assignment["createdDateTime"].endswith("Z") for assignment in made)
    first = directory.call("GET", f"/servicePrincipals/{client['id']}/appRoleAssignments?$top=2", 200)
    rest = directory.call("GET", first["@odata.nextLink"].removeprefix(directory.entra["graph"]), 200)
    assert [len(first["value"]), len(rest["value"])] == [2, 1]
    given = directory.call("GET", f"/servicePrincipals/{graph['id']}/appRoleAssignedTo?$top=999", 200)["value"]
    assert {a["id"] for a in made} == {a["id"] for a in given if a["principalId"] == client["id"]}


def test_an_assignment_stands_under_its_own_objects(directory):
    graph = directory.principal(GRAPH)
    one, other = (directory.principal(directory.application()["appId"]) for _ in range(2))
    body = {"principalId": one["id"], "resourceId": graph["id"], "appRoleId": graph["appRoles"][0]["id"]}
    directory.call("POST", f"/servicePrincipals/{other['id']}/appRoleAssignments", 400, body)
    directory.call("POST", f"/servicePrincipals/{other['id']}/appRoleAssignedTo", 400, body)
    made = directory.call("POST", f"/servicePrincipals/{one['id']}/appRoleAssignments", 201, body)
    directory.call("DELETE", f"/servicePrincipals/{other['id']}/appRoleAssignments/{made['id']}", 404)
    directory.call("DELETE", f"/servicePrincipals/{one['id']}/appRoleAssignments/{made['id']}", 204)


def test_a_service_principal_takes_its_assignments_along(directory):
    graph, client = directory.principal(GRAPH), directory.application()
    principal = directory.principal(client["appId"])
    body = {"principalId": principal["id"], "resourceId": graph["id"], "appRoleId": graph["appRoles"][0]["id"]}
    directory.call("POST", f"/servicePrincipals/{graph['id']}/appRoleAssignedTo", 201, body)
    directory.call("DELETE", f"/servicePrincipals/{principal['id']}", 204)
    given = directory.call("GET", f"/servicePrincipals/{graph['id']}/appRoleAssignedTo?$top=999", 200)["value"]
    assert not [a for a in given if a["principalId"] == principal["id"]]


@pytest.mark.parametrize("member", ["accountEnabled", "appRoleAssignmentRequired"])
def test_what_a_principal_is_told_is_a_boolean_and_shown(directory, member):
    path = f"/servicePrincipals/{directory.principal(directory.application()['appId'])['id']}"
    directory.call("PATCH", path, 400, {member: "yes"})
    for value in (True, False):
        directory.call("PATCH", path, 204, {member: value})
        assert directory.call("GET", path, 200)[member] is value
