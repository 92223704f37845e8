"""WatchTokens over whatever interrupts it: the broker's restarts, its upgrades, a network that goes away."""

import random
import time

import grpc
from jeton.v1 import token_pb2

from refusal import Refusal


class WatchEnded(Exception):
    """The broker will not send this token, and trying again does not help."""


def watch(tokens, request, interrupted):
    """Yields the token at once, and each that replaces it. `interrupted` is told why a stream ended before another is opened."""
    add = token_pb2.WatchTokensRequest(add=token_pb2.WatchTokensAdd(id="token", request=request))
    attempt = 0
    while True:
        # No deadline: a watch has no end of its own, and keepalive finds a dead connection.
        stream = tokens.WatchTokens(iter([add]))
        why, wait = "the stream ended", 0
        try:
            for answer in stream:
                event = answer.WhichOneof("event")
                if event == "token":
                    attempt = 0
                    yield answer.token.token
                elif event == "moving":
                    why = "the broker is about to stop"
                    break
                elif not answer.failure.reason.startswith("AUTHORITY_"):
                    why, wait = ended(answer.failure)
                    break
                # Otherwise a refresh failed: the token at hand stays good, and the broker itself tries again.
        except grpc.RpcError as error:
            refusal = Refusal(error)
            if refusal.retry_after is None and refusal.code != grpc.StatusCode.UNAVAILABLE:
                raise
            why, wait = refusal.reason or refusal.code.name, refusal.retry_after or 0
        finally:
            stream.cancel()
        interrupted(why)
        # Longer from time to time, and not in step with the other callers of the same broker.
        time.sleep(max(wait, min(5, 0.1 * 2**attempt) * random.uniform(0.5, 1)))
        attempt += 1


def ended(failure):
    """Why this token is not watched any longer and how long to wait before watching it again, if that can help."""
    if not failure.HasField("retry_delay"):
        raise WatchEnded(f"{failure.reason}: {failure.message}")
    return failure.reason, failure.retry_delay.ToTimedelta().total_seconds()
