"""One trace from its caller to the authority, as the Collector sends it on."""

from processes import until

SERVER, CLIENT = 2, 3


def says(span, key):
    value = next((a["value"] for a in span["attributes"] if a["key"] == key), {})
    return next(iter(value.values()), None)


def links(span):
    return [(link["traceId"], link["spanId"]) for link in span.get("links", [])]


def place(span):
    return span["traceId"], span["spanId"]


def test_a_trace_holds_its_caller_the_flight_the_signing_and_the_authoritys_call(watched):
    from story import MEETING

    traces = [f"{number + 1:032x}" for number in range(MEETING)]
    callers = until("all callers' spans have come", lambda: _callers(watched, traces))
    spans = list(watched.sink.spans())
    flights = [span for span in spans if span["name"] == "flight" and span["traceId"] in traces]
    assert len(flights) == 1, "they waited for one"
    (flight,) = flights
    first = callers[flight["traceId"]]
    assert flight["parentSpanId"] == first["spanId"]
    for trace, caller in callers.items():
        assert caller["kind"] == SERVER and caller["name"] == "jeton.v1.TokenService/GetToken"
        # What the caller brought is above it.
        assert caller["parentSpanId"] == trace[16:]
        assert says(caller, "rpc.response.status_code") == "OK"
        assert links(caller) == [place(flight)]
    parts = [span for span in spans if span["traceId"] == flight["traceId"] and span.get("parentSpanId") == flight["spanId"]]
    by_name = {span["name"]: span for span in parts}
    assert {"assertion", "POST"} <= by_name.keys(), by_name.keys()
    call = by_name["POST"]
    assert call["kind"] == CLIENT and says(call, "url.full") == watched.world.sandbox["entra"]["token_endpoint"]
    for inner, outer in [(flight, first), (call, flight), (by_name["assertion"], flight)]:
        assert int(outer["startTimeUnixNano"]) <= int(inner["startTimeUnixNano"])
        assert int(inner["endTimeUnixNano"]) <= int(outer["endTimeUnixNano"]) or inner is flight


def _callers(watched, traces):
    found = {span["traceId"]: span for span in watched.sink.spans() if span["traceId"] in traces and span["kind"] == SERVER}
    return found if found.keys() == set(traces) else None
