"""A broker under load with its sandbox, as a process that can be faulted and killed."""

import concurrent.futures
import contextlib
import json
import signal
import threading
import time

import grpc
import requests
from jeton.v1 import token_pb2, token_pb2_grpc

from processes import BINARY, Process, run

VAULT, ORDERS = "https://vault.example/.default", "https://orders.example/.default"
# Refreshed after 8 to 12 s, served for 15 s.
LIFETIME_S = 20
SETTINGS = [
    'telemetry.named_identities=["identities/orders"]',
    "telemetry.worst_identities=3",
    # Of a day: within what JetonCredentialExpiring fires for.
    "lifecycle.rotation.valid_for_seconds=86400",
    "lifecycle.rotation.after_seconds=43200",
    "lifecycle.rotation.overlap_seconds=3600",
    "engine.miss_burst=20",
    "engine.misses_per_second=20",
    "engine.max_wait_ms=9000",
    "door.first_request_deadline_ms=1000",
    "door.request_deadline_ms=8000",
]


class World:
    def __init__(self, folder, collector):
        self.folder, self.broker, self.channel = folder, None, None
        self._sandbox()
        try:
            self._start(collector)
        except BaseException:
            self.stop()
            raise

    def _start(self, collector):
        folder = self.folder
        self.order(token_lifetime_seconds=LIFETIME_S)
        self.data = folder / "broker"
        settings = [argument for setting in SETTINGS for argument in ("--set", setting)]
        pushing = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.grpc,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            "OTEL_BLRP_SCHEDULE_DELAY": "500",
            "OTEL_LOGS_EXPORTER": "otlp",
        }
        self.broker = Process(
            folder / "broker.log",
            *(BINARY, "dev", "--mtls", "--free-ports", "--data-dir", self.data, "--sandbox", folder / "sandbox", *settings),
            **pushing,
        )
        self.endpoints = json.loads(self.broker.until("the broker", lambda: _read(self.data / "endpoints.json", self.broker)))
        self.channel = grpc.insecure_channel(self.endpoints["grpc"])
        self.tokens = token_pb2_grpc.TokenServiceStub(self.channel)
        self.identities = [identity["name"] for identity in self.endpoints["identities"]]
        # Whatever nobody who watches may see.
        self.secrets = {self.sandbox["administrator"]["client_secret"], self.sandbox["initial_access_token"]}

    def _sandbox(self):
        """On the same ports, with the same clients, each time."""
        folder = self.folder / "sandbox"
        self.authority = Process(self.folder / "sandbox.log", BINARY, "sandbox", "--free-ports", "--data-dir", folder)
        self.sandbox = json.loads(self.authority.until("the sandbox", lambda: _read(folder / "sandbox.json", self.authority)))

    def order(self, **settings):
        """Settings at the sandbox's control door."""
        url = self.sandbox["url"] + "/sandbox/settings"
        answer = requests.put(url, json=settings, verify=self.sandbox["ca_file"], timeout=10)
        assert answer.status_code == 200, answer.text

    @contextlib.contextmanager
    def authority_stands_still(self):
        self.authority.child.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.authority.child.send_signal(signal.SIGCONT)

    def authority_is_gone(self):
        self.authority.kill()

    def authority_is_back(self):
        self._sandbox()

    def get(self, identity, *scopes, timeout=10, metadata=(), **more):
        """The code of one call for a token."""
        request = token_pb2.GetTokenRequest(identity=identity, scopes=scopes, **more)
        try:
            answer = self.tokens.GetToken(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            return error.code().name
        self.secrets.add(answer.token.access_token)
        return "OK"

    def gauge(self, name):
        """What a metric without labels is now."""
        text = requests.get(self.endpoints["metrics"], timeout=10).text
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))

    def gives_up(self, identity, *scopes):
        """A caller that waits, and goes away."""
        call = self.tokens.GetToken.future(token_pb2.GetTokenRequest(identity=identity, scopes=scopes), timeout=10)
        with contextlib.suppress(grpc.FutureTimeoutError, grpc.RpcError):
            call.result(timeout=0.2)
        call.cancel()

    def jeton(self, *arguments, ok=True):
        return run(BINARY, *arguments, "--data-dir", self.data, ok=ok)

    def limit(self, authority, **limits):
        """Another profile of an authority, as an operator changes it."""
        profile = json.loads(self.jeton("authority", "get", authority, "-o", "json").stdout)["profile"]
        profile["limits"] |= limits
        file = self.folder / "profile.json"
        file.write_text(json.dumps(profile))
        self.jeton("authority", "update", authority, "--profile", file)

    @contextlib.contextmanager
    def callers(self, count=3):
        """Callers that want all tokens all the time."""
        over = threading.Event()

        def ask():
            while not over.is_set():
                for identity in self.identities:
                    self.get(identity, "orders.read" if identity == "identities/orders" else VAULT, timeout=2)
                over.wait(0.1)

        threads = [threading.Thread(target=ask) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    @contextlib.contextmanager
    def watch(self):
        """A stream of one token."""
        add = token_pb2.WatchTokensAdd(id="1", request=token_pb2.GetTokenRequest(identity=self.identities[0], scopes=[VAULT]))
        over = threading.Event()

        def asked():
            yield token_pb2.WatchTokensRequest(add=add)
            over.wait()

        stream = self.tokens.WatchTokens(asked())
        try:
            self.secrets.add(next(stream).token.token.access_token)
            yield
        finally:
            over.set()
            stream.cancel()

    def stop(self):
        if self.channel:
            self.channel.close()
        for process in (self.broker, self.authority):
            if process:
                process.stop()


def _read(path, process):
    """What a process of ours has written, and not one before it."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        text = path.read_text()
        return text if json.loads(text)["pid"] == process.child.pid else None


def at_once(count, call):
    """Several calls, each in a thread; what they give, in their order."""
    pool = concurrent.futures.ThreadPoolExecutor(count)
    return [pool.submit(call, number) for number in range(count)]


def now():
    return time.time()
