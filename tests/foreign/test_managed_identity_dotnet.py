"""Azure.Identity for .NET, which nothing here can run: its requests as its sources make them, replayed.

The requests in recorded/dotnet.json were written down from the sources of Azure.Identity and MSAL.NET. They were not recorded from a
running program, and say nothing about how .NET reads the answers beyond what is checked here.
"""

import json
import pathlib

import pytest

from conftest import ROOT
from doors import KEYS, VAULT

RECORDED = json.loads((ROOT / "tests" / "foreign" / "recorded" / "dotnet.json").read_text())


def filled(text, doors, flavour, key=""):
    environment = doors.environment(flavour)
    for name, value in {
        **environment,
        "resource": VAULT,
        "client_id": doors.client_id("billing"),
        "object_id": doors.selector("object_id", "billing"),
        "resource_id": doors.selector("resource_id", "billing"),
        "key": key,
    }.items():
        text = text.replace("{" + name + "}", value)
    assert "{" not in text, text
    return text


def replay(doors, case, key=""):
    def fill(text):
        return filled(text, doors, case["flavour"], key)

    url = fill(case["url"]) + "?" + "&".join(fill(pair) for pair in case.get("query", []))
    headers = {name: fill(value) for name, value in case["headers"].items()}
    body = fill(case["body"]) if "body" in case else None
    verify = str(doors.broker["managed_identity"]["service_fabric"]["ca_file"])
    return doors.http.request(case["method"], url.rstrip("?"), headers=headers, data=body, verify=verify, timeout=30, allow_redirects=False)


@pytest.mark.parametrize("case", RECORDED["requests"], ids=lambda case: case["name"])
def test_a_recorded_request_is_answered_as_dotnet_reads_it(doors, case):
    answer = replay(doors, case)
    if case["flavour"] == "arc":
        # Two steps: the key's file, then its content.
        realm = answer.headers["WWW-Authenticate"].removeprefix("Basic realm=")
        assert (answer.status_code, str(pathlib.Path(realm).parent)) == (401, str(KEYS)) and realm.endswith(".key")
        answer = replay(doors, {**case, "headers": {**case["headers"], "Authorization": "Basic {key}"}}, pathlib.Path(realm).read_text())
    if "error" in case:
        assert answer.status_code == case["status"] and case["error"] in answer.text
        assert "access_token" not in answer.text
        return
    assert answer.status_code == 200, answer.text
    body = answer.json()
    # Both write the same property of .NET's, and the last one wins: it must be the absolute time.
    assert list(body).index("expires_in") < list(body).index("expires_on") and int(body["expires_on"]) > 978307200
    assert doors.claims(body["access_token"])["azp"] == doors.client_id(case["identity"])
