"""Bearer tokens of PyJWT at the broker's own door: who gets in, as whom, and what the others hear."""

import time

import grpc
import pytest

from conftest import BINARY, Process, jeton
from issuers import KEYS
from test_callers_tokens import AUDIENCE, World
from test_broker import error_info



class Door:
    """A broker whose TLS door takes the tokens of one issuer, and lets one of its callers have a token."""

    def __init__(self, folder, issuer, member):
        self.folder = folder / "data"
        config = folder / "jeton.toml"
        config.write_text("[[access.issuers]]\n" + issuer)
        self.log = folder / "log.txt"
        arguments = [BINARY, "dev", "--config", config, "--data-dir", self.folder, "--free-ports", "--mtls"]
        self.process = Process([*arguments, "--set", "log.filter=trace"], self.folder / "endpoints.json", self.log)
        self.tls, self.scope = self.process.info["grpc_tls"], self.process.info["vault"]["scope"]
        self.assign = ["access", "assign", "--data-dir", self.folder, "--identity", "identities/billing", "--target", self.scope]
        jeton(*self.assign, "--member", member)

    def channel(self, client=None):
        read = lambda name: open(name, "rb").read()
        shown = {} if client is None else {"private_key": read(client["key_file"]), "certificate_chain": read(client["cert_file"])}
        credentials = grpc.ssl_channel_credentials(root_certificates=read(self.tls["ca_file"]), **shown)
        return grpc.secure_channel(self.tls["address"], credentials)

    def ask(self, token=None, client=None, header=None):
        from jeton.v1 import token_pb2, token_pb2_grpc

        request = token_pb2.GetTokenRequest(identity="identities/billing", scopes=[self.scope])
        metadata = [("authorization", header or f"Bearer {token}")] if token or header else []
        with self.channel(client) as channel:
            return token_pb2_grpc.TokenServiceStub(channel).GetToken(request, metadata=metadata, timeout=20).token

    def refused(self, **how):
        with pytest.raises(grpc.RpcError) as refused:
            self.ask(**how)
        return refused.value


@pytest.fixture(scope="module")
def door(tmp_path_factory, stubs):
    folder = tmp_path_factory.mktemp("door")
    world = World(folder)
    issuer = (
        "kind = \"oidc\"\nname = \"corp\"\n"
        f"issuer = \"{world.issuer.url}\"\naudience = \"{AUDIENCE}\"\nca_file = \"{world.issuer.ca_file}\"\n"
    )
    door = Door(folder, issuer, "oidc://corp/user-1")
    door.world = world
    yield door
    door.process.stop()


def test_a_token_is_its_subject_and_gets_what_that_was_assigned(door):
    token = door.world.token()
    for _ in range(3):
        assert door.ask(token).identity == "identities/billing"


@pytest.mark.parametrize("subject", ["user-2", "USER-1", "user-1/", "user-1 ", "user-1%20", "corp/user-1"])
def test_another_subject_is_let_in_and_gets_nothing(door, subject):
    assert door.refused(token=door.world.token(sub=subject)).code() == grpc.StatusCode.PERMISSION_DENIED


def wrong(world):
    now = int(time.time())
    return {
        "expired": world.token(exp=now - 120, nbf=now - 600, iat=now - 600),
        "not yet valid": world.token(nbf=now + 600),
        "without an end": world.token(exp=...),
        "for another": world.token(aud="vault"),
        "for others too": world.token(aud=[AUDIENCE, "vault"]),
        "of another issuer": world.token(iss="https://elsewhere.example"),
        "of another key": world.token(key=KEYS["ES256"]()),
        "cut": world.token()[:-4],
        "no token": "nonsense",
    }


@pytest.mark.parametrize("kind", ["expired", "not yet valid", "without an end", "for another", "for others too", "of another issuer", "of another key", "cut", "no token"])
def test_a_wrong_token_keeps_out_whatever_certificate_is_beside_it_and_its_bearer_hears_nothing_of_why(door, kind):
    token = wrong(door.world)[kind]
    allowed = next(client for client in door.tls["clients"] if client["allowed"])
    assert door.ask(client=allowed).access_token
    heard = set()
    for client in [None, allowed]:
        error = door.refused(token=token, client=client)
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED
        heard.add(error.details())
    assert heard == {door.refused(token="nonsense").details()}


@pytest.mark.parametrize("header", ["Basic dXNlcjpwYXNz", "Bearer", "bearer  ", "Token x"])
def test_another_scheme_is_no_caller(door, header):
    assert door.refused(header=header).code() == grpc.StatusCode.UNAUTHENTICATED


def test_nobody_is_nobody(door):
    error = door.refused()
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED and error_info(error).reason == "UNAUTHENTICATED"


def test_no_token_is_in_the_log_at_trace_level_and_the_reasons_are(door):
    tokens = [door.world.token(), *wrong(door.world).values()]
    assert door.ask(tokens[0])
    time.sleep(1.1)  # The log of refusals has one line a second.
    door.refused(token=wrong(door.world)["for another"])
    log = door.log.read_text(errors="replace")
    for token in tokens:
        for part in token.split("."):
            assert len(part) < 24 or part not in log
    assert "the token is not for" in log
