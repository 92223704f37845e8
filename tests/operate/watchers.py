"""What watches a broker: the Collector by deploy/otel, a Prometheus by deploy/prometheus, and where the Collector sends things on."""

import http.server
import json
import threading

import requests
import yaml

from processes import ROOT, TOOLS, Process, free_ports

RULES = ROOT / "deploy" / "prometheus" / "jeton.rules.yaml"
OTELCOL = TOOLS / "otelcol"
COLLECTOR = ROOT / "deploy" / "otel" / "collector.yaml"


class Sink:
    """Takes OTLP as JSON over HTTP, and keeps it by signal."""

    def __init__(self):
        self.got = {"metrics": [], "traces": [], "logs": []}
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                sink.got[self.path.rpartition("/")[2]].append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _each(self, signal, resources, scopes, items):
        for body in list(self.got[signal]):
            for resource in json.loads(body)[resources]:
                for scope in resource[scopes]:
                    yield from scope.get(items, [])

    def metrics(self):
        return self._each("metrics", "resourceMetrics", "scopeMetrics", "metrics")

    def spans(self):
        return self._each("traces", "resourceSpans", "scopeSpans", "spans")

    def records(self):
        return self._each("logs", "resourceLogs", "scopeLogs", "logRecords")

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Collector:
    """deploy/otel/collector.yaml as it is; what it sends on is JSON, so that a test can read it."""

    def __init__(self, folder, sink):
        grpc, http_, own = free_ports(3)
        self.grpc, self.http, self.metrics = f"http://127.0.0.1:{grpc}", f"http://127.0.0.1:{http_}", f"127.0.0.1:{own}"
        readable = [f"--config=yaml:exporters::otlp_http/{to}: {{encoding: json, compression: none}}" for to in ("prometheus", "traces", "logs")]
        self.process = Process(
            folder / "collector.log",
            OTELCOL,
            f"--config={COLLECTOR}",
            *readable,
            COLLECTOR_GRPC_PORT=str(grpc),
            COLLECTOR_HTTP_PORT=str(http_),
            COLLECTOR_METRICS_PORT=str(own),
            PROMETHEUS_OTLP_ENDPOINT=sink.url,
            TRACES_EXPORTER="otlp_http/traces",
            TRACES_OTLP_ENDPOINT=sink.url,
            LOGS_EXPORTER="otlp_http/logs",
            LOGS_OTLP_ENDPOINT=sink.url,
        )
        self.process.until("the Collector is ready", lambda: "Everything is ready" in self.process.said())


class Prometheus:
    """The rules as they are, but that nobody waits for minutes until an alert fires."""

    def __init__(self, folder, broker, collector):
        rules = yaml.safe_load(RULES.read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            if "for" in rule:
                rule["for"] = "1s"
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
        config = yaml.safe_load((RULES.parent / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = ["rules.yaml"]
        targets = {"jeton": broker, "collector": collector}
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": [targets.pop(job["job_name"])]}]
        assert not targets
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.http = requests.Session()
        self.http.trust_env = False
        self.process = Process(
            folder / "prometheus.log",
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        )
        self.process.until("Prometheus is ready", self._ready)

    def _ready(self):
        try:
            return self.http.get(f"{self.url}/-/ready", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def api(self, path, **parameters):
        answer = self.http.post if path.startswith("query") else self.http.get
        told = answer(f"{self.url}/api/v1/{path}", **{"data" if path.startswith("query") else "params": parameters}, timeout=30).json()
        assert told["status"] == "success", (parameters, told)
        return told["data"]

    def rules(self):
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

    def firing(self):
        """The names of alerts that fire now."""
        return {alert["labels"]["alertname"] for alert in self.api("alerts")["alerts"] if alert["state"] == "firing"}

    def samples(self, expression, start, end):
        """What an expression gave within a time."""
        return self.api("query_range", query=expression, start=start, end=end, step="2s")["result"]
