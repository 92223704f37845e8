"""How messages are framed, what is no call at all (grpc/doc/PROTOCOL-HTTP2.md), and compression, which the broker does not take
(grpc/doc/compression.md).

By grpcio, and by Node's HTTP/2, which shows every header. Each rule holds for a token in memory, which the door answers by itself, and
for a request that tonic answers.
"""

import base64
import gzip
import json
import pathlib
import struct
import subprocess

import grpc
import pytest

from conftest import DEADLINE_S
from test_broker import error_info

CLIENT = pathlib.Path(__file__).parent / "post.mjs"
PLAIN, COMPRESSED = 0, 1
# No request with it takes the short way.
LONG_WAY = {"min_validity": {"seconds": 1}}
WAYS = pytest.mark.parametrize("more", [{}, LONG_WAY], ids=["at once", "the long way"])


@pytest.fixture(scope="module")
def call(broker, stubs):
    from jeton.v1 import token_pb2_grpc

    with grpc.insecure_channel(broker["grpc"]) as channel:
        yield token_pb2_grpc.TokenServiceStub(channel).GetToken


@pytest.fixture
def request_of(broker, call):
    """A request whose token is in memory."""
    from jeton.v1 import token_pb2

    def request_of(more):
        request = token_pb2.GetTokenRequest(identity="identities/billing", scopes=[broker["vault"]["scope"]], **more)
        call(request, timeout=20)
        return request

    return request_of


@pytest.fixture
def post(broker):
    """Headers and trailers, and the body, of the answer to bytes."""

    def post(body, path="/jeton.v1.TokenService/GetToken", **headers):
        headers = {"content-type": "application/grpc", "te": "trailers"} | {k.replace("_", "-"): v for k, v in headers.items()}
        pairs = [part for pair in headers.items() for part in pair]
        command = ["node", CLIENT, f"http://{broker['grpc']}", path, *pairs]
        done = subprocess.run(command, input=body, capture_output=True, check=True, timeout=DEADLINE_S)
        answer = json.loads(done.stdout)
        assert answer["reset"] == 0, answer
        return answer["told"], base64.b64decode(answer["body"])

    return post


PATHS = pytest.mark.parametrize(
    "path",
    [
        "/jeton.v1.TokenService/GetToken",
        "/jeton.v1.TokenService/BatchGetTokens",
        "/jeton.v1.TokenService/WatchTokens",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/nonsense",
    ],
)


@PATHS
@pytest.mark.parametrize("sent", [{":method": "GET"}, {":method": "PUT"}, {"content_type": "text/html"}, {"content_type": "application/grpc-web+proto"}])
def test_what_is_no_call_of_grpc_is_refused_in_the_words_of_http(post, request_of, path, sent):
    told, body = post(framed(request_of({}).SerializeToString()), path, **sent)
    expected = (405, "POST", None) if ":method" in sent else (415, None, "application/grpc")
    assert (told[":status"], told.get("allow"), told.get("accept")) == expected
    assert "grpc-status" not in told and b"gRPC" in body


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=utf-8"])
@WAYS
def test_every_spelling_of_the_content_type_gets_a_token(post, request_of, more, kind):
    told, body = post(framed(request_of(more).SerializeToString()), content_type=kind)
    assert told["grpc-status"] == "0" and answer(body).access_token


def framed(message, flag=PLAIN):
    message = gzip.compress(message) if flag else message
    return struct.pack(">BI", flag, len(message)) + message


@WAYS
@pytest.mark.parametrize("claims", ["", '{"access_token":{}}' + " " * 2_000], ids=["small", "worth compressing"])
def test_a_client_that_compresses_is_told_that_it_may_not(call, request_of, more, claims):
    request = request_of(more | {"claims": claims})
    with pytest.raises(grpc.RpcError) as refused:
        call(request, timeout=20, compression=grpc.Compression.Gzip)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "gzip" in refused.value.details() and "identity" in refused.value.details()
    assert error_info(refused.value).reason == "UNSUPPORTED_ENCODING"


@WAYS
@pytest.mark.parametrize("flag", [PLAIN, COMPRESSED])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "snappy"])
def test_a_refusal_says_what_is_accepted(post, request_of, more, flag, encoding):
    told, body = post(framed(request_of(more).SerializeToString(), flag), grpc_encoding=encoding)
    assert (told["grpc-status"], told["grpc-accept-encoding"], body) == ("12", "identity", b"")


@WAYS
def test_identity_is_no_compression(post, request_of, more):
    told, body = post(framed(request_of(more).SerializeToString()), grpc_encoding="identity")
    assert told["grpc-status"] == "0" and answer(body).access_token


@WAYS
@pytest.mark.parametrize("accepted", ["gzip", "identity,deflate,gzip"])
def test_a_client_that_would_take_a_compressed_answer_gets_a_plain_one(post, request_of, more, accepted):
    told, body = post(framed(request_of(more).SerializeToString()), grpc_accept_encoding=accepted)
    assert told["grpc-status"] == "0" and "grpc-encoding" not in told
    assert answer(body).identity == "identities/billing"


@WAYS
def test_a_message_that_claims_to_be_compressed_and_does_not_say_how_is_malformed(post, request_of, more):
    message = request_of(more).SerializeToString()
    for headers in [{}, {"grpc_encoding": "identity"}, {"grpc_accept_encoding": "gzip"}]:
        told, _ = post(framed(message, COMPRESSED), **headers)
        assert told["grpc-status"] == "13" and "compressed-flag" in told["grpc-message"], headers
        assert reason(told) == "MALFORMED_FRAMING"


@WAYS
def test_what_is_not_one_whole_message_is_malformed_and_no_failure_of_the_broker(post, request_of, more):
    whole = framed(request_of(more).SerializeToString())
    for body in [b"", whole[:3], whole[:-1], b"\2" + whole[1:]]:
        told, _ = post(body)
        assert (told["grpc-status"], reason(told)) == ("13", "MALFORMED_FRAMING"), body


def reason(told):
    from google.rpc import error_details_pb2, status_pb2

    details = status_pb2.Status.FromString(base64.b64decode(told["grpc-status-details-bin"] + "==")).details
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in details)
    return info.reason


def answer(body):
    """The one message of an answer, which is not compressed."""
    from jeton.v1 import token_pb2

    flag, length = struct.unpack(">BI", body[:5])
    assert (flag, length) == (PLAIN, len(body) - 5)
    return token_pb2.GetTokenResponse.FromString(body[5:]).token
