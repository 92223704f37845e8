"""What a real Prometheus and a real Collector got of a broker that everything happened to."""

import pytest
import requests
from dashboards import filled, metrics, targets

from processes import until
from watchers import RULES

METRICS = metrics()


def test_every_rule_is_evaluated_without_an_error(watched):
    rules = until("all rules are evaluated", lambda: _evaluated(watched))
    assert {rule["name"]: rule["lastError"] for rule in rules if rule["health"] != "ok"} == {}


def _evaluated(watched):
    rules = watched.prometheus.rules()
    return rules if all(rule["health"] != "unknown" for rule in rules) else None


def test_every_recording_rule_gives_something(watched):
    recorded = [rule["name"] for rule in watched.prometheus.rules() if rule["type"] == "recording"]
    assert len(recorded) > 10
    assert [name for name in recorded if not _numbers(watched.samples(name))] == []


def test_every_query_of_the_dashboards_gives_something(watched):
    asked = targets()
    assert len(asked) > 50
    empty = []
    for board, panel, target in asked:
        if not _numbers(watched.samples(filled(target["expr"]))):
            empty.append(f"{board}: {panel['title']}: {target['expr']}")
    assert not empty, "\n".join(empty)


def _numbers(series):
    """Whether there is one that is a number."""
    return any(value != "NaN" for one in series for _, value in one["values"])


def test_alerts_fire_while_an_authority_fails_and_end_when_it_does_not(watched):
    story = watched.story
    assert {"JetonStarving", "JetonStarved", "JetonThrottledTooLong", "JetonAuthorityFailing", "JetonCredentialExpiring"} <= story.fired
    assert {"JetonStarving", "JetonStarved", "JetonThrottledTooLong"} <= story.ended
    assert not story.fired & {"JetonDown", "JetonRestarts", "JetonAuditLagging", "JetonAuditLost", "JetonAlarm", "JetonExportsFail"}


@pytest.mark.parametrize("series", sorted(METRICS))
def test_every_documented_metric_is_scraped(watched, series):
    assert watched.samples(series), series


def test_every_documented_metric_arrives_by_the_collector(watched):
    documented = _otlp_names()
    pushed = {metric["name"] for metric in watched.sink.metrics() if _points(metric)}
    assert documented - pushed == set()
    assert pushed - documented == set(), "not documented"


def _otlp_names():
    text = (RULES.parents[2] / "docs" / "metrics.md").read_text()
    return {line.strip("# `") for line in text.splitlines() if line.startswith("## `")}


def _points(metric):
    kind = next(metric[kind] for kind in ("sum", "gauge", "histogram") if kind in metric)
    return kind["dataPoints"]


def test_the_collector_gets_rid_of_what_comes(watched):
    own = requests.get(f"http://{watched.collector.metrics}/metrics", timeout=10).text
    sent = [line for line in own.splitlines() if line.startswith("otelcol_exporter_sent_metric_points")]
    assert any(float(line.split()[-1]) > 0 for line in sent), own
    assert "otelcol_exporter_send_failed_metric_points" not in own
    assert watched.samples('up{job="collector"} == 1')


def test_no_secret_reaches_whoever_watches(watched):
    assert len(watched.world.secrets) > 20
    prometheus = watched.prometheus
    seen = [body.decode() for bodies in watched.sink.got.values() for body in bodies]
    seen.append(prometheus.http.get(f"{prometheus.url}/api/v1/series", params={"match[]": '{__name__=~".+"}'}, timeout=30).text)
    seen.append(prometheus.http.get(f"{prometheus.url}/api/v1/rules", timeout=30).text)
    seen.append(requests.get(watched.world.endpoints["metrics"], timeout=10).text)
    seen.append(watched.collector.process.said())
    everything = "\n".join(seen)
    assert "jeton_token_lookups" in everything and "jeton.token.lookups" in everything
    for secret in [*watched.world.secrets, "eyJ", "PRIVATE KEY", "jws_"]:
        at = everything.find(secret)
        assert at < 0, f"{secret} in ...{everything[max(0, at - 300):at + 100]}"
