"""The managed-identity doors of a running broker, as programs find them: by the variables of `jeton env`."""

import functools
import hashlib
import json
import pathlib
import re

import jwt
import requests

from conftest import jeton

FLAVOURS = ["app-service", "imds", "arc", "service-fabric", "azure-ml", "cloud-shell", "gce"]
TOKEN_PATH = "/metadata/identity/oauth2/token"
KEYS = pathlib.Path("/var/opt/azcmagent/tokens")
VAULT = "https://vault.example"


class Doors:
    def __init__(self, broker):
        self.broker = broker
        self.http = requests.Session()
        self.http.trust_env = False

    @functools.cache
    def environment(self, flavour):
        printed = jeton("env", "--workload", "demo", "--flavour", flavour, "-o", "json", "--data-dir", self.broker["data_dir"])
        return json.loads(printed.stdout)

    def token(self, identity, scope=f"{VAULT}/.default"):
        """What the broker hands out for an identity now, and whose it is by the authority's own keys."""
        arguments = ["--identity", f"identities/{identity}", "--scope", scope, "-o", "json", "--data-dir", self.broker["data_dir"]]
        token = json.loads(jeton("token", "get", *arguments).stdout)["access_token"]
        assert self.claims(token)["azp"] == self.client_id(identity)
        return token

    def sha256(self, identity, **more):
        return hashlib.sha256(self.token(identity, **more).encode()).hexdigest()

    def claims(self, token):
        key = self.keys[jwt.get_unverified_header(token)["kid"]]
        issuer = self.broker["sandbox"]["issuer"]
        return jwt.decode(token, key.key, algorithms=["RS256"], issuer=issuer, options={"verify_aud": False})

    @functools.cached_property
    def keys(self):
        answer = self.http.get(self.broker["sandbox"]["jwks_uri"], verify=self.broker["sandbox"]["ca_file"])
        return jwt.PyJWKSet.from_dict(answer.json())

    def client_id(self, identity):
        return next(i["client_id"] for i in self.broker["identities"] if i["name"] == f"identities/{identity}")

    @functools.cache
    def selector(self, kind, identity):
        """How a program names an identity of its own choice."""
        return {
            "client_id": self.client_id,
            "object_id": lambda identity: self.claims(self.token(identity))["oid"],
            "resource_id": resource_id,
        }[kind](identity)

    def door(self, flavour):
        return DOORS[flavour](self, self.environment(flavour))


def resource_id(identity):
    group = "/subscriptions/1d2c3b4a-0000-4000-8000-000000000000/resourceGroups/any"
    return f"{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{identity}"


class Door:
    """Raw requests to one door; `proof` are the headers without which it gives nothing."""

    method, proof, verify = "GET", {"Metadata": "true"}, None

    def __init__(self, doors, environment):
        self.http, self.environment = doors.http, environment
        self.url = self.place(environment)
        self.proof = self.show(environment)
        self.ca = str(doors.broker["managed_identity"]["service_fabric"]["ca_file"])

    def show(self, _):
        return {"Metadata": "true"}

    def ask(self, headers=None, path="", **query):
        """`headers`: in place of the proof."""
        headers = self.proof if headers is None else headers
        query = {"resource": VAULT, **query}
        query = {name: value for name, value in query.items() if value is not None}
        return self.send(headers, self.url + path, query)

    def send(self, headers, url, query):
        return self.http.get(url, headers=headers, params=query, verify=self.ca, timeout=30, allow_redirects=False)

    def error(self, answer):
        """The text for people; the whole body has the shape of this door."""
        assert answer.headers["Content-Type"].startswith("application/json")
        return self.message(answer.json())


class AppService(Door):
    version = "2019-08-01"

    def place(self, environment):
        return environment["IDENTITY_ENDPOINT"]

    def show(self, environment):
        return {"X-IDENTITY-HEADER": environment["IDENTITY_HEADER"]}

    def message(self, body):
        assert set(body) == {"statusCode", "message", "correlationId"}
        return body["message"]


class AzureMl(AppService):
    version = "2017-09-01"

    def place(self, environment):
        return environment["MSI_ENDPOINT"]

    def show(self, environment):
        return {"secret": environment["MSI_SECRET"]}


class Imds(Door):
    version = "2018-02-01"

    def place(self, environment):
        return environment["AZURE_POD_IDENTITY_AUTHORITY_HOST"] + TOKEN_PATH

    def message(self, body):
        assert set(body) == {"error", "error_description"}
        return body["error_description"]


class Arc(Imds):
    version = "2020-06-01"

    def place(self, environment):
        return environment["IDENTITY_ENDPOINT"]

    def challenged(self, headers=None, **query):
        """The first of the two requests: what shows that the caller may read a file."""
        answer = self.send({"Metadata": "true"} if headers is None else headers, self.url, {"resource": VAULT, **query})
        assert answer.status_code == 401, answer.text
        return re.fullmatch(rf"Basic realm=({KEYS}/[^/=]+\.key)", answer.headers["WWW-Authenticate"])[1]

    def ask(self, headers=None, path="", **query):
        if headers is None:
            key = pathlib.Path(self.challenged()).read_text()
            headers = {**self.proof, "Authorization": f"Basic {key}"}
        return super().ask(headers, path, **query)


class ServiceFabric(Door):
    version = "2019-07-01-preview"

    def place(self, environment):
        return environment["IDENTITY_ENDPOINT"]

    def show(self, environment):
        return {"Secret": environment["IDENTITY_HEADER"]}

    def message(self, body):
        assert set(body) == {"error"} and set(body["error"]) == {"code", "message", "correlationId"}
        return body["error"]["message"]


class CloudShell(Door):
    version = None

    def place(self, environment):
        return environment["MSI_ENDPOINT"]

    def send(self, headers, url, query):
        return self.http.post(url, headers=headers, data=query, timeout=30, allow_redirects=False)

    def message(self, body):
        assert set(body) == {"error"} and set(body["error"]) == {"code", "message"}
        return body["error"]["message"]


DOORS = {
    "app-service": AppService,
    "imds": Imds,
    "arc": Arc,
    "service-fabric": ServiceFabric,
    "azure-ml": AzureMl,
    "cloud-shell": CloudShell,
}
