"""Everything that a program does with TokenService. `--help` lists the arguments; the last line of the output is for tests."""

import argparse
import hashlib
import json
import os

import grpc
from jeton.v1 import token_pb2, token_pb2_grpc

from connect import connect, local_address
from refusal import Refusal
from watch import watch

DEADLINE_S = 5


def main(arguments):
    address = arguments.address or local_address(arguments.data_dir)
    with connect(address, arguments.ca, arguments.cert, arguments.key, arguments.bearer) as channel:
        tokens = token_pb2_grpc.TokenServiceStub(channel)
        result = {"language": "python", "address": address}
        request = token_pb2.GetTokenRequest(identity=arguments.identity, scopes=[arguments.scope])
        refused = token_pb2.GetTokenRequest(identity=arguments.refused, scopes=[arguments.scope])
        result["token"] = one_token(tokens, request)
        result["batch"] = several_tokens(tokens, [request, refused])
        result["refusal"] = a_refusal(tokens, refused)
        result |= watched(tokens, request, arguments.updates)
        print(json.dumps(result))


def one_token(tokens, request):
    token = tokens.GetToken(request, timeout=DEADLINE_S).token
    # The token itself goes into the header `authorization: Bearer ...` of a request, and nowhere else.
    shown = {
        "identity": token.identity,
        "client_id": token.client_id,
        "expires_at": token.expires_at.ToJsonString(),
        "sha256": short_hash(token),
    }
    print("token ", shown)
    return shown


def several_tokens(tokens, requests):
    """One call for several tokens. Each fails or succeeds by itself, and the answers have the order of the requests."""
    answer = tokens.BatchGetTokens(token_pb2.BatchGetTokensRequest(requests=requests), timeout=DEADLINE_S)
    batch = []
    for request, result in zip(requests, answer.results, strict=True):
        if result.WhichOneof("outcome") == "response":
            batch.append({"identity": request.identity, "sha256": short_hash(result.response.token)})
        else:
            batch.append({"identity": request.identity, "reason": result.failure.reason})
    print("batch ", batch)
    return batch


def a_refusal(tokens, request):
    try:
        tokens.GetToken(request, timeout=DEADLINE_S)
    except grpc.RpcError as error:
        refusal = Refusal(error)
        shown = {
            "code": refusal.code.name,
            "reason": refusal.reason,
            "correlation_id": refusal.correlation_id,
            "retry_after_seconds": refusal.retry_after,
        }
        print("refused", shown, refusal.message)
        return shown
    raise SystemExit(f"{request.identity} was not refused")


def watched(tokens, request, count):
    """The first `count` tokens of a watch. After the first one: what a program does when a resource refuses a token."""
    updates, interruptions, outcome = [], [], None
    for token in watch(tokens, request, interrupted=interruptions.append):
        updates.append(short_hash(token))
        print(f"watch  update {len(updates)}: {updates[-1]}, after {interruptions or 'no interruption'}", flush=True)
        if outcome is None:
            outcome = report(tokens, request, token)
        if len(updates) == count:
            break
    return {"report": outcome, "updates": updates, "interruptions": len(interruptions)}


def report(tokens, request, token):
    """For a token that a resource answered with 401 although it has not expired. The broker asks for another, which the watch brings."""
    answer = tokens.ReportRejectedToken(
        token_pb2.ReportRejectedTokenRequest(
            identity=request.identity,
            scopes=request.scopes,
            token_sha256=hashlib.sha256(token.access_token.encode()).digest(),
        ),
        timeout=DEADLINE_S,
    )
    outcome = token_pb2.ReportOutcome.Name(answer.outcome)
    print("report", outcome, flush=True)
    return outcome


def short_hash(token):
    """Tells tokens apart in logs, and gives nothing away."""
    return hashlib.sha256(token.access_token.encode()).hexdigest()[:8]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("JETON_DATA_DIR", ".jeton"), help="of a broker on this machine")
    parser.add_argument("--address", help="unix:PATH or HOST:PORT, in place of --data-dir")
    parser.add_argument("--ca", help="connect with TLS; the authorities to trust, as PEM")
    parser.add_argument("--cert", help="the client certificate, as PEM")
    parser.add_argument("--key", help="its private key, as PEM")
    parser.add_argument("--bearer", help="the file with the token that says who is calling")
    parser.add_argument("--identity", default="identities/billing")
    parser.add_argument("--scope", default="https://vault.example/.default")
    parser.add_argument("--refused", default="identities/nobody", help="an identity that gets no token")
    parser.add_argument("--updates", type=int, default=1, help="end after so many tokens of the watch")
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
