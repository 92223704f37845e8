"""The broker's own assertions, checked by PyJWT and pyca/cryptography."""

import base64
import hashlib
import json
import subprocess
import time

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from conftest import ROOT, jeton

PRINTER = ROOT / "target" / "debug" / "examples" / "print_assertion"


def printed(*arguments):
    lines = subprocess.run([str(PRINTER), *arguments], capture_output=True, text=True, check=True, timeout=120).stdout
    return [json.loads(line) for line in lines.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def assertions():
    found = printed()
    assert {jwt.get_unverified_header(a["assertion"])["alg"] for a in found} == {"PS256", "RS256", "ES256"}
    return found


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_every_assertion_verifies_with_its_certificate_and_with_its_jwk(assertions):
    for it in assertions:
        header = jwt.get_unverified_header(it["assertion"])
        certificate = x509.load_pem_x509_certificate(it["certificate_pem"].encode())
        jwk = json.loads(it["jwk"]) if isinstance(it["jwk"], str) else it["jwk"]
        for key in (certificate.public_key(), jwt.PyJWK.from_dict(jwk, algorithm=header["alg"]).key):
            claims = jwt.decode(
                it["assertion"],
                key,
                algorithms=[header["alg"]],
                audience=it["audience"],
                options={"require": ["exp", "iss", "sub", "aud", "jti"]},
            )
            assert claims["iss"] == claims["sub"]
            assert isinstance(claims["aud"], str)
            assert isinstance(claims["exp"], int)
            assert claims["exp"] - time.time() <= 600


def test_the_header_names_the_key_as_the_certificate_says(assertions):
    seen = set()
    for it in assertions:
        header = jwt.get_unverified_header(it["assertion"])
        der = x509.load_pem_x509_certificate(it["certificate_pem"].encode()).public_bytes(serialization.Encoding.DER)
        expected = {"x5t": b64url(hashlib.sha1(der).digest()), "x5t#S256": b64url(hashlib.sha256(der).digest())}
        for name, value in expected.items():
            if name in header:
                assert header[name] == value
                seen.add(name)
        if "kid" in header:
            jwk = json.loads(it["jwk"]) if isinstance(it["jwk"], str) else it["jwk"]
            assert header["kid"] == jwk["kid"]
            seen.add("kid")
    assert seen == {"x5t", "x5t#S256", "kid"}


def test_no_two_assertions_share_an_id(assertions):
    ids = [jwt.decode(a["assertion"], options={"verify_signature": False})["jti"] for a in assertions + printed()]
    assert len(set(ids)) == len(ids)
    assert all(len(base64.urlsafe_b64decode(i + "==")) >= 16 for i in ids)


@pytest.mark.parametrize(
    "authority,algorithm,reference,claims,life",
    [
        ("entra", "PS256", "x5t#S256", {"aud", "iss", "sub", "jti", "iat", "nbf", "exp"}, 600),
        ("oidc", "ES256", "kid", {"aud", "iss", "sub", "jti", "iat", "exp"}, 60),
    ],
)
def test_the_ready_profiles_make_what_their_authorities_take(broker, authority, algorithm, reference, claims, life):
    shown = jeton("authority", "get", authority, "--data-dir", broker["data_dir"], "-o", "json").stdout
    profile = json.loads(shown)["profile"]
    (it,) = printed(json.dumps({"key": profile["key"], "assertion": profile["assertion"]}))
    header, jwk = jwt.get_unverified_header(it["assertion"]), jwt.PyJWK.from_json(it["jwk"], algorithm=algorithm)
    assert header["alg"] == algorithm and reference in header
    decoded = jwt.decode(it["assertion"], jwk.key, algorithms=[algorithm], audience=profile["token_endpoint"])
    assert decoded.keys() == claims and decoded["exp"] - decoded["iat"] == life
    assert isinstance(decoded["aud"], str) and 4 <= time.time() - decoded["iat"] < 60
