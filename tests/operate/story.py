"""What happens to the broker while it is watched: a mixed load, refusals, and an authority that fails in every way."""

import collections
import socket
import ssl

import grpc
import requests

from processes import until
from world import ORDERS, VAULT, at_once

# Callers of one cold token.
MEETING = 5


class Story:
    """`fired`: the alerts that fired at any time."""

    def __init__(self, world, prometheus):
        self.world, self.prometheus = world, prometheus
        self.fired, self.ended = set(), set()

    def fires(self, *alerts):
        """Waits until all of them have fired."""

        def all_have():
            self.fired |= self.prometheus.firing()
            return set(alerts) <= self.fired

        until(f"{alerts} fire", all_have)

    def ends(self, *alerts):
        """Waits until none of them fires."""
        until(f"{alerts} end", lambda: not set(alerts) & self.prometheus.firing())
        self.ended |= set(alerts)

    def tell(self):
        world = self.world
        until("the broker is scraped", lambda: self.value("up") == 2 and not self.prometheus.firing() & {"JetonDown"})
        self.callers_that_meet()
        with world.watch(), world.callers():
            until("both authorities are asked", lambda: self.value("count(jeton_authority_budget_rate_per_second)") == 2)
            self.callers_that_are_refused()
            self.sdks()
            self.peers_that_misbehave()
            self.keys_and_secrets()
            self.fires("JetonCredentialExpiring")
            self.an_authority_that_throttles()
            self.an_authority_that_fails()
            self.an_authority_that_hangs()
            self.an_authority_that_is_gone()

    def callers_that_meet(self):
        """Several want one cold token, each within a trace of its own, and wait for one answer of the authority."""
        world = self.world

        def call(number):
            traceparent = f"00-{number + 1:032x}-{number + 1:016x}-01"
            return world.get("identities/billing", VAULT, claims='{"met":1}', metadata=[("traceparent", traceparent)])

        with world.authority_stands_still():
            calls = at_once(MEETING, call)
            until("they wait", lambda: world.gauge("jeton_token_waiting_callers") == MEETING, seconds=7)
        assert [call.result() for call in calls] == ["OK"] * MEETING

    def callers_that_are_refused(self):
        world = self.world
        assert world.get("identities/nobody", VAULT) == "PERMISSION_DENIED"
        assert world.get("no name", VAULT) == "INVALID_ARGUMENT"
        assert world.get("identities/billing", "https://other.example/.default") == "PERMISSION_DENIED"
        # The authority's refusal.
        assert world.get("identities/orders", resources=["https://nowhere.example"]) == "FAILED_PRECONDITION"
        with_claims = [world.get("identities/reports", VAULT, claims=f'{{"n":{n}}}') for n in range(40)]
        codes = collections.Counter(with_claims)
        assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"}, codes
        unknown = world.channel.unary_unary("/jeton.v1.TokenService/Nothing")
        try:
            unknown(b"", timeout=10)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED
        else:
            raise AssertionError("a method that is not there answered")

    def sdks(self):
        doors = self.world.endpoints["managed_identity"]
        session = requests.Session()
        session.trust_env = False
        query = {"api-version": "2018-02-01", "resource": "https://vault.example"}
        imds = f"{doors['imds']['url']}/metadata/identity/oauth2/token"
        answer = session.get(imds, params=query, headers={"Metadata": "true"}, timeout=10)
        assert answer.status_code == 200, answer.text
        self.world.secrets.add(answer.json()["access_token"])
        assert session.get(imds, params=query, timeout=10).status_code == 400
        shown = {"X-IDENTITY-HEADER": "jws_" + 64 * "0"}
        query["api-version"] = "2019-08-01"
        assert session.get(doors["app_service"]["url"], params=query, headers=shown, timeout=10).status_code == 401

    def peers_that_misbehave(self):
        world = self.world
        host, port = world.endpoints["grpc_tls"]["address"].rsplit(":", 1)
        context = ssl.create_default_context(cafile=world.endpoints["grpc_tls"]["ca_file"])
        # Without the certificate that is asked for.
        with socket.create_connection((host, int(port)), timeout=10) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="localhost") as peer:
                    assert peer.recv(1) == b""
            except ssl.SSLError:
                pass
        # Silent, until the door closes it.
        host, port = world.endpoints["grpc"].rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=10) as silent:
            while silent.recv(1024):
                pass

    def keys_and_secrets(self):
        world = self.world
        world.secrets.add(world.jeton("workload", "rotate-secret", "workloads/demo").stdout.split()[-1])
        world.jeton("identity", "rotate", "identities/billing")
        assert world.get("identities/orders", "orders.write") == "OK"
        world.jeton("access", "revoke", "--identity", "identities/orders")

    def an_authority_that_throttles(self):
        """For longer than its tokens last."""
        self.world.order(error={"rate": 1.0, "status": 429, "retry_after_seconds": 25})
        self.fires("JetonThrottledTooLong", "JetonStarving")
        self.world.order(error=None)
        self.ends("JetonStarving", "JetonStarved", "JetonThrottledTooLong")

    def an_authority_that_fails(self):
        """Until callers get nothing; a rotation that is begun meanwhile gets nowhere either."""
        world = self.world
        world.order(error={"rate": 1.0, "status": 500, "retry_after_seconds": 0})
        world.jeton("identity", "rotate", "identities/reports", "--no-wait")
        self.fires("JetonStarving", "JetonStarved", "JetonAuthorityFailing", "JetonOperationStuck")
        until("callers get nothing", lambda: world.get(world.identities[0], VAULT) == "UNAVAILABLE")
        world.order(error=None)
        self.ends("JetonStarving", "JetonStarved", "JetonOperationStuck")

    def an_authority_that_hangs(self):
        world = self.world
        # So that those that hang use up its budget.
        world.limit("authorities/entra", max_concurrent=2)
        world.order(hang_seconds=30)
        identities = ["identities/demo-system", "identities/billing", "identities/reports"]
        # Patience that is longer than the door's.
        codes = [call.result() for call in at_once(6, lambda number: world.get(identities[number % 3], ORDERS, timeout=30))]
        assert "DEADLINE_EXCEEDED" in codes and "OK" not in codes, codes
        self.counted("jeton_door_requests_late_total")
        self.counted("jeton_door_resets_total", lambda: world.gives_up("identities/billing", ORDERS))
        self.counted('jeton_refreshes_total{jeton_refresh_outcome="over_budget"}', lambda: world.get("identities/billing", ORDERS, timeout=1))
        world.order(hang_seconds=None)
        world.limit("authorities/entra", max_concurrent=64)

    def an_authority_that_is_gone(self):
        world = self.world
        world.authority_is_gone()
        self.counted('jeton_authority_call_duration_seconds_count{jeton_authority_status_class="none"}')
        world.authority_is_back()
        until("tokens are issued again", lambda: world.get(world.identities[0], VAULT) == "OK")

    def counted(self, counter, after=lambda: None):
        """Waits until Prometheus has seen it grow, doing so."""

        def grown():
            after()
            return self.value(f"increase({counter}[1m])") > 0

        until(f"{counter} grows", grown)

    def value(self, expression):
        return sum(float(series["value"][1]) for series in self.prometheus.api("query", query=expression)["result"])
