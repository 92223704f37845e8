"""Authorities: what they answer, how fast, and how much they may be asked."""

from panels import MINUTES, PLAIN, STARVATION, Ask, bars, high, lines, number, quantile, seen, share

UID = "jeton-authorities"
TITLE = "Jeton / Authorities"
ABOUT = "Authorities: what they answer, how fast, and how much they may be asked."
ALSO = ("authority",)

TOKENS = '{at, jeton_authority_operation="token"}'
CALLS = "jeton_authority_call_duration_seconds"
SENT = "jeton_refreshes_total{at, jeton_refresh_outcome"

NOW = [
    number("Unanswered", """The part of calls that got no answer: the network, its firewall or proxy, or a time-out in the profile.""",
        "percentunit",
        high(0.05, 0.5), Ask(share(f'{CALLS}_count{{at, jeton_authority_status_class="none"}}', f"{CALLS}_count{{at}}")),
        none="none is asked", width=4, decimals=1),
    number("Refused", """The part of requests for tokens that the authority did not answer with one. What kind it is: Outcomes,
        below.""", "percentunit",
        high(0.05, 0.5), Ask(share(f'{SENT}=~"transient|throttled|permanent|credential"}}', f'{SENT}!~"denied|held|over_budget"}}')),
        none="none is asked", width=4, decimals=1),
    number("Longest retry-after", """What is left of the longest Retry-After in force. Longer than the time to starvation: callers
        will go without.""", "s",
        high(1, 60), Ask("max(jeton_authority_retry_after_seconds{at})"), width=4),
    number("Held identities", """Identities that must not ask before a Retry-After is over. Nothing to mend here: see who asks for
        so much.""", "none",
        high(1, 100), Ask("sum(jeton_authority_held_identities{at})"), width=4),
    number("Budget in use", "Of the authority that is nearest to its budget. At 100 % callers and refreshes stand in line.",
        "percentunit", high(0.7, 0.9),
        Ask("max(jeton_authority_budget_utilization_ratio{at})"), width=4, decimals=0),
    number("First caller without a token in", "The least life left among tokens whose refresh fails at these authorities.",
        "s", STARVATION,
        Ask("min(jeton_slots_time_to_starvation_seconds{at})"), none="no refresh fails", width=4),
]

ANSWERS = [
    lines("Calls by answer", """2xx is well. 4xx of requests for tokens: credentials, rights or throttling; of registrations: the
        registrar's rights. 5xx: the authority. None: the network, or a time-out in the profile.""", "reqps", PLAIN,
        Ask(seen(f"{CALLS}_count", "jeton_authority_status_class", "{at}"), "{{jeton_authority_status_class}}"), stack=True,
        none="none is asked"),
    lines("Outcomes of requests for tokens", """Issued is well. Transient and throttled are tried again by themselves. Permanent and
        credential need somebody. Denied: our own access rules. Held and over budget were not sent.""", "reqps", PLAIN,
        Ask(seen("jeton_refreshes_total", "jeton_refresh_outcome", "{at}"), "{{jeton_refresh_outcome}}"), stack=True, none="none is asked"),
    lines("Who wanted the token", """Plan: tokens that are kept fresh ahead of their end. Caller: somebody waited. Many callers:
        their tokens are not kept warm, or refreshes fail.""",
        "reqps", PLAIN, Ask("sum by (jeton_refresh_cause) (rate(jeton_refreshes_total{at}[rate]))", "{{jeton_refresh_cause}}"), stack=True),
    lines("Failing slots, by authority", """Slots whose last request for a token failed. `jeton status` names them, with the
        authority's words.""", "none", PLAIN,
        Ask("sum by (jeton_authority) (jeton_slots_failing{at})", "{{jeton_authority}}")),
    lines("Starvation and retry-after", """How long tokens whose refresh fails are still served, beside how long the authority wants
        to be left alone. Where retry-after is above, callers will go without.""", MINUTES, PLAIN,
        Ask("min by (jeton_authority) (jeton_slots_time_to_starvation_seconds{at}) / 60", "{{jeton_authority}} served for"),
        Ask("max by (jeton_authority) (jeton_authority_retry_after_seconds{at}) / 60", "{{jeton_authority}} retry-after")),
    lines("Calls by operation", """Requests for tokens, revocations (RFC 7009), and calls that register, change or remove clients.""",
        "reqps", PLAIN,
        Ask(seen(f"{CALLS}_count", "jeton_authority_operation", "{at}"), "{{jeton_authority_operation}}"), none="none is asked"),
]

SPEED = [
    lines("How long requests for tokens take, p50", "By authority, whatever was answered. This is what a miss costs its caller.",
        "s", high(1, 5),
        Ask(quantile("0.5", CALLS, "jeton_authority", TOKENS), "{{jeton_authority}}"), none="none is asked"),
    lines("The same, p99", "The slow ones. Near the profile's time-out the next thing are calls without an answer.",
        "s", high(1, 5),
        Ask(quantile("0.99", CALLS, "jeton_authority", TOKENS), "{{jeton_authority}}"), none="none is asked"),
    lines("How long other calls take, p99", """Registrations and revocations. Slow ones slow down rotations and bulk loads, and no
        caller.""", "s", high(5, 20),
        Ask(quantile("0.99", CALLS, "jeton_authority, jeton_authority_operation", '{at, jeton_authority_operation!="token"}'),
            "{{jeton_authority}} {{jeton_authority_operation}}"), none="none is made"),
]

BUDGETS = [
    lines("Requests that may be sent", """The budget. It halves when the authority throttles and grows back within 20 s; saw teeth
        are an authority that throttles at a rate below the profile's. Set that rate in the profile.""", "reqps", PLAIN,
        Ask("min by (jeton_authority) (jeton_authority_budget_rate_per_second{at})", "{{jeton_authority}}")),
    lines("Budget in use, by authority", """At 100 % callers and refreshes stand in line. Long there without throttling: the profile
        allows too little.""", "percentunit",
        high(0.7, 0.9), Ask("max by (jeton_authority) (jeton_authority_budget_utilization_ratio{at})", "{{jeton_authority}}"), most=1),
    lines("Requests under way", "Its bound is `max_concurrent` of the profile. It grows with how long an authority takes.",
        "none", PLAIN,
        Ask("sum by (jeton_authority) (jeton_authority_active_requests{at})", "{{jeton_authority}}")),
    bars("Held identities, by authority", "Identities that must not ask before a Retry-After is over.", "none", high(1, 100),
        Ask("sum by (jeton_authority) (jeton_authority_held_identities{at})", "{{jeton_authority}}"), width=8),
    lines("How late refreshes begin", """p95 after the planned moment. Seconds are well: tokens are refreshed at half of their life.
        Minutes: the budget is too small for the tokens, or requests are held back.""", "s", high(60, 300),
        Ask(quantile("0.95", "jeton_refresh_delay_seconds", "jeton_authority", "{at}"), "{{jeton_authority}}"),
        none="nothing was refreshed"),
    lines("Not sent", "Held: inside a Retry-After. Over budget: no permit in time. Their callers were told to come again.",
        "reqps", PLAIN,
        Ask(seen("jeton_refreshes_total", "jeton_authority, jeton_refresh_outcome", '{at, jeton_refresh_outcome=~"held|over_budget"}'),
            "{{jeton_authority}} {{jeton_refresh_outcome}}"), none="all was sent"),
]

ROWS = [("Now", NOW), ("Answers", ANSWERS), ("Speed", SPEED), ("Budgets and throttling", BUDGETS)]
