"""The doors and the process: connections, calls, who is not let in, and what it takes of the machine."""

from panels import PLAIN, Ask, Column, held, high, lines, low, number, quantile, seen, table

UID = "jeton-doors"
TITLE = "Jeton / Doors"
ABOUT = "The doors and the process: connections, calls, who is not let in, and what it takes of the machine."
ALSO = ()

RPC = "rpc_server_call_duration_seconds"
HTTP = "http_server_request_duration_seconds"

NOW = [
    number("Draining", """Whether a broker is about to stop: it takes no new calls and tells watchers to move. `/readyz` says it
        too.""", "none", high(1),
        Ask("max(jeton_draining{here})"), words={"0": "no", "1": "yes"}),
    number("Shortest uptime", "Since the start of the broker that started last. Small again and again: one dies, see its log.",
        "s", low(300, 3600),
        Ask("min(process_uptime_seconds{here})"), width=3),
    number("Connections", "Open ones at all doors. The bound of each door is `door.max_connections`.", "none", PLAIN,
        Ask("sum(jeton_door_connections{here})")),
    number("Requests under way", """What is in memory is answered at once and never among them: these wait for an authority, or are
        watches.""", "none", PLAIN,
        Ask("sum(jeton_door_streams{here})")),
    number("Not let in", "Authentication failures a second, at all doors. Which, and why: below.", "reqps", high(1, 10),
        Ask("sum(rate(jeton_authentication_failures_total{here}[rate]))")),
    number("Not allowed", "Authenticated callers a second that were denied what they asked. Which rule: below.",
        "reqps", high(1, 10),
        Ask("sum(rate(jeton_access_denials_total{here}[rate]))")),
    number("Processors", """How many the brokers keep busy. Hits are cheap: near the machine's number it is signing, a storm of
        misses, or a flood.""", "none",
        PLAIN, Ask("sum(rate(process_cpu_time_seconds_total{here}[rate]))"), decimals=2),
    number("Exports that failed", """Of metrics, spans and log records to a collector, in this time. The log says why; what Prometheus
        pulls is not concerned.""", "none", high(1),
        Ask('sum(increase(jeton_telemetry_exports_total{here, jeton_telemetry_outcome="failed"}[$__range]))'), decimals=0),
]

CALLS = [
    lines("gRPC calls by method", """Answered calls a second, the admin plane's included. `_OTHER` is no method of the API: somebody
        probes.""", "reqps", PLAIN,
        Ask(seen(f"{RPC}_count", "rpc_method"), "{{rpc_method}}"), none="nobody calls"),
    lines("gRPC calls that failed", """By status. UNAVAILABLE, DEADLINE_EXCEEDED: authorities. PERMISSION_DENIED, UNAUTHENTICATED:
        the caller, see below. RESOURCE_EXHAUSTED: limits, see Engine. INTERNAL: the log.""", "reqps", PLAIN,
        Ask(seen(f"{RPC}_count", "rpc_response_status_code", '{here, rpc_response_status_code!="OK"}'), "{{rpc_response_status_code}}"),
        none="no call failed"),
    lines("How long gRPC calls take, p99", "By method, but for WatchTokens, which lasts as long as its callers stay.", "s", PLAIN,
        Ask(quantile("0.99", RPC, "rpc_method", '{here, rpc_method!~".*/WatchTokens"}') + " > 0", "{{rpc_method}}"),
        none="nobody calls", log=True),
    lines("Requests of SDKs by answer", """At the endpoints of managed identities and at `/metrics`. 401 and 403: callers that lack
        a proof. 503: those that waited in vain. The log says which.""", "reqps", PLAIN,
        Ask(seen(f"{HTTP}_count", "jeton_door, http_response_status_code"), "{{jeton_door}} {{http_response_status_code}}"),
        none="nobody asks"),
    lines("How long they take, p99", "By door. Hits take below a millisecond.", "s", PLAIN,
        Ask(quantile("0.99", HTTP, "jeton_door") + " > 0", "{{jeton_door}}"), none="nobody asks", log=True),
    lines("Given up by callers", """Reset: the peer cancelled. Late: the deadline that it had told passed. Many: deadlines that are
        shorter than what the authority takes.""",
        "reqps", PLAIN, Ask(seen("jeton_door_resets_total", "jeton_door"), "{{jeton_door}} reset"),
        Ask(seen("jeton_door_requests_late_total", "jeton_door"), "{{jeton_door}} late"), none="nobody gave up"),
]

PEERS = [
    lines("Connections, by door", "Open ones by door. Near `door.max_connections` new ones are closed at once.", "none", PLAIN,
        Ask(held("jeton_door_connections", "jeton_door"), "{{jeton_door}}"), none="nobody is connected"),
    lines("Connections accepted", """By door. Many a second: clients that do not keep their connections. SDKs' endpoints get one for
        each request.""", "cps", PLAIN,
        Ask(seen("jeton_door_connections_accepted_total", "jeton_door"), "{{jeton_door}}"), none="nobody connects"),
    lines("Connections closed by the broker", """Full: a bound of `[door]` was reached. Silent: no request came in time. Misused:
        too much was cancelled, or sent for nothing.""", "cps", PLAIN,
        Ask(seen("jeton_door_connections_closed_total", "jeton_door, jeton_door_reason"), "{{jeton_door}} {{jeton_door_reason}}"),
        none="none was closed"),
    lines("Requests under way, by door", "By door: they wait for an authority, or are watches.", "none", PLAIN,
        Ask(held("jeton_door_streams", "jeton_door"), "{{jeton_door}}"), none="none is under way"),
    lines("Not let in, by door", """Handshake, expired, withdrawn: certificates. Missing, malformed, token: bearer tokens and
        secrets. Place: who comes from where nobody may. Unavailable: nobody could judge, see the issuer. The log says why, a few
        times a minute.""", "reqps", PLAIN,
        Ask(seen("jeton_authentication_failures_total", "jeton_door, jeton_authentication_failure"),
        "{{jeton_door}} {{jeton_authentication_failure}}"), none="everybody was let in"),
    lines("Not allowed, by rule", """Authenticated callers, by rule. `jeton access explain` with the correlation id that the caller
        got.""", "reqps", PLAIN,
        Ask(seen("jeton_access_denials_total", "jeton_plane, jeton_denial"), "{{jeton_plane}} {{jeton_denial}}"),
        none="nobody was denied"),
]

PROCESS = [
    lines("Processor time", "Processors kept busy. Signing stands back behind serving, so much of it may be signing.",
        "none", PLAIN,
        Ask("sum by (instance, cpu_mode) (rate(process_cpu_time_seconds_total{here}[rate]))", "{{instance}} {{cpu_mode}}"), stack=True),
    lines("Memory", "In RAM, most of it slots (see Engine), and mapped, much of which is never touched.", "bytes", PLAIN,
        Ask("sum by (instance) (process_memory_usage_bytes{here})", "{{instance}} in RAM"),
        Ask("sum by (instance) (process_memory_virtual_bytes{here})", "{{instance}} mapped")),
    lines("File descriptors and threads", """One descriptor for each connection; the limit is that of the process. The number of
        threads does not grow with load.""",
        "none", PLAIN, Ask("sum by (instance) (process_unix_file_descriptor_count{here})", "{{instance}} descriptors"),
        Ask("sum by (instance) (process_thread_count{here})", "{{instance}} threads")),
    lines("Context switches", "Many involuntary ones: the machine has not enough processors.", "ops", PLAIN,
        Ask("sum by (process_context_switch_type) (rate(process_context_switches_total{here}[rate]))",
        "{{process_context_switch_type}}")),
    table("Versions", "Which version runs where, and for how long.", {"instance": "Broker", "host_name": "Node",
        "service_version": "Version"},
        Ask("""max by (instance, host_name, service_version) (target_info{here}) * on (instance) group_left ()
            max by (instance) (process_uptime_seconds{here})""", "Up for"),
        columns=[Column("Node", width=120), Column("Version", width=80), Column("Up for", "s", low(300, 3600), width=90)],
        none="No broker is scraped.", sort="Broker", width=8),
    lines("Exports to a collector",
        """By OTLP, if a collector is configured: these metrics, batches of spans and of log records, by outcome;
        and the spans and records that no collector got. Failed: the log says why. Dropped without failures: a queue is too short, see
        OTEL_BSP_MAX_QUEUE_SIZE and OTEL_BLRP_MAX_QUEUE_SIZE.""", "ops", PLAIN,
        Ask(seen("jeton_telemetry_exports_total", "jeton_telemetry_signal, jeton_telemetry_outcome"),
            "{{jeton_telemetry_signal}} {{jeton_telemetry_outcome}}"),
        Ask("sum by (jeton_telemetry_signal) (rate(jeton_telemetry_dropped_total{here}[rate]))", "{{jeton_telemetry_signal}} dropped"),
        none="no collector is configured, or nothing was exported"),
]

ROWS = [("Now", NOW), ("Calls", CALLS), ("Peers", PEERS), ("Process", PROCESS)]
