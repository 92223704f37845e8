"""The dashboards as Grafana's own panels draw them in a browser. It takes 700 MB of packages, so only when JETON_DRAW names a folder for the
pictures, as in .ci/nightly."""

import os
import subprocess

import pytest

from processes import ROOT

SCRAPED_EVERY_S = 1


@pytest.mark.skipif(not os.environ.get("JETON_DRAW"), reason="JETON_DRAW names no folder")
def test_every_panel_of_the_dashboards_is_drawn_with_what_happened(watched):
    minutes = (watched.ended - watched.began) / 60
    # A second later the broker is gone, and so is what it last told.
    span = ["--minutes", f"{minutes:.2f}", "--until", f"{int(watched.ended)}", "--rate", str(SCRAPED_EVERY_S * 10)]
    command = [ROOT / ".ci" / "dashboards", "draw", watched.prometheus.url, os.environ["JETON_DRAW"], *span]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("panels") == len(list((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")))
