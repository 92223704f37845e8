"""Which identity is about to run out of tokens, why, and what to do: on one look."""

from panels import DAY, DAYS, EXPIRY, MINUTES, PLAIN, RUNBOOK, STARVATION, STARVATION_MINUTES, Ask, Column
from panels import bars, high, lines, low, number, quantile, quantiles, seen, share, table, words

UID = "jeton-overview"
TITLE = "Jeton / Overview"
ABOUT = "Which identity is about to run out of tokens, why, and what to do."
ALSO = ()

GET_TOKEN = '{here, rpc_method="jeton.v1.TokenService/GetToken"}'
ASKED = "jeton_token_lookups_total{here, jeton_lookup_result"
SENT = "jeton_refreshes_total{here, jeton_refresh_outcome"
CALLS = "jeton_authority_call_duration_seconds_count{here"
CHOSEN = "${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${__url_time_range}"
TO_IDENTITY = ("What is known of it", "/d/jeton-identities?var-identity=${__value.text}&" + CHOSEN)
TO_RUNBOOK = ("What to do", RUNBOOK + "#${__value.text}")
TO_AUTHORITY = ("What it answers", "/d/jeton-authorities?var-authority=${__value.text}&" + CHOSEN)

WHAT_TO_DO = """\
1. **Which**: the table of identities, the shortest first. `jeton status` on the node lists the tokens behind it.
2. **Why**: `jeton identity get NAME` has the authority's own words. The table of authorities tells one identity's trouble from
   everybody's: *unanswered* is the network or the authority, *retry-after* is throttling, *failing* with neither is a credential or a right.
3. **What**: the runbook (above) has a section for each alert.

Until *served for* is over, callers get their tokens. Do not restart a broker: it makes no authority answer.
"""

NOW = [
    number("Brokers up", """Brokers that Prometheus reaches, of those it knows. Fewer: look at the missing one's `/readyz` and log;
        a broker that is down serves nobody on its node, and callers live on what they keep.""",
        "percentunit", low(1), Ask("avg(up{here})"), none="not scraped", width=3),
    number("First caller without a token in", """The least life left among tokens whose refresh fails: so long there is to mend it
        before somebody gets nothing. Zero: that has happened. Its identity is first in the table below.""", "s", STARVATION,
        Ask("min(jeton_slots_time_to_starvation_seconds{here})"), none="no refresh fails", width=4),
    number("Failing", """Slots whose last request for a token failed, those that nobody waits for included. The table of authorities
        says at which; `jeton status` names them.""", "none", high(1, 50), Ask("sum(jeton_slots_failing{here})")),
    number("Waiting", """Callers that wait for an authority right now. Many: it is slow or down, or callers ask for what was never
        asked for before.""",
        "none", high(100, 1000), Ask("sum(jeton_token_waiting_callers{here})")),
    number("From memory", """The part of tokens that came from memory in the last minutes. Little: callers ask for ever new targets,
        or tokens have run out.""", "percentunit", low(0.9, 0.99), Ask(share(f'{ASKED}=~"fresh|stale"}}', f'{ASKED}!="denied"}}')),
        none="nobody asks", decimals=2),
    number("Next expiry", """The time to the end of the certificate or secret that ends first. Below two weeks a rotation fails, or
        an attached credential must be replaced: see Identities.""",
        DAYS, EXPIRY, Ask(f"min(jeton_credential_time_to_expiry_seconds{{here}}) / {DAY}"),
        none="no credentials", width=4, decimals=1),
    number("Alarms", "What needs an operator while the broker goes on. `jeton status` names each with what to do.", "none", high(1),
        Ask("sum(jeton_alarms{here})"), width=2),
    number("Alerts", "Alerts of deploy/prometheus that fire, for any broker. They are listed below.", "none", high(1),
        Ask('count(ALERTS{alertname=~"Jeton.*", alertstate="firing"}) or vector(0)'), width=2),
]

WHO_AND_WHY = [
    table("Identities that run out of tokens", """How long tokens are still served of the identities that are worst off, and of
        those that `telemetry.named_identities` names while their refresh fails. `jeton identity get` says what the authority
        answers.""",
        {"jeton_identity": "Identity", "instance": "Broker"},
        Ask("min by (jeton_identity, instance) (jeton_identity_time_to_starvation_seconds{here})", "Served for"),
        columns=[Column("Served for", "s", STARVATION, width=110), Column("Identity", link=TO_IDENTITY)],
        none="No identity's refresh fails.",
        sort="Served for", width=9, height=9),
    table("Authorities", """Why. Served for: the least life left where a refresh fails. Failing: slots. Refused: the part of
        requests for tokens that brought none. Unanswered: the part of calls without any answer. Retry-after: the longest in force.
        Budget: the part in use; at 100 % callers stand in line.""",
        {"jeton_authority": "Authority"},
        Ask("min by (jeton_authority) (jeton_slots_time_to_starvation_seconds{here})", "Served for"),
        Ask("sum by (jeton_authority) (jeton_slots_failing{here})", "Failing"),
        Ask(share(f'{SENT}=~"transient|throttled|permanent|credential"}}', f'{SENT}!~"denied|held|over_budget"}}',
        "jeton_authority"), "Refused"),
        Ask(share(f'{CALLS}, jeton_authority_status_class="none"}}', f"{CALLS}}}", "jeton_authority"), "Unanswered"),
        Ask("max by (jeton_authority) (jeton_authority_retry_after_seconds{here})", "Retry-after"),
        Ask("max by (jeton_authority) (jeton_authority_budget_utilization_ratio{here})", "Budget"),
        columns=[
            Column("Authority", link=TO_AUTHORITY), Column("Served for", "s", STARVATION, width=100), Column("Failing", "none",
            high(1, 50), width=80),
            Column("Refused", "percentunit", high(0.05, 0.5), width=85), Column("Unanswered", "percentunit", high(0.01, 0.1), width=100),
            Column("Retry-after", "s", high(1, 60), width=100), Column("Budget", "percentunit", high(0.7, 0.9), width=80)],
        none="No authority is registered.", sort="Failing", descending=True, width=15, height=9),
    words("What to do", "Where to look, in this order.", WHAT_TO_DO, width=9, height=8),
    table("Alerts that fire", "Alerts of deploy/prometheus, for any broker. The runbook has a section for each name.",
        {"alertname": "Alert", "severity": "Severity", "instance": "Broker", "jeton_authority": "Authority"},
        Ask('count by (alertname, severity, instance, jeton_authority) (ALERTS{alertname=~"Jeton.*", alertstate="firing"})'),
        columns=[Column("Severity", width=90), Column("Alert", link=TO_RUNBOOK)],
        none="No alert fires, or deploy/prometheus is not loaded.", sort="Severity", width=15, height=8),
]

CALLERS = [
    lines("Tokens asked for", """Look-ups a second. Fresh and stale came from memory; a miss waited for an authority; a denied one
        was not allowed. Many stale ones: refreshes fail or come late. Many misses: callers ask for ever new targets.""",
        "reqps", PLAIN,
        Ask("sum by (jeton_lookup_result) (rate(jeton_token_lookups_total{here}[rate]))", "{{jeton_lookup_result}}"), stack=True),
    lines("How long a token takes", """GetToken, at the broker. Hits take below 0.1 ms; what is above 10 ms waited for an authority.
        If p50 leaves the hits' place, the broker has not enough processor, or is not warm.""", "s", PLAIN,
        *quantiles("rpc_server_call_duration_seconds", GET_TOKEN), none="nobody asks", log=True),
    lines("Calls that failed", """gRPC calls that were not OK. UNAVAILABLE and DEADLINE_EXCEEDED: an authority. PERMISSION_DENIED
        and UNAUTHENTICATED: the caller (see Doors). RESOURCE_EXHAUSTED: a limit (see Engine). INTERNAL: the log.""",
        "reqps", PLAIN,
        Ask(seen("rpc_server_call_duration_seconds_count", "rpc_response_status_code", '{here, rpc_response_status_code!="OK"}'),
            "{{rpc_response_status_code}}"), none="no call failed"),
    lines("Time to starvation, by authority", """The least life left among tokens whose refresh fails. A line that falls steadily:
        nothing is being refreshed,
        and where it meets zero callers go without. One that ends: it was mended.""", MINUTES, STARVATION_MINUTES,
        Ask("min by (jeton_authority) (jeton_slots_time_to_starvation_seconds{here}) / 60", "{{jeton_authority}}"),
        none="no refresh fails"),
    lines("Requests for tokens that brought none", """By outcome. Transient: no answer or a 5xx, tried again. Throttled: the
        authority asks for less. Permanent and credential: somebody must act, `jeton status` says what. Denied, held and over budget
        were not sent.""", "reqps", PLAIN,
        Ask(seen("jeton_refreshes_total", "jeton_refresh_outcome", '{here, jeton_refresh_outcome!="issued"}'),
        "{{jeton_refresh_outcome}}"),
        none="every request brought a token", stack=True),
    lines("How long authorities take", """p99 of requests for tokens, whatever was answered. Slow ones make misses slow; hits do not
        notice.""", "s", high(1, 5),
        Ask(quantile("0.99", "jeton_authority_call_duration_seconds", "jeton_authority", '{here, jeton_authority_operation="token"}'),
            "{{jeton_authority}}"), none="no authority is asked"),
]

PROMISES = [
    bars("Error budget in use", """The part of requests for tokens that failed by no fault of the caller, over what the objective
        allows (0.1 %): at 100 % the month's budget is used as fast as it comes, at 1,440 % within two days. By the recording rules
        of deploy/prometheus.""",
        "percentunit", high(1, 6),
        *[Ask(f"max(jeton:token_errors:ratio_rate{over}{{here}}) / 0.001", over) for over in ("5m", "30m", "1h", "6h")],
        none="deploy/prometheus is not loaded", width=8, height=6),
    lines("Tokens that failed", """The part of requests for tokens that failed by no fault of the caller. The objective is below 0.1
        %.""", "percentunit",
        high(0.001), Ask("max by (instance) (jeton:token_errors:ratio_rate5m{here})", "{{instance}}"),
        none="deploy/prometheus is not loaded", height=6),
    lines("Hits that were slow", """The part of answers over 5 ms although no authority was asked. The objective is below 1 %.
        Above: not enough processor, see Doors.""",
        "percentunit", high(0.01), Ask("max by (instance) (jeton:token_hits_slow:ratio_rate5m{here})", "{{instance}}"),
        none="deploy/prometheus is not loaded", height=6),
]

ROWS = [("Now", NOW), ("Who, and why", WHO_AND_WHY), ("Callers and authorities", CALLERS), ("Objectives", PROMISES)]
