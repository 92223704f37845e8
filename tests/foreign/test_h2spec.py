"""HTTP/2 by the book: h2spec at the broker's door, and at the same door with a service whose answers have a message."""

import os
import pathlib
import subprocess
import tomllib
import xml.etree.ElementTree as xml

import pytest

from conftest import DEADLINE_S, ROOT, Process

H2SPEC = pathlib.Path(os.environ.get("H2SPEC", ROOT / "target" / "ci-tools" / "bin" / "h2spec"))
DOOR = ROOT / "target" / "debug" / "examples" / "answering_door"
FAILING = tomllib.loads((pathlib.Path(__file__).parent / "h2spec.toml").read_text())
CASES = 145
LIMIT = "http2/5.1.2 Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded"


@pytest.fixture
def answering(tmp_path):
    announces = tmp_path / "door.json"
    process = Process([DOOR, announces], announces, tmp_path / "log.txt")
    yield process.info
    process.stop()


def outcomes(address, path, report, *sections):
    """What came of each case, and the words that say why."""
    host, port = address.rsplit(":", 1)
    command = [H2SPEC, "-h", host, "-p", port, "-P", path, "-o", "2", "-j", report, *sections]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=DEADLINE_S)
    cases = xml.parse(report).iter("testcase")
    return {f"{case.get('package')} {case.get('classname')}": {part.tag for part in case} for case in cases}, done.stdout


def failed(cases):
    assert len(cases) == CASES
    return {name for name, outcome in cases.items() if outcome & {"error", "failure"}}


def test_the_broker_speaks_http2_by_the_book(broker, tmp_path):
    cases, told = outcomes(broker["grpc"], "/jeton.v1.TokenService/GetToken", tmp_path / "report.xml")
    # It closes the peer's window to hold its streams open. Answers of trailers alone need none, so whether there are ever too many streams
    # at once is a race; the next test has streams that last.
    assert failed(cases) - {LIMIT} == FAILING["broker"].keys(), told


def test_the_broker_refuses_streams_beyond_its_limit(broker, tmp_path):
    cases, told = outcomes(broker["grpc"], "/jeton.v1.TokenService/WatchTokens", tmp_path / "report.xml", LIMIT.split()[0])
    assert cases == {LIMIT: set()}, told


def test_the_door_speaks_http2_by_the_book_where_answers_have_a_message(answering, tmp_path):
    cases, told = outcomes(answering["grpc"], "/test.Answers/Any", tmp_path / "report.xml")
    assert failed(cases) == FAILING["answering"].keys(), told
    assert not [name for name, outcome in cases.items() if "skipped" in outcome]
