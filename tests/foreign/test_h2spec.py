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
ALLOWED = tomllib.loads((pathlib.Path(__file__).parent / "h2spec.toml").read_text())
CASES = 145


@pytest.fixture
def answering(tmp_path):
    announces = tmp_path / "door.json"
    process = Process([DOOR, announces], announces, tmp_path / "log.txt")
    yield process.info
    process.stop()


def failing(address, path, report):
    host, port = address.rsplit(":", 1)
    command = [H2SPEC, "-h", host, "-p", port, "-P", path, "-o", "2", "-j", report]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=DEADLINE_S)
    cases = list(xml.parse(report).iter("testcase"))
    assert len(cases) == CASES, done.stdout
    bad = [case for case in cases if case.find("error") is not None or case.find("failure") is not None]
    return {f"{case.get('package')} {case.get('classname')}" for case in bad}, done.stdout


def test_the_broker_speaks_http2_by_the_book(broker, tmp_path):
    failed, told = failing(broker["grpc"], "/jeton.v1.TokenService/GetToken", tmp_path / "report.xml")
    assert failed <= ALLOWED["broker"].keys(), told


def test_the_door_speaks_http2_by_the_book_where_answers_have_a_message(answering, tmp_path):
    failed, told = failing(answering["grpc"], "/test.Answers/Any", tmp_path / "report.xml")
    assert failed <= ALLOWED["answering"].keys(), told
