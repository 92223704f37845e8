"""Identities and what proves them: which run out of tokens, which credentials end, how rotations get on."""

from panels import DAY, DAYS, EXPIRY, MINUTES, PLAIN, STARVATION, STARVATION_MINUTES, Ask, Column
from panels import bars, high, held, lines, number, quantile, seen, table

UID = "jeton-identities"
TITLE = "Jeton / Identities"
ABOUT = "Identities and what proves them: which run out of tokens, which credentials end, how rotations get on."
ALSO = ("authority", "identity")

ONE = '{here, jeton_identity=~"$identity"}'

STATES = [
    number("Active", "Identities that serve tokens.", "none", PLAIN, Ask('sum(jeton_identities{here, jeton_identity_state="active"})')),
    number("Failed", """Identities whose provisioning or deletion came to an end that no retry helps. `jeton status` names them and
        says why.""", "none",
        high(1), Ask('sum(jeton_identities{here, jeton_identity_state="failed"})')),
    number("Failed operations", """Provisionings, rotations, verifications and deletions with an error that no retry helps. Their
        identities are in `jeton status`; after the cause is mended, `jeton identity rotate` or delete and create again.""",
        "none", high(1),
        Ask('sum(jeton_operations{here, jeton_operation_state="failed"})')),
    number("Retrying", """Operations that failed and are tried again. One that stays here for an hour needs the authority's words:
        `jeton status`.""", "none",
        high(1, 20), Ask('sum(jeton_operations{here, jeton_operation_state="retrying"})')),
    number("Pending credentials", """New credentials that have not proved themselves yet. Ones that stay are rotations that do not
        get on.""", "none",
        high(20), Ask('sum(jeton_credentials{here, jeton_credential_state="pending"})')),
    number("Suspected orphans", """Clients that may be left at authorities because an answer was lost. `jeton status` lists them;
        remove them there by hand.""", "none", high(1), Ask("sum(jeton_lifecycle_suspected_orphans{here})")),
    number("Next expiry", "The time to the end of the current credential that ends first. The table below has its identity.",
        DAYS, EXPIRY,
        Ask(f"min(jeton_credential_time_to_expiry_seconds{{at}}) / {DAY}"), none="no credentials", decimals=1),
    number("Oldest credential", """The age of the oldest current credential. Far above `lifecycle.rotation.after_seconds`: a
        rotation fails, or it is an attached one, which nobody rotates.""",
        DAYS, high(60, 85), Ask(f"max(jeton_credential_age_seconds{{at}}) / {DAY}"), none="no credentials", decimals=1),
]

WORST = [
    table("Identities that run out of tokens", """How long tokens are still served of the identities that are worst off, and of the
        named ones while their refresh fails. Zero: callers get nothing. `jeton identity get NAME` says what the authority answers.""",
        {"jeton_identity": "Identity", "instance": "Broker"},
        Ask(f"min by (jeton_identity, instance) (jeton_identity_time_to_starvation_seconds{ONE})", "Served for"),
        columns=[Column("Served for", "s", STARVATION)], none="No identity's refresh fails.", sort="Served for"),
    table("Credentials that end first", """Of the identities whose credentials end first, and of the named ones. Created identities:
        `jeton identity rotate NAME`. Attached ones: bring a new credential, `jeton identity attach`.""",
        {"jeton_identity": "Identity", "instance": "Broker"},
        Ask(f"min by (jeton_identity, instance) (jeton_identity_credential_time_to_expiry_seconds{ONE}) / {DAY}", "Ends in"),
        columns=[Column("Ends in", DAYS, EXPIRY)], none="No identity has a credential.", sort="Ends in"),
    lines("Time to starvation, by identity", """How the tokens of the worst identities ran down. A line that begins again higher was
        refreshed at last. With many lines, choose one above.""",
        MINUTES, STARVATION_MINUTES, Ask(f"min by (jeton_identity) (jeton_identity_time_to_starvation_seconds{ONE}) / 60",
        "{{jeton_identity}}"),
        none="no identity's refresh fails", width=12, height=9),
    lines("Time to the end of credentials, by authority", """Saw teeth are rotations. A line that falls below two weeks: rotations
        fail at that authority, most often because the registrar lost a right.""",
        DAYS, EXPIRY, Ask(f"min by (jeton_authority) (jeton_credential_time_to_expiry_seconds{{at}}) / {DAY}", "{{jeton_authority}}"),
        none="no credentials", width=12, height=9),
]

LIVES = [
    bars("Identities by state", """Failed ones need somebody: `jeton status`. Many provisioning or deleting: a bulk load, which goes
        at the authority's pace.""",
        "none", PLAIN, Ask("sum by (jeton_identity_state) (jeton_identities{here})", "{{jeton_identity_state}}"), height=8),
    bars("Credentials", """Pending and overlap are those of rotations under way: the new one before it proved itself, the old one
        after.""", "none", PLAIN,
        Ask("sum by (jeton_credential_kind, jeton_credential_state) (jeton_credentials{here})",
        "{{jeton_credential_kind}} {{jeton_credential_state}}"), height=8),
    lines("Operations under way", """Running ones come and go. Retrying ones failed at least once; failed ones stay until somebody
        acts.""", "none", PLAIN,
        Ask(held("jeton_operations", "jeton_operation, jeton_operation_state"), "{{jeton_operation}} {{jeton_operation_state}}"),
        none="no operation is under way", width=12),
]

ROTATIONS = [
    lines("Steps that were done", """Key made, registered, verified by a real grant, switched, and of rotations overlapped and
        removed. A step that stands still while the one before goes on is where things hang.""", "ops", PLAIN,
        Ask('sum by (jeton_lifecycle_step) (rate(jeton_lifecycle_steps_total{here, jeton_lifecycle_outcome="done"}[rate]))',
        "{{jeton_lifecycle_step}}")),
    lines("Steps that failed", """Each is tried again. Unauthorized: the registrar lost a right. Transient, unknown: the authority
        did not answer, or not clearly. Permanent: `jeton status`. Audit unavailable, not written down: the disk.""", "ops", PLAIN,
        Ask(seen("jeton_lifecycle_steps_total", "jeton_lifecycle_step, jeton_lifecycle_outcome",
        '{here, jeton_lifecycle_outcome!="done"}'),
            "{{jeton_lifecycle_step}} {{jeton_lifecycle_outcome}}"), none="no step failed"),
    lines("How long steps take", """p95 of a try. Registered and verified wait for the authority, the others for the disk and the
        processor.""", "s", PLAIN,
        Ask(quantile("0.95", "jeton_lifecycle_step_duration_seconds", "jeton_lifecycle_step"), "{{jeton_lifecycle_step}}"),
        none="no step was tried", log=True),
    lines("Age of the oldest credential", "By authority. Far above `lifecycle.rotation.after_seconds`: a rotation fails there.",
        DAYS,
        high(60, 85), Ask(f"max by (jeton_authority) (jeton_credential_age_seconds{{at}}) / {DAY}", "{{jeton_authority}}"),
        none="no credentials"),
    lines("Failing slots", """Slots whose last request for a token failed. All of one authority: see Authorities. A few: a
        credential or a right of theirs.""", "none",
        PLAIN, Ask("sum by (jeton_authority) (jeton_slots_failing{at})", "{{jeton_authority}}")),
    lines("Requests that somebody must act on", """Permanent: the authority says no to what is asked. Credential: it does not take
        the proof any more; if that began with a rotation, `jeton identity rotate` again.""", "reqps", PLAIN,
        Ask(seen("jeton_refreshes_total", "jeton_authority, jeton_refresh_outcome",
        '{at, jeton_refresh_outcome=~"permanent|credential"}'),
            "{{jeton_authority}} {{jeton_refresh_outcome}}"), none="no authority said no"),
]

ROWS = [("Now", STATES), ("The worst", WORST), ("Lives", LIVES), ("Rotations and refusals", ROTATIONS)]
