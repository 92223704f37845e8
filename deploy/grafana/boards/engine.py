"""The engine: tokens in memory, their refresh, assertions, limits, the audit log and the store."""

from panels import PLAIN, Ask, bars, high, lines, low, number, quantiles, seen, share

UID = "jeton-engine"
TITLE = "Jeton / Engine"
ABOUT = "The engine: tokens in memory, their refresh, assertions, limits, the audit log and the store."
ALSO = ()

ASKED = "jeton_token_lookups_total{here, jeton_lookup_result"
HALVES = (("0.5", "p50"), ("0.99", "p99"))

MEMORY = [
    lines("Tokens asked for", """Fresh and stale came from memory, a miss waited for an authority, a denied one was not allowed.
        Many stale ones: refreshes fail or come late.""",
        "reqps", PLAIN, Ask("sum by (jeton_lookup_result) (rate(jeton_token_lookups_total{here}[rate]))", "{{jeton_lookup_result}}"),
        stack=True),
    lines("From memory", "The part that waited for nobody. A fall: callers ask for ever new targets, or tokens ran out.",
        "percentunit", low(0.9, 0.99),
        Ask(share(f'{ASKED}=~"fresh|stale"}}', f'{ASKED}!="denied"}}', "instance"), "{{instance}}"),
        none="nobody asks", most=1),
    lines("Slots", """Places for tokens, by where their tokens are in their life. Expired and empty ones that somebody asks for cost
        a wait. Many stale ones: see Authorities.""",
        "none", PLAIN, Ask("sum by (jeton_slot_state) (jeton_slots{here})", "{{jeton_slot_state}}"), stack=True),
    lines("Memory", """What the slots hold, by the engine's own count (its bound is `engine.max_bytes`), and what the process has in
        RAM.""", "bytes", PLAIN,
        Ask("sum by (instance) (jeton_slots_memory_bytes{here})", "{{instance}} slots"),
        Ask("sum by (instance) (process_memory_usage_bytes{here})", "{{instance}} process")),
    lines("Callers that wait", """For an authority. It grows when one is slow or down; its bound is `engine.max_waiters`, then
        callers are refused.""", "none",
        high(100, 1000), Ask("sum by (instance) (jeton_token_waiting_callers{here})", "{{instance}}")),
    lines("Watches", "Tokens that are watched: sent to their watchers with each refresh. Its bound is `engine.max_watches`.",
        "none", PLAIN,
        Ask("sum by (instance) (jeton_token_watches{here})", "{{instance}}")),
]

REFRESHES = [
    lines("Requests for tokens", "By who wanted them and how they ended. The plan's keep tokens fresh; a caller's are misses.",
        "reqps", PLAIN,
        Ask(seen("jeton_refreshes_total", "jeton_refresh_cause, jeton_refresh_outcome"),
        "{{jeton_refresh_cause}} {{jeton_refresh_outcome}}"), stack=True, none="nothing is asked for"),
    lines("How late refreshes begin", """After the planned moment. Minutes: the budget is too small, or requests are held back: see
        Authorities.""", "s",
        high(60, 300), *quantiles("jeton_refresh_delay_seconds"), none="nothing was refreshed"),
    lines("Failing slots", "Slots whose last request for a token failed. `jeton status` names them, with the authority's words.",
        "none", PLAIN,
        Ask("sum by (instance) (jeton_slots_failing{here})", "{{instance}}")),
]

ASSERTIONS = [
    lines("Assertions signed ahead", "Ready, and being signed. Its bound is `keys.max_presigned`.", "none", PLAIN,
        Ask("sum by (jeton_assertion_state) (jeton_assertions_pooled{here})", "{{jeton_assertion_state}}"), stack=True),
    lines("Assertions spent", """Handed out to be sent: from the pool, or signed while somebody waited. Few from the pool: its bound
        is too small, or callers ask for what is cold.""",
        "ops", PLAIN, Ask("sum by (jeton_assertion_source) (rate(jeton_assertions_spent_total{here}[rate]))", "{{jeton_assertion_source}}"),
        Ask("sum(rate(jeton_assertions_expired_unused_total{here}[rate]))", "expired unused")),
    lines("How long signing takes", """The wait for a thread included. Long: the signing threads are behind, see
        `keys.signing_threads`; or the processor is busy.""",
        "s", PLAIN, *quantiles("jeton_assertion_signing_duration_seconds", parts=HALVES), none="nothing was signed", log=True),
]

LIMITS = [
    bars("Refusals by limit, in this time", """Callers that were over a limit of their own, or met one of the whole broker. Raise a
        caller's limit on its role assignment, or `[engine]`; or have the caller keep its tokens.""",
        "none", high(1), Ask("sum by (jeton_limit) (increase(jeton_quota_refusals_total{here}[$__range]))",
        "{{jeton_limit}}"), width=8, decimals=0),
    lines("Refusals by limit", """When it was. A burst is a caller that starts without keeping tokens; a plateau is a limit that is
        too low.""", "reqps", PLAIN,
        Ask(seen("jeton_quota_refusals_total", "jeton_limit"), "{{jeton_limit}}"), none="nobody was refused"),
    number("Alarms", "What needs an operator while the broker goes on. `jeton status` names each with what to do.", "none", high(1),
        Ask("sum(jeton_alarms{here})"), width=4, height=8),
    number("Dropped writes", """Writes of tokens, in this time, that the store could not follow: they are asked for anew after a
        restart. The disk of the data directory is too slow.""",
        "none", high(1), Ask("sum(increase(jeton_store_dropped_writes_total{here}[$__range]))"), width=4, height=8, decimals=0),
]

AUDIT = [
    lines("Age of what is not on disk", """Of the oldest event of the audit log. Above some seconds: the disk is slow, full or gone;
        changes are refused meanwhile.""",
        "s", high(5, 30), Ask("max by (instance) (jeton_audit_lag_seconds{here})", "{{instance}}"), width=6),
    lines("Events that wait for the disk", "Its bound is `audit.max_queued`; beyond it events are lost.", "none", PLAIN,
        Ask("sum by (instance) (jeton_audit_queued{here})", "{{instance}}"), width=6),
    lines("Events written", "Standing still while tokens are served: see the age of what is not on disk.", "ops", PLAIN,
        Ask("sum by (instance) (rate(jeton_audit_written_total{here}[rate]))", "{{instance}}"), width=6),
    number("Events lost", """In this time. Any is a gap in the audit log, which the log names: find out why the disk did not follow.""",
        "none", high(1),
        Ask("sum(increase(jeton_audit_lost_total{here}[$__range]))"), width=6, height=8, decimals=0),
]

ROWS = [("Tokens in memory", MEMORY), ("Refreshes", REFRESHES), ("Assertions", ASSERTIONS), ("Limits and alarms", LIMITS),
("Audit log", AUDIT)]
