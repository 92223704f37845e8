"""The chart on a real kube-apiserver (tests/foreign/kubernetes/build), by Helm (`.ci/deploy` installs it). No kubelet runs: what is shown
is what the API server takes, and what its Pod Security admission says of the pods. Run by `.ci/nightly`.
"""

import subprocess

import pytest
from conftest import ROOT
from service_accounts import Cluster

HELM = ROOT / "target" / "ci-tools" / "deploy" / "bin" / "helm"
CHART = ROOT / "deploy" / "helm" / "jeton"
SECURITY = "pod-security.kubernetes.io/enforce"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        for name, level in (("identity", "restricted"), ("nodes", "privileged")):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {SECURITY: level}}}
            cluster.call("POST", "/api/v1/namespaces", body)
        yield cluster
    finally:
        cluster.stop()


def helm(cluster, namespace, *arguments):
    reach = ["--kube-apiserver", cluster.url, "--kube-token", "admin-token", "--kube-ca-file", cluster.ca_file]
    command = [HELM, *arguments, "--namespace", namespace, *reach]
    done = subprocess.run([str(a) for a in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def workload(cluster, namespace, kind, name):
    return cluster.call("GET", f"/apis/apps/v1/namespaces/{namespace}/{kind}/{name}")


def pod(cluster, namespace, made):
    """What a controller would make: the API server's answer."""
    template = made["spec"]["template"]
    metadata = {"name": "one", "labels": template["metadata"]["labels"]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    return cluster.http.post(f"{cluster.url}/api/v1/namespaces/{namespace}/pods?dryRun=All", json=body, timeout=30)


def test_a_deployment_is_installed_under_the_restricted_standard_upgraded_and_leaves_its_claim(cluster):
    values = CHART / "ci" / "deployment-values.yaml"
    notes = helm(cluster, "identity", "install", "jeton", CHART, "-f", values)
    assert "jeton.identity.svc:7412" in notes
    made = workload(cluster, "identity", "deployments", "jeton")
    answer = pod(cluster, "identity", made)
    assert answer.ok, answer.text
    for path, name in (
        ("/api/v1/namespaces/identity/services", "jeton"),
        ("/apis/networking.k8s.io/v1/namespaces/identity/networkpolicies", "jeton"),
        ("/apis/policy/v1/namespaces/identity/poddisruptionbudgets", "jeton"),
    ):
        cluster.call("GET", f"{path}/{name}")

    # Its account may ask about tokens, and nothing beside.
    def may(verb, group, resource):
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": "identity"}
        spec = {"user": "system:serviceaccount:identity:jeton", "groups": ["system:serviceaccounts"], "resourceAttributes": attributes}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return cluster.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"]

    assert may("create", "authentication.k8s.io", "tokenreviews")
    assert not may("get", "", "secrets") and not may("create", "", "pods")

    helm(cluster, "identity", "upgrade", "jeton", CHART, "-f", values, "--set", "config=log.filter='debug'")
    annotation = lambda made: made["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
    assert annotation(workload(cluster, "identity", "deployments", "jeton")) != annotation(made)
    helm(cluster, "identity", "uninstall", "jeton")
    left = cluster.call("GET", "/api/v1/namespaces/identity/persistentvolumeclaims")["items"]
    assert [claim["metadata"]["name"] for claim in left] == ["jeton"]
    assert cluster.call("GET", "/apis/apps/v1/namespaces/identity/deployments")["items"] == []


def test_brokers_on_nodes_are_installed_where_pods_may_use_folders_of_the_node(cluster):
    helm(cluster, "nodes", "install", "socket", CHART, "-f", CHART / "ci" / "socket-values.yaml")
    helm(cluster, "nodes", "install", "jeton", CHART, "-f", CHART / "ci" / "daemonset-values.yaml")
    made = workload(cluster, "nodes", "daemonsets", "jeton")
    assert pod(cluster, "nodes", made).ok
    refused = pod(cluster, "identity", made)
    assert refused.status_code == 403 and "hostPath" in refused.text, refused.text


def test_everything_that_can_be_switched_on_is_taken(cluster):
    values = CHART / "ci" / "everything-values.yaml"
    # Its kind comes with another product.
    helm(cluster, "nodes", "install", "all", CHART, "-f", values, "--set", "metrics.serviceMonitor.enabled=false,metrics.prometheusRule.enabled=false")
    assert pod(cluster, "nodes", workload(cluster, "nodes", "deployments", "broker")).ok
