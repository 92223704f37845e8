"""Issuers of callers' tokens on loopback, and the program that judges such tokens."""

import base64
import datetime
import http.server
import ipaddress
import json
import ssl
import subprocess
import threading

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from conftest import ROOT

VERIFIER = ROOT / "target" / "debug" / "examples" / "verify_tokens"

KEYS = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "PS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


def jwk(key, kid, alg):
    """The public key, as PyJWT publishes it."""
    public = jwt.get_algorithm_by_name(alg).to_jwk(key.public_key(), as_dict=True)
    return {**public, "kid": kid, "alg": alg, "use": "sig", "key_ops": ["verify"]}


def pem(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Publishes documents over TLS, with a certificate authority of its own."""

    def __init__(self, folder):
        self.documents, self.requests = {}, []
        issuer = self

        class Door(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.requests.append(self.path)
                document = issuer.documents.get(self.path)
                body = json.dumps(document).encode()
                self.send_response(404 if document is None else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.ca_file, chain = certificate(folder)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(chain)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}"
        self.documents["/.well-known/openid-configuration"] = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def publish(self, *keys):
        self.documents["/keys"] = {"keys": list(keys)}

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def certificate(folder):
    """A certificate authority's file, and one with a certificate of it for 127.0.0.1 and its key."""
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)

    def made(subject, key, issuer, signer, extension):
        name = lambda text: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
        return builder.add_extension(extension, critical=False).sign(signer, hashes.SHA256())

    authority, leaf = KEYS["ES256"](), KEYS["ES256"]()
    ca = made("authority", authority, "authority", authority, x509.BasicConstraints(ca=True, path_length=None))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certified = made("issuer", leaf, "authority", authority, names)
    ca_file, chain = folder / "ca.pem", folder / "chain.pem"
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key = leaf.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    chain.write_bytes(certified.public_bytes(serialization.Encoding.PEM) + key)
    return str(ca_file), str(chain)


class Verifier:
    """Judges tokens with the settings that are given."""

    def __init__(self, folder, *issuers):
        settings = folder / "issuers.json"
        settings.write_text(json.dumps({"issuers": list(issuers)}))
        pipe = subprocess.PIPE
        self.child = subprocess.Popen([str(VERIFIER), str(settings)], stdin=pipe, stdout=pipe, text=True)

    def judge(self, token):
        self.child.stdin.write(token + "\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def stop(self):
        self.child.stdin.close()
        self.child.wait(timeout=30)
