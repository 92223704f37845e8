"""Runs the programs of sdk/, each in an environment of its own: PATH, an empty home, and what `jeton env` says."""

import json
import os
import subprocess
import sys
import tempfile

from conftest import ROOT

MADE = ROOT / "target" / "ci-tools" / "sdk"
COMMANDS = {
    "python": [sys.executable, ROOT / "tests" / "foreign" / "sdk" / "python" / "probe.py"],
    "node": ["node", MADE / "sdk-node" / "probe.js"],
    "go": [MADE / "sdk-go" / "program"],
    "java": ["java", "-jar", MADE / "sdk-java" / "target" / "sdk-probe.jar"],
    "rust": [MADE / "rust-target" / "debug" / "sdk-probe"],
}
DEADLINE_S = 240


def ask(sdk, variables, cases, within=()):
    """The answers to cases, in their order. `within`: a command that runs the program."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [*map(str, [*within, *COMMANDS[sdk]])],
            input="".join(f"{' '.join(case)}\n" for case in cases),
            env={"PATH": os.environ["PATH"], "HOME": home, **variables},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(cases), (done.stdout, done.stderr)
    return answers
