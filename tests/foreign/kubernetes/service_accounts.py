"""Projected service-account tokens of a real kube-apiserver (tests/foreign/kubernetes/build), and what happens when their owner goes.

No kubelet runs: pods are objects, which is all that a token is bound to. Run by `.ci/nightly`.
"""

import base64
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import grpc
import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from conftest import ROOT
from issuers import KEYS, Verifier, certificate
from test_bearer_callers import Door

APISERVER = ROOT / "target" / "ci-tools" / "kubernetes" / "kube-apiserver"
READY_S = 120
# A review counts for 45 s, and the API server has a memory of 10 s.
STOPPED_S = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Cluster:
    """etcd and an API server."""

    def __init__(self, folder):
        self.folder, self.children = folder, []
        self.ca_file, chain = certificate(folder)
        key = KEYS["RS256"]().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / "sa.key").write_bytes(key)
        (folder / "tokens.csv").write_text('admin-token,admin,1,"system:masters"\n')
        clients, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        self.run(
            "etcd", f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync",
            f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}",
        )
        self.apiserver = self.run(
            APISERVER, f"--etcd-servers={clients}", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
            f"--secure-port={port}", f"--tls-cert-file={chain}", f"--tls-private-key-file={chain}",
            f"--service-account-issuer={self.url}", f"--service-account-signing-key-file={folder / 'sa.key'}",
            f"--service-account-key-file={folder / 'sa.key'}", "--api-audiences=https://kubernetes.default.svc,jeton",
            f"--token-auth-file={folder / 'tokens.csv'}", "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
        )
        self.http = requests.Session()
        self.http.verify, self.http.trust_env = self.ca_file, False
        self.http.headers["authorization"] = "Bearer admin-token"
        self.await_ready()

    def run(self, *arguments):
        log = open(self.folder / f"{pathlib.Path(arguments[0]).name}.log", "wb")
        child = subprocess.Popen([str(a) for a in arguments], stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)
        self.children.append(child)
        return child

    def await_ready(self):
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            assert all(child.poll() is None for child in self.children), (self.folder / "kube-apiserver.log").read_text()[-3000:]
            try:
                if self.http.get(f"{self.url}/readyz", timeout=5).text == "ok":
                    return
            except requests.RequestException:
                pass
            time.sleep(0.5)
        raise RuntimeError((self.folder / "kube-apiserver.log").read_text()[-3000:])

    def call(self, method, path, body=None):
        answer = self.http.request(method, self.url + path, json=body, timeout=30)
        assert answer.ok, answer.text
        return answer.json()

    def make(self, path, kind, name, **members):
        return self.call("POST", path, {"kind": kind, "metadata": {"name": name}, **members})["metadata"]

    def account(self, namespace, name):
        return self.make(f"/api/v1/namespaces/{namespace}/serviceaccounts", "ServiceAccount", name, apiVersion="v1")

    def pod(self, namespace, name, account):
        spec = {"serviceAccountName": account, "containers": [{"name": "it", "image": "it"}]}
        return self.make(f"/api/v1/namespaces/{namespace}/pods", "Pod", name, apiVersion="v1", spec=spec)

    def token(self, namespace, account, audiences=("jeton",), pod=None):
        spec = {"audiences": list(audiences), "expirationSeconds": 3600}
        if pod:
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": pod["name"], "uid": pod["uid"]}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return self.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", request)["status"]["token"]

    def let(self, account, role):
        """Binds a service account of the broker's namespace to a ClusterRole."""
        self.make(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "ClusterRoleBinding", f"{account}-{role.replace(':', '-')}",
            apiVersion="rbac.authorization.k8s.io/v1",
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            subjects=[{"kind": "ServiceAccount", "namespace": "broker", "name": account}],
        )

    def halt(self):
        """Stops the API server in its tracks. A signal is sent at once, and reaches each thread when that is scheduled next."""
        os.kill(self.apiserver.pid, signal.SIGSTOP)
        end = time.monotonic() + 30
        states = lambda: {
            stat.read_text().rpartition(")")[2].split()[0]
            for stat in pathlib.Path(f"/proc/{self.apiserver.pid}/task").glob("*/stat")
        }
        while states() != {"T"}:
            assert time.monotonic() < end, states()
            time.sleep(0.01)

    def stop(self):
        for child in reversed(self.children):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        for namespace in ("pay", "broker"):
            cluster.make("/api/v1/namespaces", "Namespace", namespace, apiVersion="v1")
        cluster.account("pay", "api")
        cluster.account("broker", "jeton")
        cluster.account("broker", "nobody")
        cluster.let("jeton", "system:auth-delegator")
        cluster.let("jeton", "system:service-account-issuer-discovery")
        cluster.let("nobody", "system:service-account-issuer-discovery")
        for account in ("jeton", "nobody"):
            (cluster.folder / account).write_text(cluster.token("broker", account, ["https://kubernetes.default.svc"]) + "\n")
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def judging(cluster, tmp_path):
    """Verifiers with these settings, and the keys by discovery."""
    made = []

    def verifier(review_as=None, **settings):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        issuer = {"kind": "kubernetes", "cluster": "east", "issuer": cluster.url, "audience": "jeton", "ca_file": cluster.ca_file}
        issuer.update(settings, token_file=str(cluster.folder / "jeton"))
        if review_as:
            own = str(cluster.folder / review_as)
            issuer["token_review"] = {"api_server": cluster.url, "ca_file": cluster.ca_file, "token_file": own}
        made.append(Verifier(folder, issuer))
        return made[-1]

    yield verifier
    for it in made:
        it.stop()


def seconds_until_refused(verifier, token):
    begun = time.monotonic()
    while "principal" in (verdict := verifier.judge(token)):
        assert time.monotonic() - begun < STOPPED_S, verdict
        time.sleep(0.5)
    assert "no longer accepts" in verdict["refused"], verdict
    return time.monotonic() - begun


def test_a_token_with_our_audience_gets_in_and_others_do_not(cluster, judging):
    for verifier in (judging(), judging(review_as="jeton")):
        verdict = verifier.judge(cluster.token("pay", "api"))
        assert verdict.get("principal") == "k8s://east/pay/api", verdict
        for audiences in (["https://kubernetes.default.svc"], ["vault"], ["jeton", "vault"]):
            assert "not for" in verifier.judge(cluster.token("pay", "api", audiences))["refused"]


def test_a_token_that_another_cluster_made_for_the_same_names_keeps_out(cluster, judging):
    token = cluster.token("pay", "api")
    header, payload, _ = token.split(".")
    signature = jwt.get_algorithm_by_name("RS256").sign(f"{header}.{payload}".encode(), KEYS["RS256"]())
    signature = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    assert "signature" in judging().judge(f"{header}.{payload}.{signature}")["refused"]


def test_a_token_may_have_to_be_bound_to_a_pod(cluster, judging):
    verifier, pod = judging(review_as="jeton", require_pod=True), cluster.pod("pay", "bound", "api")
    assert verifier.judge(cluster.token("pay", "api", pod=pod))["principal"] == "k8s://east/pay/api"
    assert "bound to no pod" in verifier.judge(cluster.token("pay", "api"))["refused"]


def test_the_token_of_a_deleted_pod_stops_within_a_minute(cluster, judging):
    reviewing, trusting = judging(review_as="jeton"), judging()
    pod = cluster.pod("pay", "gone", "api")
    token = cluster.token("pay", "api", pod=pod)
    assert reviewing.judge(token)["principal"] == trusting.judge(token)["principal"] == "k8s://east/pay/api"
    cluster.call("DELETE", "/api/v1/namespaces/pay/pods/gone?gracePeriodSeconds=0")
    print(f"\nthe token of a deleted pod stopped after {seconds_until_refused(reviewing, token):.1f} s")
    assert "principal" in trusting.judge(token), "without TokenReview a signature is all there is"


def test_the_token_of_a_deleted_service_account_stops_and_one_made_again_inherits_nothing(cluster, judging):
    verifier = judging(review_as="jeton")
    cluster.account("pay", "short")
    token = cluster.token("pay", "short")
    assert verifier.judge(token)["principal"] == "k8s://east/pay/short"
    cluster.call("DELETE", "/api/v1/namespaces/pay/serviceaccounts/short")
    print(f"\nthe token of a deleted service account stopped after {seconds_until_refused(verifier, token):.1f} s")
    cluster.account("pay", "short")
    assert "refused" in verifier.judge(token), "another uid"
    assert verifier.judge(cluster.token("pay", "short"))["principal"] == "k8s://east/pay/short"


def test_at_the_door_of_a_broker_the_token_of_a_deleted_service_account_stops_within_a_minute(cluster, stubs, tmp_path):
    issuer = (
        f"kind = \"kubernetes\"\ncluster = \"east\"\nissuer = \"{cluster.url}\"\naudience = \"jeton\"\nca_file = \"{cluster.ca_file}\"\n"
        f"token_file = \"{cluster.folder / 'jeton'}\"\n[access.issuers.token_review]\napi_server = \"{cluster.url}\"\n"
        f"ca_file = \"{cluster.ca_file}\"\ntoken_file = \"{cluster.folder / 'jeton'}\"\n"
    )
    cluster.account("pay", "caller")
    token, other = cluster.token("pay", "caller"), cluster.token("pay", "api")
    door = Door(tmp_path, issuer, "k8s://east/pay/caller")
    try:
        assert door.ask(token).access_token
        assert door.refused(token=other).code() == grpc.StatusCode.PERMISSION_DENIED, "it was given nothing"
        assert door.refused(token=cluster.token("pay", "caller", ["vault"])).code() == grpc.StatusCode.UNAUTHENTICATED
        cluster.call("DELETE", "/api/v1/namespaces/pay/serviceaccounts/caller")
        begun, refused = time.monotonic(), None
        while refused is None:
            assert time.monotonic() - begun < STOPPED_S, "its token is still taken"
            try:
                door.ask(token)
                time.sleep(0.5)
            except grpc.RpcError as error:
                refused = error
        print(f"\nat the broker's door it stopped after {time.monotonic() - begun:.1f} s")
        assert refused.code() == grpc.StatusCode.UNAUTHENTICATED
        cluster.account("pay", "caller")
        assert door.refused(token=token).code() == grpc.StatusCode.UNAUTHENTICATED, "another uid"
        assert door.ask(cluster.token("pay", "caller")).access_token, "the same name, which was given the role"
        assert token.split(".")[2] not in door.log.read_text(errors="replace")
    finally:
        door.process.stop()


def test_a_broker_that_may_not_review_lets_nobody_in_and_says_what_to_do(cluster, judging):
    verdict = judging(review_as="nobody").judge(cluster.token("pay", "api"))
    assert "system:auth-delegator" in verdict["unavailable"]


def test_while_the_api_server_is_away_no_token_is_believed_unreviewed(cluster, judging):
    verifier, token = judging(review_as="jeton"), cluster.token("pay", "api")
    assert "principal" in verifier.judge(token)
    following = cluster.token("pay", "api")
    cluster.halt()
    try:
        assert "reviews no token" in verifier.judge(following)["unavailable"]
        assert "principal" in verifier.judge(token), "what was reviewed counts for its minute"
    finally:
        os.kill(cluster.apiserver.pid, signal.SIGCONT)
    cluster.await_ready()
    assert "principal" in verifier.judge(following)
