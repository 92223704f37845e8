"""The OIDC-shaped tenant as its clients use it: registration, and client assertions made by PyJWT."""

import base64
import time
import uuid

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def b64url(number):
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


class Key:
    def __init__(self, kid):
        self.kid = kid
        self.key = ec.generate_private_key(ec.SECP256R1())
        point = self.key.public_key().public_numbers()
        self.jwk = {"kty": "EC", "crv": "P-256", "x": b64url(point.x), "y": b64url(point.y), "kid": kid, "alg": "ES256"}


class Tenant:
    def __init__(self, sandbox, http):
        self.oidc, self.http = sandbox["oidc"], http
        self.initial = {"Authorization": f"Bearer {sandbox['initial_access_token']}"}

    def register(self, headers=None, **metadata):
        body = {
            "client_name": "foreign",
            "grant_types": ["client_credentials"],
            "redirect_uris": [],
            "response_types": [],
            "token_endpoint_auth_method": "private_key_jwt",
            "scope": "orders.read",
            **metadata,
        }
        return self.http.post(self.oidc["registration_endpoint"], json=body, headers=self.initial if headers is None else headers)

    def assertion(self, client, key, kid=None, algorithm="ES256", signer=None, headers=None, **claims):
        now = int(time.time())
        payload = {"iss": client["client_id"], "sub": client["client_id"], "aud": self.oidc["token_endpoint"]}
        payload |= {"jti": str(uuid.uuid4()), "iat": now, "exp": now + 60, **claims}
        payload = {name: value for name, value in payload.items() if value is not None}
        headers = {"kid": kid or key.kid, **(headers or {})}
        return jwt.encode(payload, (signer or key).key, algorithm=algorithm, headers=headers)

    def grant(self, assertion, **form):
        body = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
        return self.http.post(self.oidc["token_endpoint"], data=body | form)


def refused(answer, status, error, *words):
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert all(word in answer.json()["error_description"] for word in words), answer.text
