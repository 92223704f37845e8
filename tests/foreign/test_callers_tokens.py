"""Callers' bearer tokens, made by PyJWT and pyca/cryptography, and forged as published attacks forge them."""

import hashlib
import hmac
import json
import time

import jwt
import pytest

from issuers import KEYS, Issuer, Verifier, b64url, jwk, pem

AUDIENCE = "jeton"


class World:
    def __init__(self, folder):
        self.issuer = Issuer(folder)
        self.keys = {alg: make() for alg, make in KEYS.items()}
        self.issuer.publish(*(jwk(key, alg, alg) for alg, key in self.keys.items()))
        common = {"audience": AUDIENCE, "ca_file": self.issuer.ca_file}
        self.verifier = Verifier(folder, {"kind": "oidc", "name": "corp", "issuer": self.issuer.url, **common})

    def claims(self, **changes):
        now = int(time.time())
        claims = {"iss": self.issuer.url, "sub": "user-1", "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 600}
        return {name: value for name, value in {**claims, **changes}.items() if value is not ...}

    def token(self, alg="ES256", key=None, headers=None, **changes):
        return jwt.encode(self.claims(**changes), key or self.keys[alg], algorithm=alg, headers={"kid": alg, **(headers or {})})

    def judge(self, token):
        return self.verifier.judge(token)

    def refused(self, token):
        verdict = self.judge(token)
        assert set(verdict) == {"refused"}, verdict
        # What the operator reads holds nothing that could be used.
        assert not any(part in verdict["refused"] for part in token.split(".") if len(part) > 16)
        return verdict["refused"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("issuer"))
    yield world
    world.verifier.stop()
    world.issuer.stop()


@pytest.mark.parametrize("alg", KEYS)
def test_a_token_of_every_algorithm_gets_in(world, alg):
    verdict = world.judge(world.token(alg))
    assert verdict["principal"] == "oidc://corp/user-1"
    assert verdict["until"] - time.time() == pytest.approx(630, abs=20)


def test_a_token_is_remembered_by_its_hash_and_no_other_is(world):
    token = world.token(jti="remembered")
    assert world.judge("?" + token) == {"remembered": None}
    world.judge(token)
    assert world.judge("?" + token) == {"remembered": "oidc://corp/user-1"}
    assert world.judge("?" + token[:-4] + "AAAA") == {"remembered": None}


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"iss": ...},
        {"aud": "vault"},
        {"aud": ["jeton", "vault"]},
        {"aud": "JETON"},
        {"aud": ...},
        {"sub": ...},
        {"sub": ""},
        {"exp": 1_700_000_000},
        {"exp": ...},
        {"exp": 1e300},
        {"exp": -1},
        {"nbf": 4_000_000_000},
        {"iat": 4_000_000_000},
    ],
    ids=lambda changes: ",".join(f"{name}={value}" for name, value in changes.items()),
)
def test_a_wrong_claim_keeps_a_token_out(world, changes):
    world.refused(world.token(**changes))


def raw(world, header, payload, signer=None):
    """What PyJWT itself refuses to make."""
    message = f"{b64url(json.dumps(header).encode())}.{b64url(json.dumps(payload).encode())}"
    signature = signer(message.encode()) if signer else b""
    return f"{message}.{b64url(signature)}"


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ["9999999999", "", None, True, [], {"a": 1}], ids=repr)
def test_a_time_that_is_no_number_keeps_a_token_out(world, claim, value):
    # CVE-2026-25537: such a one was taken for one that is not there.
    es256 = jwt.get_algorithm_by_name("ES256")
    token = raw(world, {"alg": "ES256", "kid": "ES256"}, world.claims(**{claim: value}), lambda m: es256.sign(m, world.keys["ES256"]))
    world.refused(token)


def test_a_time_with_a_fraction_counts(world):
    assert "principal" in world.judge(world.token(exp=time.time() + 60.5))


def test_a_token_of_another_key_keeps_out(world):
    for alg, make in KEYS.items():
        assert "signature" in world.refused(world.token(alg, key=make()))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE"])
def test_a_token_without_a_signature_keeps_out(world, alg):
    for kid in ("RS256", None):
        world.refused(raw(world, {"alg": alg, "kid": kid, "typ": "JWT"}, world.claims()))


def test_the_public_key_is_no_secret_to_sign_with(world):
    # CVE-2016-5431 and its many kin.
    secrets = [pem(world.keys["RS256"]), json.dumps(jwk(world.keys["RS256"], "RS256", "RS256")).encode(), b""]
    for secret in secrets:
        for alg in ("HS256", "RS256"):
            signer = lambda message: hmac.new(secret, message, hashlib.sha256).digest()
            world.refused(raw(world, {"alg": alg, "kid": "RS256"}, world.claims(), signer))


def test_the_key_says_how_it_signs_and_not_the_token(world):
    assert "does not sign" in world.refused(world.token("PS256", key=world.keys["RS256"], headers={"kid": "RS256"}))
    assert "does not sign" in world.refused(world.token("RS256", key=world.keys["PS256"], headers={"kid": "PS256"}))


def test_keys_and_addresses_in_the_header_are_not_looked_at(world):
    other = KEYS["ES256"]()
    asked = len(world.issuer.requests)
    for header in ({"jwk": jwk(other, "ES256", "ES256")}, {"jku": f"{world.issuer.url}/evil"}, {"x5u": f"{world.issuer.url}/evil"}):
        world.refused(world.token(key=other, headers=header))
        assert "principal" in world.judge(world.token(headers=header))
    assert len(world.issuer.requests) == asked


def test_a_header_with_crit_keeps_a_token_out(world):
    assert "crit" in world.refused(world.token(headers={"crit": ["b64"], "b64": True}))


def test_a_name_of_a_key_is_only_compared(world):
    for kid in ("../../../../dev/null", "' OR 1=1 --", "ES256\0", "es256", "", "\u202e652SE"):
        said = world.refused(world.token(headers={"kid": kid}))
        assert said.isprintable(), said
    fetches = [path for path in world.issuer.requests if path == "/keys"]
    assert len(fetches) <= 2, "unknown keys are asked for once in 30 s"


def test_tokens_of_odd_form_keep_out(world):
    good = world.token()
    header, payload, signature = good.split(".")
    for token in [
        "",
        ".",
        "..",
        "...",
        header,
        f"{header}.{payload}",
        f"{header}.{payload}.",
        f"{header}..{signature}",
        f".{payload}.{signature}",
        f"{good}.{signature}",
        f"{good}=",
        f"{header}=.{payload}.{signature}",
        good.replace("-", "+").replace("_", "/") + "+",
        f"Bearer {good}",
        f"{good} {good}",
        world.token(filling="x" * 20_000),
        "a" * 1_000_000,
        f"{header}.{payload}.{signature[::-1]}",
    ]:
        assert set(world.judge(token)) == {"refused"}, token[:80]


def test_subjects_that_look_alike_are_others(world):
    subjects = ["a/b", "a%2Fb", "a%2fb", "A/b", "a", "a ", "a*", "..", ".", "\u0430", "\u00e9", "e\u0301", "a|b", "a?b", "a#b", "k8s://x/y/z"]
    principals = [world.judge(world.token(sub=subject))["principal"] for subject in subjects]
    assert len(set(principals)) == len(subjects)
    assert all(p.startswith("oidc://corp/") and p.count("/") == 3 and p.isascii() for p in principals)


def test_rotated_keys_are_found_within_half_a_minute_and_two_of_one_name_count_for_nothing(tmp_path):
    world = World(tmp_path)
    try:
        assert "principal" in world.judge(world.token())
        begun, following, twin = time.monotonic(), KEYS["ES256"](), KEYS["ES256"]()
        world.issuer.publish(jwk(following, "next", "ES256"), jwk(following, "twin", "ES256"), jwk(twin, "twin", "ES256"))
        token = world.token(key=following, headers={"kid": "next"})
        while "principal" not in (verdict := world.judge(token)):
            assert "publishes no key called" in verdict["refused"]
            assert time.monotonic() - begun < 60
            time.sleep(0.5)
        assert "several keys" in world.refused(world.token(key=twin, headers={"kid": "twin"}))
        assert "publishes no key" in world.refused(world.token()), "the old key is gone"
    finally:
        world.verifier.stop()
        world.issuer.stop()


def test_a_jwt_svid_is_its_spiffe_id_and_its_bundle_is_read_again_when_it_changes(tmp_path):
    bundle, keys = tmp_path / "bundle.json", [KEYS["ES256"](), KEYS["ES384"]()]

    def publish(*named):
        svid = [{**jwk(key, kid, alg), "use": "jwt-svid"} for key, kid, alg in named]
        x509 = {**jwk(KEYS["ES256"](), "x", "ES256"), "use": "x509-svid"}
        following = tmp_path / "following.json"
        following.write_text(json.dumps({"keys": [x509, *svid], "spiffe_sequence": len(named), "spiffe_refresh_hint": 2}))
        following.rename(bundle)

    def svid(key, kid, alg, subject="spiffe://prod.example/pay/api", typ="JWT", audience=("spiffe://prod.example/jeton",)):
        claims = {"sub": subject, "aud": list(audience), "exp": int(time.time()) + 300}
        return jwt.encode(claims, key, algorithm=alg, headers={"kid": kid, "typ": typ})

    publish((keys[0], "a", "ES256"))
    settings = {"kind": "spiffe", "trust_domain": "prod.example", "audience": "spiffe://prod.example/jeton", "jwks_file": str(bundle)}
    verifier = Verifier(tmp_path, settings)
    try:
        first = svid(keys[0], "a", "ES256")
        assert verifier.judge(first)["principal"] == "spiffe://prod.example/pay/api"
        assert "principal" in verifier.judge(svid(keys[0], "a", "ES256", typ="JOSE"))
        for subject in ("spiffe://prod.example.evil/a", "spiffe://prod.example", "spiffe://prod.example/../a", "spiffe://prod.example/%2e", "a"):
            assert "refused" in verifier.judge(svid(keys[0], "a", "ES256", subject=subject)), subject
        assert "refused" in verifier.judge(svid(keys[0], "a", "ES256", typ="at+jwt"))
        assert "refused" in verifier.judge(svid(keys[0], "a", "ES256", audience=("spiffe://prod.example/other",)))
        assert "refused" in verifier.judge(svid(keys[1], "x", "ES384")), "what signs certificates signs no token"
        publish((keys[1], "b", "ES384"))
        begun = time.monotonic()
        while "principal" in verifier.judge(first):
            assert time.monotonic() - begun < 30
            time.sleep(0.1)
        assert verifier.judge("?" + first) == {"remembered": None}
        assert "principal" in verifier.judge(svid(keys[1], "b", "ES384"))
    finally:
        verifier.stop()
