#!/usr/bin/env python3
"""Writes dashboards/*.json, or into the folder that is named. Needs requirements.txt; `.ci/dashboards make` runs it."""

import json
import pathlib
import sys

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as dashboards

from boards import authorities, doors, engine, identities, overview
from panels import METRICS, RUNBOOK, SOURCE

FOLDER = pathlib.Path(__file__).parent / "dashboards"
BOARDS = (overview, identities, authorities, engine, doors)
ALL = dashboards.VariableOption(text=["All"], value=["$__all"])
# Of each variable: what it is for, and where its values come from. `jeton_draining` is one series of each broker.
VARIABLES = {
    "job": ("The job of Prometheus that scrapes brokers", "label_values(jeton_draining, job)"),
    "instance": ("One broker, or several", 'label_values(jeton_draining{job=~"$job"}, instance)'),
    "authority": (
        "Authorities, where a panel tells them apart",
        'label_values(jeton_authority_budget_rate_per_second{job=~"$job", instance=~"$instance"}, jeton_authority)',
    ),
    "identity": (
        "Identities that have series of their own: the named ones, and the worst",
        'label_values({__name__=~"jeton_identity_(credential_)?time_to_(starvation|expiry)_seconds", job=~"$job", instance=~"$instance"}, '
        "jeton_identity)",
    ),
}


def built(board):
    """The dashboard of a file of boards/."""
    made = dashboard.Dashboard(board.TITLE).uid(board.UID).description(board.ABOUT).tags(["jeton"])
    made.timezone("browser").time("now-1h", "now").refresh("30s").readonly().tooltip(dashboards.DashboardCursorSync.CROSSHAIR)
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for name in ("job", "instance", *board.ALSO):
        made.with_variable(variable(name))
    for link in links():
        made.link(link)
    for title, panels in board.ROWS:
        made.with_row(dashboard.Row(title))
        for panel in panels:
            made.with_panel(panel)
    written = made.build()
    written.annotations = dashboards.AnnotationContainer(list_val=[])
    for link in written.links:
        # Beside the variables: the builder would have it in a menu.
        link.placement = None
    for number, panel in enumerate(written.panels, start=1):
        panel.id_val = number
    return json.dumps(written, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def variable(name):
    about, query = VARIABLES[name]
    made = dashboard.QueryVariable(name).label(name.capitalize()).description(about).datasource(SOURCE)
    made.query({"query": query, "refId": name}).multi(True).include_all(True).all_value(".*").current(ALL)
    return made.refresh(dashboards.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(dashboards.VariableSort.ALPHABETICAL_ASC)


def links():
    others = dashboard.DashboardLink("Jeton").type(dashboards.DashboardLinkType.DASHBOARDS).tags(["jeton"])
    yield others.include_vars(True).keep_time(True).as_dropdown(False)
    for title, url in (("Runbook", RUNBOOK), ("Metrics", METRICS)):
        yield dashboard.DashboardLink(title).type(dashboards.DashboardLinkType.LINK).icon("doc").url(url).target_blank(True)


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for board in BOARDS:
        (folder / f"{board.UID}.json").write_text(built(board))


if __name__ == "__main__":
    main()
