"""The dashboards as Grafana reads them, and what docs/metrics.md knows of metrics."""

import json
import pathlib
import re
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
BOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}
# What Grafana puts in by itself, with a value that is possible.
BUILT_IN = {"__rate_interval": "1m", "__range": "1h"}
SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


@dataclass
class Metric:
    """A section of docs/metrics.md. `labels`: the values that may be, or none where they are not listed."""

    name: str
    kind: str
    labels: dict = field(default_factory=dict)

    @property
    def series(self):
        suffixes = ("_bucket", "_count", "_sum") if self.kind == "histogram" else ("",)
        return [self.name + suffix for suffix in suffixes]


def metrics():
    found = []
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        if named := re.match(r"`(\w+)`: ([\w -]+), unit ", line):
            found.append(Metric(named[1], named[2]))
        elif attribute := re.match(r"- `([\w.]+)`: (.*)", line):
            listed = re.fullmatch(r"(`[^`]+`(, )?)+", attribute[2])
            values = set(re.findall(r"`([^`]+)`", attribute[2])) if listed else None
            found[-1].labels[attribute[1].replace(".", "_")] = values
    return {series: metric for metric in found for series in metric.series}


def panels(board):
    return [panel for panel in BOARDS[board]["panels"] if panel["type"] != "row"]


def targets():
    """Each query, with its dashboard and panel."""
    return [(board, panel, target) for board in BOARDS for panel in panels(board) for target in panel.get("targets", [])]


def selectors():
    """Each series that is asked for: the query, its name, and what is asked of its labels."""
    for board, panel, target in targets():
        for name, inside in SELECTOR.findall(target["expr"]):
            yield f"{board}: {panel['title']}: {target['expr']}", name, MATCHER.findall(inside)


def filled(expression):
    """An expression as Prometheus gets it, with everything chosen."""
    for name, value in BUILT_IN.items():
        expression = expression.replace(f"${name}", value)
    return re.sub(r"\$\w+", ".*", expression)
