"""What deploy/grafana promises of its dashboards, without a Grafana and without a network."""

import itertools
import re
import subprocess
import sys

import pytest
import yaml
from dashboards import BOARDS, BUILT_IN, FILES, GRAFANA, ROOT, filled, metrics, panels, selectors, targets

METRICS = metrics()
# Of every series that Prometheus scrapes, and of a histogram's.
ALWAYS = {"job", "instance", "le"}
# What no broker tells of itself by docs/metrics.md: Prometheus' own, and who the broker is (OpenTelemetry).
OTHERS = {"up": set(), "ALERTS": {"alertname", "alertstate"}, "target_info": {"host_name", "service_version"}}
UIDS = {"jeton-overview", "jeton-identities", "jeton-authorities", "jeton-engine", "jeton-doors"}
KINDS = {"timeseries", "stat", "table", "bargauge", "text"}


def every_panel():
    return [pytest.param(board, panel, id=f"{board}: {panel['title']}") for board in BOARDS for panel in panels(board)]


def test_the_committed_dashboards_are_what_the_source_makes(tmp_path):
    subprocess.run([sys.executable, GRAFANA / "generate.py", tmp_path], check=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in FILES}, "run deploy/grafana/generate.py"


def test_links_to_dashboards_stay_good():
    assert {path.stem for path in FILES} == {board["uid"] for board in BOARDS.values()} == UIDS
    assert len({board["title"] for board in BOARDS.values()}) == len(UIDS)


@pytest.mark.parametrize("board, panel", every_panel())
def test_every_panel_says_what_it_means_in_what_unit_and_from_where_on_it_is_bad(board, panel):
    assert panel["type"] in KINDS, "draw/ has no way to draw it"
    assert len(panel["description"]) > 20 and panel["description"].endswith("."), panel.get("description")
    if "targets" in panel:
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"]
        steps = [step["value"] for step in defaults["thresholds"]["steps"]]
        assert steps[0] is None and steps[1:] == sorted(steps[1:]), steps


@pytest.mark.parametrize("board", BOARDS)
def test_no_panel_lies_on_another_or_outside(board):
    taken = {}
    for panel in BOARDS[board]["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])):
            assert taken.setdefault(cell, panel["title"]) is panel["title"], (cell, taken[cell], panel["title"])
    ids = [panel["id"] for panel in BOARDS[board]["panels"]]
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(ids)) == len(ids)
    assert sorted(set(titles)) == sorted(titles)


def test_every_query_asks_the_chosen_source_about_the_chosen_brokers():
    for board, panel, target in targets():
        assert panel["datasource"] == target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, (board, panel["title"])
        assert target["expr"].strip(), (board, panel["title"])
    for where, name, matchers in selectors():
        if name != "ALERTS":
            assert {("job", "=~", "$job"), ("instance", "=~", "$instance")} <= set(matchers), where


def test_every_expression_is_promql(tmp_path):
    expressions = sorted({filled(target["expr"]) for _, _, target in targets()})
    assert "$" not in "".join(expressions)
    assert parsed(expressions, tmp_path) == 0
    assert parsed([*expressions, "sum by (x) (rate(y[1m])"], tmp_path) != 0


def parsed(expressions, folder):
    """promtool's exit code; it reads expressions without a server as those of recording rules."""
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    return subprocess.run(["promtool", "check", "rules", path], capture_output=True).returncode


def test_every_series_and_every_label_and_value_of_a_label_is_documented():
    recorded = records()
    for where, name, matchers in selectors():
        if ":" in name:
            assert name in recorded, f"{where}: {name} is no recording rule of deploy/prometheus"
            continue
        assert name in METRICS or name in OTHERS, f"{where}: {name} is not in docs/metrics.md"
        labels = METRICS[name].labels if name in METRICS else dict.fromkeys(OTHERS[name])
        for label, operator, value in matchers:
            assert label in ALWAYS or label in labels, f"{where}: {name} has no label {label}"
            if labels.get(label) and not value.startswith("$") and ".*" not in value:
                assert set(value.split("|")) <= labels[label], f"{where}: {label} is never {value}"


def records():
    files = (ROOT / "deploy" / "prometheus").glob("*.yaml")
    groups = [group for path in files for group in yaml.safe_load(path.read_text()).get("groups", [])]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


def test_what_a_series_is_called_by_is_what_it_is_told_apart_by():
    for board, panel, target in targets():
        kept = {label.strip() for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in group.split(",")}
        for label in re.findall(r"{{(\w+)}}", target.get("legendFormat", "")):
            assert label in kept, (board, panel["title"], label)
        known = set().union(ALWAYS, *(METRICS[name].labels for _, name, _ in selectors() if name in METRICS), *OTHERS.values())
        assert kept <= known | {"severity"}, (board, panel["title"], kept - known)


def test_every_documented_metric_is_on_a_panel():
    shown = {METRICS[name].name for _, name, _ in selectors() if name in METRICS}
    assert {metric.name for metric in METRICS.values()} - shown == set()


@pytest.mark.parametrize("board", BOARDS)
def test_every_variable_that_is_used_is_there_and_every_one_that_is_there_is_used(board):
    declared = {variable["name"] for variable in BOARDS[board]["templating"]["list"]}
    text = " ".join(target["expr"] for of, _, target in targets() if of == board)
    used = set(re.findall(r"\$(\w+)", text)) - BUILT_IN.keys()
    assert declared == used | {"datasource"}


def test_links_lead_to_dashboards_with_such_variables_and_to_documents_that_exist():
    for board, dashboard in BOARDS.items():
        assert any(link["type"] == "dashboards" and link["tags"] == ["jeton"] == dashboard["tags"] for link in dashboard["links"])
        for link in dashboard["links"]:
            if link["type"] == "link":
                assert (ROOT / link["url"].split("/blob/main/")[1]).is_file(), link["url"]
        for url in re.findall(r'"url": "(/d/[^"]*)"', (GRAFANA / "dashboards" / f"{board}.json").read_text()):
            uid, names = re.match(r"/d/([\w-]+)\?", url)[1], re.findall(r"var-(\w+)=|\$\{(\w+):queryparam\}", url)
            declared = {variable["name"] for variable in BOARDS[uid]["templating"]["list"]}
            assert {name for pair in names for name in pair if name} <= declared, url


def test_what_provisions_them_is_what_grafana_reads():
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text())
    provider = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "jeton.yaml").read_text())
    assert source["apiVersion"] == provider["apiVersion"] == 1
    assert source["datasources"][0]["type"] == "prometheus"
    assert provider["providers"][0]["type"] == "file" and provider["providers"][0]["options"]["path"].startswith("/")


@pytest.mark.parametrize("board", BOARDS)
def test_the_documentation_shows_a_picture_of_each(board):
    assert f"(images/{board}.png)" in (ROOT / "docs" / "dashboards.md").read_text()
    picture = (ROOT / "docs" / "images" / f"{board}.png").read_bytes()
    width = int.from_bytes(picture[16:20])
    assert picture[1:4] == b"PNG" and width == 1600 and len(picture) < 300_000
