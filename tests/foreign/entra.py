"""The directory of the sandbox as its administrator uses it, and client assertions made by PyJWT."""

import base64
import datetime
import hashlib
import time
import uuid

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Certificate:
    """A key with a self-signed certificate, made by pyca/cryptography."""

    def __init__(self, valid_from=None, valid_for=datetime.timedelta(days=30)):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        start = valid_from or datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=5)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "foreign client")])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + valid_for)
            .sign(self.key, hashes.SHA256())
        )
        self.der = self.certificate.public_bytes(serialization.Encoding.DER)
        self.x5t = b64url(hashlib.sha1(self.der).digest())
        self.x5t_s256 = b64url(hashlib.sha256(self.der).digest())
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        self.key_pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def key_credential(self):
        return {"type": "AsymmetricX509Cert", "usage": "Verify", "key": base64.b64encode(self.der).decode()}

    def assertion(self, client_id, audience, headers=None, algorithm="PS256", key=None, **claims):
        now = int(time.time())
        payload = {
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "jti": str(uuid.uuid4()),
            "iat": now,
            "nbf": now,
            "exp": now + 300,
        }
        payload.update(claims)
        payload = {name: value for name, value in payload.items() if value is not None}
        headers = {"x5t#S256": self.x5t_s256} if headers is None else headers
        return jwt.encode(payload, (key or self).key, algorithm=algorithm, headers=headers)


class Directory:
    """The administrator of the Entra-shaped tenant."""

    def __init__(self, sandbox, http):
        self.http = http
        self.entra = sandbox["entra"]
        self.sandbox = sandbox
        self.headers = {"Authorization": f"Bearer {self.token_for(self.entra['graph_scope'])}"}

    def token_for(self, scope):
        administrator = self.sandbox["administrator"]
        form = {"client_id": administrator["client_id"], "client_secret": administrator["client_secret"]}
        answer = self.token(scope=scope, **form)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    def call(self, method, path, expect, body=None):
        answer = self.http.request(method, self.entra["graph"] + path, json=body, headers=self.headers)
        assert answer.status_code == expect, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def application(self, *certificates):
        body = {"displayName": "foreign", "keyCredentials": [c.key_credential() for c in certificates]}
        made = self.call("POST", "/applications", 201, body)
        self.call("POST", "/servicePrincipals", 201, {"appId": made["appId"]})
        return made

    def principal(self, app_id):
        return self.call("GET", f"/servicePrincipals(appId='{app_id}')", 200)

    def secret(self, application, **times):
        body = {"passwordCredential": {"displayName": "s", **times}}
        return self.call("POST", f"/applications/{application['id']}/addPassword", 200, body)["secretText"]

    def token(self, **form):
        return self.http.post(self.entra["token_endpoint"], data={"grant_type": "client_credentials", **form})

    def grant(self, client_id, assertion, scope=None, **form):
        return self.token(
            client_id=client_id,
            scope=scope or self.entra["scopes"][0],
            client_assertion_type=ASSERTION_TYPE,
            client_assertion=assertion,
            **form,
        )


def refused(answer, code, error, status=None):
    body = answer.json()
    assert body["error_codes"] == [code], body
    assert body["error"] == error, body
    assert f"AADSTS{code}" in body["error_description"]
    assert {"trace_id", "correlation_id", "timestamp"} <= body.keys()
    assert answer.status_code == (status or (401 if error == "invalid_client" else 400)), (answer.status_code, body)
    assert "access_token" not in body
