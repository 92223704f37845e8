"""What is beside the rules: the Collector's configuration, and the compose file."""

import json
import pathlib
import re

import yaml

from processes import ROOT, TOOLS, run
from watchers import COLLECTOR, OTELCOL

COMPOSE = ROOT / "deploy" / "compose.yaml"


def validated(*exporters, ok=True):
    variables = dict(zip(("METRICS_EXPORTER", "TRACES_EXPORTER", "LOGS_EXPORTER"), exporters))
    return run(OTELCOL, "validate", f"--config={COLLECTOR}", env=variables, ok=ok)


def test_the_collector_takes_its_configuration_with_whatever_exporters_are_chosen():
    assert validated().stderr == ""
    assert yaml.safe_load(COLLECTOR.read_text())["exporters"].keys() == {"debug", "otlp_http/prometheus", "otlp_http/traces", "otlp_http/logs"}
    validated("debug", "otlp_http/traces", "otlp_http/logs")
    wrong = validated("debug", "otlp_http/nowhere", ok=False)
    assert wrong.returncode != 0 and "otlp_http/nowhere" in wrong.stderr


def test_every_variable_of_the_collector_is_explained_with_its_default():
    text = COLLECTOR.read_text()
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    variables = re.findall(r"\$\{env:(\w+):-([^}]*)\}", text)
    assert len(variables) > 5
    for name, default in variables:
        assert name in comments and default in comments, name


def composed():
    """As a program for compose files reads it."""
    read = run(TOOLS / "compose", "-format", "json", COMPOSE.name, cwd=COMPOSE.parent)
    return json.loads(read.stdout)


def test_the_compose_file_is_one_and_what_it_mounts_is_there():
    for name, service in composed()["services"].items():
        for mount in service.get("volumes", []):
            assert mount["type"] == "volume" or mount["read_only"], (name, mount)
            assert mount["type"] == "volume" or pathlib.Path(mount["source"]).exists(), mount
    build = composed()["services"]["jeton"]["build"]
    assert (pathlib.Path(build["context"]) / build["dockerfile"]).exists()


def test_services_may_do_nothing_that_they_do_not_need():
    services = composed()["services"]
    assert services.keys() == {"jeton", "collector", "prometheus", "grafana"}
    for name, service in services.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert not service["user"].startswith("0") and service["mem_limit"] and service["pids_limit"], name
        # Made here, or of one version.
        assert service["image"] == "jeton" or re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        # The Collector's image has nothing to ask with.
        assert ("healthcheck" in service) == (name != "collector"), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name


def test_prometheus_and_collector_are_found_where_the_configurations_look():
    services = composed()["services"]
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {"jeton": ["jeton:7431"], "collector": ["collector:8888"]}
    assert services["jeton"]["environment"]["JETON__TELEMETRY__METRICS_LISTEN"].endswith(":7431")
    assert services["jeton"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert services["grafana"]["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"
    builder = yaml.safe_load((ROOT / "deploy" / "otel" / "builder.yaml").read_text())
    assert services["collector"]["image"].endswith(":" + builder["dist"]["version"])
