"""The chart, by Helm and by the schemas of Kubernetes' API."""

import json
import subprocess

import kubernetes_validate
import pytest
import yaml
from conftest import BINARY, HELM, ROOT, key, run

CHART = ROOT / "deploy" / "helm" / "jeton"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
# The oldest that the chart takes, and the newest with schemas.
VERSIONS = ("1.28", "1.37")
# What is no part of Kubernetes has no schema there.
OF_OTHERS = {"ServiceMonitor", "PrometheusRule"}


def rendered(values, *sets):
    arguments = [HELM, "template", "broker", CHART, "--namespace", "identity", "--kube-version", VERSIONS[-1], "-f", values]
    for one in sets:
        arguments += ["--set-json", one]
    return [document for document in yaml.safe_load_all(run(*arguments).stdout) if document]


def one(documents, kind):
    found = [document for document in documents if document["kind"] == kind]
    assert len(found) == 1, kind
    return found[0]


def pod(documents):
    workload = next(d for d in documents if d["kind"] in ("Deployment", "DaemonSet"))
    return workload["spec"]["template"]["spec"]


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_helm_finds_nothing_wrong(values):
    run(HELM, "lint", "--strict", CHART, "-f", values)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_what_is_rendered_fits_the_schemas_of_the_api(values, version):
    documents = rendered(values)
    for document in documents:
        if document["kind"] not in OF_OTHERS:
            kubernetes_validate.validate(document, version, strict=True)
    names = [(document["kind"], document["metadata"]["name"]) for document in documents]
    assert len(names) == len(set(names))
    with pytest.raises(kubernetes_validate.ValidationError):
        broken = pod(documents)
        broken["containers"][0]["image"] = 5
        workload = next(d for d in documents if d["kind"] in ("Deployment", "DaemonSet"))
        kubernetes_validate.validate(workload, version, strict=True)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_pods_may_do_nothing_that_the_broker_does_not_need(values):
    spec = pod(rendered(values))
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    (container,) = spec["containers"]
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"] and not context["privileged"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    writable = [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert set(writable) <= {"data", "socket"}
    assert all(probe in container for probe in ("startupProbe", "livenessProbe", "readinessProbe"))
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


def test_a_deployment_never_has_two_brokers_on_one_claim():
    spec = one(rendered(CHART / "ci" / "deployment-values.yaml"), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_a_pod_asks_the_broker_of_its_own_node():
    assert one(rendered(CHART / "ci" / "daemonset-values.yaml"), "Service")["spec"]["internalTrafficPolicy"] == "Local"
    assert "internalTrafficPolicy" not in one(rendered(CHART / "ci" / "deployment-values.yaml"), "Service")["spec"]


def test_the_token_of_the_account_is_in_the_pod_only_where_tokens_are_reviewed():
    values = CHART / "ci" / "deployment-values.yaml"
    documents = rendered(values)
    assert one(documents, "ClusterRoleBinding")["roleRef"]["name"] == "system:auth-delegator"
    assert pod(documents)["automountServiceAccountToken"] is True
    documents = rendered(values, "tokenReview.enabled=false")
    assert not [d for d in documents if d["kind"] == "ClusterRoleBinding"]
    assert pod(documents)["automountServiceAccountToken"] is False


def test_nobody_comes_and_nothing_goes_beside_what_the_policy_names():
    policy = one(rendered(CHART / "ci" / "everything-values.yaml"), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [rule["ports"][0]["port"] for rule in policy["ingress"]] == ["grpc-tls", "metrics"]
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [53, 53]
    policy = one(rendered(CHART / "ci" / "socket-values.yaml"), "NetworkPolicy")["spec"]
    assert policy["ingress"] == []


def test_metrics_stay_in_the_cluster_whoever_the_service_of_tokens_is_open_to():
    documents = rendered(CHART / "ci" / "everything-values.yaml")
    services = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Service"}
    types = {name: (d["spec"]["type"], [port["name"] for port in d["spec"]["ports"]]) for name, d in services.items()}
    assert types == {"broker": ("LoadBalancer", ["grpc-tls"]), "broker-metrics": ("ClusterIP", ["metrics"])}
    watched = one(documents, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    assert [name for name, d in services.items() if watched <= d["metadata"]["labels"].items()] == ["broker-metrics"]
    (container,) = pod(documents)["containers"]
    assert [container[p]["httpGet"]["path"] for p in ("livenessProbe", "readinessProbe")] == ["/livez", "/readyz"]


def test_the_alerts_are_those_of_prometheus_and_go_by_the_name_of_the_scraped_job():
    documents = rendered(CHART / "ci" / "everything-values.yaml")
    rule = one(documents, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy" / "prometheus" / "jeton.rules.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = one(documents, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "jeton"}]


def test_a_packaged_chart_has_the_alerts(tmp_path):
    run(HELM, "package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("*.tgz")
    values = CHART / "ci" / "everything-values.yaml"
    arguments = [HELM, "template", "broker", package, "--kube-version", VERSIONS[-1], "-f", values]
    assert "alert: JetonStarved" in run(*arguments).stdout


@pytest.mark.parametrize(
    "wrong, words",
    [
        ('mode="StatefulSet"', "mode"),
        ("replicas=3", "replicas"),
        ('sealing.existingSecret=""', "existingSecret"),
        ('sealing.value="c2VjcmV0"', "value"),
        ('tls.secretName=""', "secretName"),
        ("tls.enabled=false", "enabled"),
        ("tls.port=0", "port"),
        ('image.digest="latest"', "digest"),
        ('persistence.accessModes=["ReadWriteMany"]', "accessModes"),
        ("podDisruptionBudget.minAvailable=2", "minAvailable"),
        ('socket.mode="rw"', "mode"),
        ("terminationGracePeriodSeconds=5", "terminationGracePeriodSeconds"),
        ("serviceAccount.create=false", "name"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(wrong, words):
    values = CHART / "ci" / "deployment-values.yaml"
    arguments = [HELM, "template", "broker", CHART, "--kube-version", VERSIONS[-1], "-f", values, "--set-json", wrong]
    done = run(*arguments, ok=False)
    assert done.returncode != 0 and "don't meet the specifications of the schema" in done.stderr, done.stderr
    assert words in done.stderr, done.stderr


def test_every_value_is_in_the_schema():
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(value, schema, path):
        if isinstance(value, dict) and schema.get("additionalProperties") is False:
            assert set(value) == set(schema["properties"]) - {"global"}, path
            for name, inner in value.items():
                walk(inner, schema["properties"][name], f"{path}.{name}")

    walk(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "values")


@pytest.fixture
def files(tmp_path):
    """What the chart mounts, where a test can read it."""
    key(tmp_path / "sealing.key")
    subject = ["-subj", "/CN=jeton", "-addext", "subjectAltName=DNS:jeton", "-days", "2", "-nodes"]
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    run("openssl", "req", "-x509", *made, *subject, "-keyout", tmp_path / "tls.key", "-out", tmp_path / "tls.crt")
    for name in ("ca.crt", "token"):
        (tmp_path / name).write_text((tmp_path / "tls.crt").read_text())
    return {
        "/etc/jeton/sealing/sealing.key": tmp_path / "sealing.key",
        "/etc/jeton/tls/": f"{tmp_path}/",
        "/etc/jeton/trust/": f"{tmp_path}/",
        "/var/run/secrets/kubernetes.io/serviceaccount/": f"{tmp_path}/",
        "/var/lib/jeton": tmp_path / "data",
        "/run/jeton/": f"{tmp_path}/",
    }


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_broker_takes_the_configuration_that_the_chart_gives_it(values, files, tmp_path):
    documents = rendered(values)

    def here(text):
        for there, path in files.items():
            text = text.replace(there, str(path))
        return text

    config = tmp_path / "jeton.toml"
    config.write_text(here(one(documents, "ConfigMap")["data"]["jeton.toml"]))
    given = pod(documents)["containers"][0]["env"]
    environment = {entry["name"]: here(entry.get("value", "node-1")) for entry in given}
    if "metrics_listen" not in (ROOT / "deploy" / "jeton.full.toml").read_text():
        environment.pop("JETON__TELEMETRY__METRICS_LISTEN", None)
    done = subprocess.run([BINARY, "check-config", "--config", config], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
