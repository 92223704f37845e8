"""Rules, their tests, and the runbook: what belongs together is there, and what they name exists."""

import functools
import re
import tomllib

import pytest
import yaml
from dashboards import MATCHER, SELECTOR, metrics

from processes import BINARY, ROOT, run
from watchers import RULES

TESTS = RULES.with_name("jeton.rules.test.yaml")
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
ALL = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ALL if "alert" in rule}
RECORDED = {rule["record"] for rule in ALL if "record" in rule}
# Prometheus' own, and labels of every series.
OTHERS = {"up": {}}
ALWAYS = {"job", "instance", "le"}


def test_promtool_finds_nothing_wrong():
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES)
    run("promtool", "check", "config", RULES.with_name("prometheus.yml"))
    run("promtool", "test", "rules", TESTS)


def test_every_alert_fires_in_one_case_and_not_in_another():
    cases = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test.get("alert_rule_test", [])]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == ALERTS.keys()
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == ALERTS.keys()


def test_groups_are_tested_in_the_order_in_which_they_are_written():
    groups = [group["name"] for group in yaml.safe_load(RULES.read_text())["groups"]]
    assert yaml.safe_load(TESTS.read_text())["group_eval_order"] == groups


def test_every_alert_has_its_paragraph_in_the_runbook_and_no_paragraph_is_without_one():
    assert re.findall(r"^## (.*)$", RUNBOOK, re.M) == list(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["labels"] == {"severity": rule["labels"]["severity"]} and rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"https://github.com/jeton/jeton/blob/main/docs/runbook.md#{name.lower()}"
    anchors = {name.lower() for name in ALERTS}
    assert set(re.findall(r"\(#([\w-]+)\)", RUNBOOK)) <= anchors


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.get("alert") or rule["record"])
def test_what_a_rule_asks_for_is_documented(rule):
    known = metrics()
    # Texts and labels are no metrics.
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\b(by|without|on|group_left) ?\([^)]*\)|\[\w+\]', " ", rule["expr"])
    names = set(re.findall(r"\b(?:jeton|rpc|http|process)[a-z_0-9:]*\b|\bup\b", bare))
    assert names or rule["expr"].startswith("vector("), rule["expr"]
    assert names <= known.keys() | RECORDED | OTHERS.keys(), names
    for name, inside in SELECTOR.findall(rule["expr"]):
        for label, _, values in MATCHER.findall(inside):
            documented = (known[name].labels if name in known else {}) | dict.fromkeys(ALWAYS)
            assert label in documented, (name, label)
            if documented[label]:
                assert set(values.split("|")) - {""} <= documented[label], (name, label, values)


def test_methods_that_rules_name_are_in_the_api():
    text = (ROOT / "proto" / "jeton" / "v1" / "token.proto").read_text()
    for method in ("GetToken", "BatchGetTokens"):
        assert f"rpc {method}(" in text
    asked = set(re.findall(r'rpc_method=~?"([^"]*)"', RULES.read_text()))
    assert asked == {"jeton.v1.TokenService/GetToken", "jeton.v1.TokenService/(GetToken|BatchGetTokens)"}


def test_bounds_are_what_a_broker_has_by_default():
    bounds = {rule["record"]: int(re.fullmatch(r"vector\((\d+)\)", rule["expr"])[1]) for rule in ALL[:3]}
    settings = tomllib.loads((ROOT / "deploy" / "jeton.full.toml").read_text())
    assert bounds["jeton:waiting_callers:max"] == settings["engine"]["max_waiters"]
    unit = (ROOT / "deploy" / "systemd" / "jeton.service").read_text()
    assert f"LimitNOFILE={bounds['jeton:file_descriptors:max']}\n" in unit
    values = yaml.safe_load((ROOT / "deploy" / "helm" / "jeton" / "values.yaml").read_text())
    assert values["resources"]["limits"]["memory"] == "1Gi" and bounds["jeton:memory_bytes:max"] == 1 << 30


@functools.cache
def told(*command):
    return run(BINARY, *command, "--help").stdout


def commands(text):
    """Each `jeton ...` that stands in a text, as its words."""
    inline = re.findall(r"`(jeton [^`]+)`", text)
    block = [line for lines in re.findall(r"```sh\n(.*?)```", text, re.S) for line in lines.splitlines()]
    return [line[line.index("jeton ") :].split() for line in inline + block]


@pytest.mark.parametrize("text", [RUNBOOK, RULES.read_text()], ids=["runbook", "alerts"])
def test_commands_that_are_named_exist(text):
    found = commands(text)
    assert len(found) > 10
    for _, *words in found:
        plain = [word for word in words if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")]
        command = plain[:2] if "Commands:" in told(*plain[:1]) else plain[:1]
        help_ = told(*command)
        for option in (word for word in words if word.startswith("-")):
            assert re.search(rf"(^|\s){option}\b", help_), (words, option)


def test_settings_that_are_named_exist():
    settings = tomllib.loads((ROOT / "deploy" / "jeton.full.toml").read_text())
    named = set(re.findall(r"`((?:engine|door|audit|lifecycle|telemetry|keys|data|log)\.[a-z_.]+)\b", RUNBOOK + RULES.read_text()))
    assert len(named) > 5
    for name in named:
        assert functools.reduce(lambda section, key: section[key], name.split("."), settings) is not None, name
