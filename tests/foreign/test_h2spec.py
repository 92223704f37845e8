"""HTTP/2 by the book: h2spec at the broker's door. What it sends is no call of gRPC, so each request is refused with headers and a body."""

import os
import pathlib
import subprocess
import tomllib
import xml.etree.ElementTree as xml

from conftest import DEADLINE_S, ROOT

H2SPEC = pathlib.Path(os.environ.get("H2SPEC", ROOT / "target" / "ci-tools" / "bin" / "h2spec"))
FAILING = tomllib.loads((pathlib.Path(__file__).parent / "h2spec.toml").read_text())
CASES = 145


def outcomes(address, path, report):
    """What came of each case, and the words that say why."""
    host, port = address.rsplit(":", 1)
    command = [H2SPEC, "-h", host, "-p", port, "-P", path, "-o", "2", "-j", report]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=DEADLINE_S)
    cases = xml.parse(report).iter("testcase")
    return {f"{case.get('package')} {case.get('classname')}": {part.tag for part in case} for case in cases}, done.stdout


def test_the_broker_speaks_http2_by_the_book(broker, tmp_path):
    cases, told = outcomes(broker["grpc"], "/jeton.v1.TokenService/GetToken", tmp_path / "report.xml")
    assert len(cases) == CASES
    assert {name for name, outcome in cases.items() if outcome & {"error", "failure"}} == FAILING.keys(), told
    assert not [name for name, outcome in cases.items() if "skipped" in outcome]
