"""The broker by stubs that grpcio-tools made from proto/, and its tokens by the authority's own keys."""

import json

import grpc
import jwt
import pytest
import requests

from conftest import jeton


@pytest.fixture(scope="module")
def session(broker):
    session = requests.Session()
    session.verify = broker["sandbox"]["ca_file"]
    session.trust_env = False
    return session


@pytest.fixture(scope="module")
def tokens(broker, stubs):
    from jeton.v1 import token_pb2_grpc

    with grpc.insecure_channel(broker["grpc"]) as channel:
        yield token_pb2_grpc.TokenServiceStub(channel)


def ask(tokens, identity, *scopes, **more):
    from jeton.v1 import token_pb2

    return tokens.GetToken(token_pb2.GetTokenRequest(identity=identity, scopes=scopes, **more), timeout=20)


def secret(broker, session, token):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{broker['vault']['url']}/secrets/{broker['vault']['secret']}?api-version=7.4"
    return session.get(url, headers=headers)


def test_a_stub_gets_a_token_that_the_authority_signed(broker, tokens, session):
    token = ask(tokens, "identities/billing", broker["vault"]["scope"]).token
    keys = jwt.PyJWKSet.from_dict(session.get(broker["sandbox"]["jwks_uri"]).json())
    key = keys[jwt.get_unverified_header(token.access_token)["kid"]]
    claims = jwt.decode(
        token.access_token,
        key.key,
        algorithms=["RS256"],
        issuer=broker["sandbox"]["issuer"],
        options={"verify_aud": False},
    )
    assert claims["azp"] == token.client_id
    assert claims["exp"] - claims["iat"] == token.expires_at.seconds - token.issued_at.seconds


def test_the_vault_answers_billing_refuses_reports_and_challenges_nobody(broker, tokens, session):
    scope = broker["vault"]["scope"]
    billing = secret(broker, session, ask(tokens, "identities/billing", scope).token.access_token)
    assert billing.status_code == 200 and billing.json()["value"]
    assert secret(broker, session, ask(tokens, "identities/reports", scope).token.access_token).status_code == 403
    assert secret(broker, session, None).status_code == 401


def test_an_empty_identity_is_the_workloads_own(broker, tokens, session):
    token = ask(tokens, "", broker["vault"]["scope"]).token
    assert token.identity == broker["workloads"][0]["system_identity"]
    assert secret(broker, session, token.access_token).status_code == 200


def test_the_oidc_shaped_tenant_serves_the_same_call(broker, tokens):
    token = ask(tokens, "identities/orders", "orders.read", resources=["https://orders.example"]).token
    claims = jwt.decode(token.access_token, options={"verify_signature": False})
    assert claims["iss"] == broker["sandbox"]["oidc"]["issuer"] and claims["client_id"] == token.client_id


def error_info(error):
    from google.rpc import error_details_pb2, status_pb2

    raw = dict(error.trailing_metadata())["grpc-status-details-bin"]
    for detail in status_pb2.Status.FromString(raw).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info
    raise AssertionError("no ErrorInfo")


@pytest.fixture(scope="module")
def unassigned(broker):
    """An identity that exists, and that nobody may use."""
    jeton("identity", "create", "unassigned", "--authority", "entra", "--data-dir", broker["data_dir"])
    return "identities/unassigned"


@pytest.mark.parametrize("exists", [False, True])
def test_unknown_and_not_allowed_look_alike(tokens, exists, broker, unassigned):
    with pytest.raises(grpc.RpcError) as refused:
        ask(tokens, unassigned if exists else "identities/nobody", broker["vault"]["scope"])
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    info = error_info(refused.value)
    assert (info.reason, info.domain) == ("ACCESS_DENIED", "jeton")
    explained = jeton("access", "explain", "--correlation", info.metadata["correlation_id"], "--data-dir", broker["data_dir"])
    assert ("does not exist" in explained.stdout) != exists, explained.stdout


def test_malformed_claims_say_so(broker, tokens):
    with pytest.raises(grpc.RpcError) as refused:
        ask(tokens, "identities/billing", broker["vault"]["scope"], claims="{")
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "claims" in refused.value.details()


def test_the_command_line_prints_one_flat_object(broker):
    arguments = ["token", "get", "--identity", "identities/billing", "--scope", broker["vault"]["scope"], "-o", "json"]
    printed = json.loads(jeton(*arguments, "--data-dir", broker["data_dir"]).stdout)
    expected = {
        "access_token", "token_type", "expires_at", "refresh_at", "issued_at", "identity", "client_id", "scopes", "state",
    }  # fmt: skip
    assert set(printed) == expected
    assert printed["identity"] == "identities/billing" and printed["state"] in ("FRESH", "STALE")


def test_no_token_is_in_the_log_or_in_the_stores(broker, tokens):
    token = ask(tokens, "identities/billing", broker["vault"]["scope"]).token.access_token
    import pathlib

    data = pathlib.Path(broker["data_dir"])
    files = [p for p in data.rglob("*") if p.is_file() and "sandbox" not in p.relative_to(data).parts]
    for path in [*files, pathlib.Path(broker["log"])]:
        content = path.read_bytes()
        assert token.encode() not in content, path
        assert token.split(".")[2].encode() not in content, path


def test_health_and_reflection_answer(broker):
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with grpc.insecure_channel(broker["grpc"]) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=10) == b"\x08\x01", "SERVING"
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        try:
            names = {s.name for s in next(stub.ServerReflectionInfo(iter([request]))).list_services_response.service}
        except grpc.RpcError as error:
            # The older name of the protocol may be off; the newer one is what must answer.
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED
            raw = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
            answer = reflection_pb2.ServerReflectionResponse.FromString(next(raw(iter([request.SerializeToString()]))))
            names = {s.name for s in answer.list_services_response.service}
    assert "jeton.v1.TokenService" in names
