"""The log, and what is on the audit log, as the Collector sends them on."""

import json

from processes import until


def attributes(record):
    return {a["key"]: next(iter(a["value"].values()), None) for a in record["attributes"]}


def audited(watched):
    """Records of audited events by their number on the audit log."""
    found = {}
    for record in watched.sink.records():
        said = attributes(record)
        if "seq" in said and "kind" in said:
            found[int(said["seq"])] = said | {"body": record["body"]["stringValue"]}
    return found


def test_what_is_on_the_audit_log_arrives_whole(watched):
    listed = watched.world.jeton("audit", "list", "--since", "1h", "--limit", "100000", "-o", "json").stdout
    on_disk = json.loads(listed) if listed.startswith("[") else [json.loads(line) for line in listed.splitlines()]
    kinds = {"admin.change", "access.denied", "token.served", "key.step"}
    told = {event["seq"]: event["kind"] for event in on_disk if event.get("kind") in kinds}
    assert kinds <= set(told.values())
    until("every event has come", lambda: told.keys() <= audited(watched).keys(), seconds=30)
    came = audited(watched)
    assert {number: came[number]["kind"] for number in told} == told


def test_denials_are_warnings_that_name_who_and_what(watched):
    denied = [record for record in watched.sink.records() if attributes(record).get("kind") == "access.denied"]
    assert denied and all(record["severityText"] == "WARN" for record in denied)
    assert any("identities/nobody" in json.dumps(record) for record in denied)


def test_lines_of_the_log_arrive_beside_them(watched):
    lines = [record for record in watched.sink.records() if "seq" not in attributes(record)]
    assert any(record["severityText"] == "WARN" for record in lines)
