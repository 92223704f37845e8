//! The one table of what is told. `docs/metrics.md` is made of it.

use crate::{Attribute, Instrument, Kind, Values};

const fn of(key: &'static str, values: &'static [&'static str]) -> Attribute {
    Attribute { key, values: Values::Of(values), optional: false }
}

const fn bounded(key: &'static str, by: &'static str) -> Attribute {
    Attribute { key, values: Values::Bounded(by), optional: false }
}

const AUTHORITY: Attribute =
    bounded("jeton.authority", "the name of an authority; `_other` beyond the first thousand");
const IDENTITY: Attribute = bounded(
    "jeton.identity",
    "the name of an identity, of those that are named in the configuration and the worst few",
);
const DOOR: Attribute = bounded("jeton.door", "the name of a listener, as in the log");
const RPC_METHOD: Attribute =
    bounded("rpc.method", "the full name of a method of the API, or `_OTHER` for what is none");
const CODE: Attribute = of(
    "rpc.response.status_code",
    &[
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ],
);
const RPC_ERROR: Attribute = Attribute {
    key: "error.type",
    values: Values::Of(&[
        "UNKNOWN",
        "DEADLINE_EXCEEDED",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
    ]),
    optional: true,
};
const HTTP_METHOD: Attribute = of("http.request.method", &["GET", "POST", "PUT", "HEAD", "_OTHER"]);
const HTTP_STATUS: Attribute = bounded(
    "http.response.status_code",
    "a status that the listeners answer with; not more than 100 of them",
);
const HTTP_ERROR: Attribute =
    Attribute { key: "error.type", values: Values::Bounded("a status from 500 on"), optional: true };
const OUTCOME: Attribute = of(
    "jeton.refresh.outcome",
    &["issued", "transient", "throttled", "permanent", "credential", "denied", "held", "over_budget"],
);
const STEP: Attribute =
    of("jeton.lifecycle.step", &["key_made", "registered", "verified", "switched", "overlapped", "removed"]);
const STEP_OUTCOME: Attribute = of(
    "jeton.lifecycle.outcome",
    &[
        "done",
        "transient",
        "unknown",
        "permanent",
        "unauthorized",
        "unmanageable",
        "inside",
        "not_written_down",
        "audit_unavailable",
    ],
);
const OPERATION: Attribute = of("jeton.operation", &["provision", "attach", "rotate", "verify", "delete"]);
const AUTHENTICATION: Attribute = of(
    "jeton.authentication.failure",
    &["place", "handshake", "missing", "expired", "withdrawn", "malformed", "token", "unavailable"],
);
const DENIAL: Attribute = of(
    "jeton.denial",
    &[
        "unknown_identity",
        "no_assignment",
        "target_not_granted",
        "expired",
        "identity_not_active",
        "no_system_identity",
        "not_permitted",
        "role_not_given",
        "given_to_itself",
        "secret_not_shown",
        "sealing_not_given",
    ],
);
const LIMIT: Attribute = of(
    "jeton.limit",
    &[
        "misses_per_second",
        "forced_refreshes_per_minute",
        "max_watches_per_caller",
        "max_waiting_per_caller",
        "broker",
    ],
);

macro_rules! instruments {
    ($($id:ident: $kind:ident $name:literal $unit:literal [$($attribute:expr),*] $says:literal $advice:literal;)*) => {
        /// Each by itself, for whoever fills in its values.
        pub mod instrument {
            use super::*;
            $(
                #[doc = $says]
                pub static $id: Instrument = Instrument {
                    name: $name,
                    kind: Kind::$kind,
                    unit: $unit,
                    attributes: &[$($attribute),*],
                    says: $says,
                    advice: $advice,
                };
            )*
        }

        /// All that can be told.
        pub static INSTRUMENTS: &[&Instrument] = &[$(&instrument::$id),*];
    };
}

instruments! {
    RPC_DURATION: Histogram "rpc.server.call.duration" "s" [of("rpc.system.name", &["grpc"]), RPC_METHOD, CODE, RPC_ERROR]
        "How long calls took at the gRPC listeners, from the headers to the end of the answer; a token from memory: to the end of the turn of its connection in which it was read."
        "Hits are below 0.1 ms. A second hump is callers that wait for authorities: see `jeton.authority.call.duration`.";
    HTTP_DURATION: Histogram "http.server.request.duration" "s" [HTTP_METHOD, of("url.scheme", &["http", "https"]), HTTP_STATUS, HTTP_ERROR, DOOR]
        "How long requests took at the listeners of HTTP/1.1: the endpoints of SDKs and this one." "401 and 403 are callers that lack a proof, 503 those that waited in vain; the log says which.";

    LOOKUPS: Counter "jeton.token.lookups" "{lookup}" [of("jeton.lookup.result", &["fresh", "stale", "miss", "denied"])]
        "Tokens that were asked for: `fresh` and `stale` came from memory, `miss` had to be asked for, `denied` was not allowed."
        "Many stale ones: refreshes fail, or come late (`jeton.refreshes`). Many misses: callers ask for ever new targets.";
    WAITING: UpDownCounter "jeton.token.waiting_callers" "{caller}" []
        "Callers that wait for an authority." "It grows when one is slow or down; its bound is engine.max_waiters.";
    WATCHES: UpDownCounter "jeton.token.watches" "{watch}" [] "Tokens that are watched." "Its bound is engine.max_watches.";
    SLOTS: UpDownCounter "jeton.slots" "{slot}" [of("jeton.slot.state", &["fresh", "stale", "expired", "empty"])]
        "Places for tokens in memory, by where their tokens are in their life."
        "`expired` and `empty` ones that somebody asks for cost a wait.";
    SLOT_BYTES: Gauge "jeton.slots.memory" "By" [] "What the slots hold, by the engine's own count." "Its bound is engine.max_bytes.";
    FAILING: UpDownCounter "jeton.slots.failing" "{slot}" [AUTHORITY]
        "Slots whose last request for a token failed." "`jeton status` names them, with the authority's words.";
    STARVATION: Gauge "jeton.slots.time_to_starvation" "s" [AUTHORITY]
        "The least life, to the moment from which it is not served any more, among the tokens whose refresh fails; no series where none does."
        "So long there is to mend the authority before the first caller gets nothing. Zero: that has happened.";
    IDENTITY_STARVATION: Gauge "jeton.identity.time_to_starvation" "s" [IDENTITY]
        "The same of single identities: of those that are named, and of the worst." "`jeton identity get` says what its authority answers.";
    REFRESHES: Counter "jeton.refreshes" "{refresh}" [AUTHORITY, of("jeton.refresh.cause", &["caller", "plan"]), OUTCOME]
        "Requests for tokens, by who wanted them (a caller that waited, or the plan that keeps tokens fresh) and how they ended; `held` and `over_budget` were not sent."
        "`permanent` and `credential` need somebody: `jeton status` says what. `throttled` and `over_budget`: the authority's limits in its profile are too high or too low.";
    REFRESH_DELAY: Histogram "jeton.refresh.delay" "s" [AUTHORITY]
        "How much later than planned the refresh of a token was begun."
        "Minutes: the budget is too small for the tokens, or requests are held back by Retry-After.";
    DROPPED_WRITES: Counter "jeton.store.dropped_writes" "{write}" []
        "Writes of tokens that the store could not follow; they are asked for anew after a restart." "The disk of the data directory is too slow.";

    AUTHORITY_CALLS: Histogram "jeton.authority.call.duration" "s" [AUTHORITY, of("jeton.authority.operation", &["token", "revocation", "registration"]), of("jeton.authority.status_class", &["2xx", "3xx", "4xx", "5xx", "none"])]
        "How long calls to authorities took, by the class of their status; `none`: no answer came." "`4xx` of registrations: the registrar's rights. `none`: the network, or a time-out in the profile.";
    BUDGET_RATE: Gauge "jeton.authority.budget.rate" "{request}/s" [AUTHORITY]
        "Requests for tokens that the authority may be sent now." "It halves when the authority throttles, and grows back within 20 s.";
    BUDGET_USED: Gauge "jeton.authority.budget.utilization" "1" [AUTHORITY]
        "The part of the budget that is used up." "At 1 callers and refreshes stand in line.";
    AUTHORITY_ACTIVE: UpDownCounter "jeton.authority.active_requests" "{request}" [AUTHORITY] "Requests for tokens under way." "Its bound is max_concurrent of the profile.";
    HELD: UpDownCounter "jeton.authority.held_identities" "{identity}" [AUTHORITY]
        "Identities that must not ask before a Retry-After is over." "The authority throttles: see `jeton.refreshes`.";
    RETRY_AFTER: Gauge "jeton.authority.retry_after" "s" [AUTHORITY]
        "What is left of the longest Retry-After in force; zero: none is." "Longer than `jeton.slots.time_to_starvation`: callers will go without.";

    POOLED: UpDownCounter "jeton.assertions.pooled" "{assertion}" [of("jeton.assertion.state", &["ready", "coming"])]
        "Assertions that were signed ahead, and those being signed." "Its bound is keys.max_presigned.";
    SIGNING: Histogram "jeton.assertion.signing.duration" "s" [] "How long the signing of an assertion took, the wait for a thread included."
        "Long: the signing threads are behind; see keys.signing_threads.";
    SPENT: Counter "jeton.assertions.spent" "{assertion}" [of("jeton.assertion.source", &["pool", "signed"])]
        "Assertions that were handed out to be sent: from the pool, or signed while somebody waited." "Few from the pool: its bound is too small, or callers ask for what is cold.";
    EXPIRED: Counter "jeton.assertions.expired_unused" "{assertion}" [] "Assertions that were signed ahead for nothing." "Many: refreshes are held back by budgets or Retry-After.";

    IDENTITIES: UpDownCounter "jeton.identities" "{identity}" [of("jeton.identity.state", &["provisioning", "active", "disabled", "deleting", "failed"])]
        "Identities." "`failed` ones need somebody: `jeton status`.";
    CREDENTIALS: UpDownCounter "jeton.credentials" "{credential}" [of("jeton.credential.kind", &["certificate", "secret"]), of("jeton.credential.state", &["pending", "current", "overlap"])]
        "Credentials of identities; `pending` and `overlap` ones are those of rotations under way." "`pending` ones that stay are rotations that do not get on.";
    CREDENTIAL_AGE: Gauge "jeton.credential.age" "s" [AUTHORITY] "The age of the oldest current credential." "Far above lifecycle.rotation.after_seconds: a rotation fails.";
    CREDENTIAL_LEFT: Gauge "jeton.credential.time_to_expiry" "s" [AUTHORITY]
        "The time to the end of the current credential that ends first; a day has 86,400." "Below two weeks: a rotation fails, or an attached credential has to be replaced.";
    IDENTITY_CREDENTIAL_LEFT: Gauge "jeton.identity.credential.time_to_expiry" "s" [IDENTITY]
        "The same of single identities: of those that are named, and of those whose credentials end first." "`jeton identity rotate`, or attach a new credential.";
    OPERATIONS: UpDownCounter "jeton.operations" "{operation}" [OPERATION, of("jeton.operation.state", &["running", "retrying", "failed"])]
        "Provisionings, rotations, verifications (of what a backup brought back) and deletions under way: `retrying` after a failure, `failed` with an error that no retry helps." "`jeton status` names those that fail.";
    STEPS: Counter "jeton.lifecycle.steps" "{step}" [STEP, STEP_OUTCOME]
        "Steps of identities' lives that were tried, by how that ended; whatever is not `done` is tried again." "`unauthorized`: the registrar lost a right. `audit_unavailable`: the disk.";
    STEP_DURATION: Histogram "jeton.lifecycle.step.duration" "s" [STEP] "How long a try of a step took." "`registered` and `verified` wait for the authority.";
    ORPHANS: UpDownCounter "jeton.lifecycle.suspected_orphans" "{client}" []
        "Clients that may be left at authorities because an answer was lost." "`jeton status` lists them; remove them by hand.";

    AUTHENTICATION_FAILURES: Counter "jeton.authentication.failures" "{failure}" [DOOR, AUTHENTICATION]
        "Peers and requests that were not let in: by their `place`, in the TLS `handshake`, with nothing to show (`missing`), with a certificate that is over (`expired`) or whose authority was taken out of the trust (`withdrawn`), a header that is no bearer token (`malformed`), a `token` that is not good, or one that nobody could judge (`unavailable`)."
        "The log says why, a few times a minute.";
    DENIALS: Counter "jeton.access.denials" "{denial}" [of("jeton.plane", &["data", "admin"]), DENIAL]
        "Authenticated callers that were not allowed what they asked." "`jeton access explain` with the correlation id that the caller got.";
    QUOTA: Counter "jeton.quota.refusals" "{refusal}" [LIMIT]
        "Callers that were over a limit of their own, or met one of the whole `broker`." "Raise a caller's limit on its role assignment, or `[engine]`; or have the caller keep its tokens.";

    AUDIT_LAG: Gauge "jeton.audit.lag" "s" [] "The age of the oldest event that is not on disk yet." "Above some seconds: the disk is slow, full or gone.";
    AUDIT_QUEUED: UpDownCounter "jeton.audit.queued" "{event}" [] "Events that are not on disk yet." "Its bound is audit.max_queued.";
    AUDIT_LOST: Counter "jeton.audit.lost" "{event}" [] "Events that were dropped because there was no room." "Any is a gap in the log, which the log names.";
    AUDIT_WRITTEN: Counter "jeton.audit.written" "{event}" [] "Events that are on disk." "Standing still while tokens are served: see `jeton.audit.lag`.";

    CONNECTIONS: UpDownCounter "jeton.door.connections" "{connection}" [DOOR] "Connections that are open." "Its bound is door.max_connections.";
    ACCEPTED: Counter "jeton.door.connections.accepted" "{connection}" [DOOR] "Connections that were taken." "Many a second: clients that do not keep their connections.";
    CLOSED: Counter "jeton.door.connections.closed" "{connection}" [DOOR, of("jeton.door.reason", &["full", "silent", "misused"])]
        "Connections that this side ended: a bound was reached (`full`), no request came in time (`silent`), too much was cancelled or sent for nothing (`misused`)." "`full`: see the bounds in `[door]`.";
    STREAMS: UpDownCounter "jeton.door.streams" "{request}" [DOOR] "Requests under way; what is in memory is answered at once and never among them." "It grows with `jeton.token.waiting_callers`.";
    RESETS: Counter "jeton.door.resets" "{request}" [DOOR] "Requests that their peers cancelled, before their answer or in the middle of it; not streams that had lasted 10 s." "Many: callers whose deadlines are shorter than their authority's answers.";
    LATE: Counter "jeton.door.requests.late" "{request}" [DOOR] "Requests whose deadline passed." "The same, with deadlines that they told.";
    DRAINING: UpDownCounter "jeton.draining" "{drain}" [] "1 while the broker is about to stop, else 0." "`/readyz` says it too.";

    ALARMS: UpDownCounter "jeton.alarms" "{alarm}" [] "What needs an operator while the broker goes on." "`jeton status` names them.";
    EXPORTS: Counter "jeton.telemetry.exports" "{export}" [of("jeton.telemetry.signal", &["metrics", "traces", "logs"]), of("jeton.telemetry.outcome", &["ok", "failed"])]
        "Exports to a collector: pushes of these metrics, batches of spans and of log records." "The log says why one failed.";
    DROPPED: Counter "jeton.telemetry.dropped" "{item}" [of("jeton.telemetry.signal", &["traces", "logs"])]
        "Spans and log records that no collector got: the queue was full, or an export failed." "See `jeton.telemetry.exports`; a queue that is too short is made longer by OTEL_BSP_MAX_QUEUE_SIZE or OTEL_BLRP_MAX_QUEUE_SIZE.";

    PROCESS_CPU: Counter "process.cpu.time" "s" [of("cpu.mode", &["user", "system"])] "Processor time." "Signing stands back behind serving, so much of it may be signing.";
    PROCESS_MEMORY: UpDownCounter "process.memory.usage" "By" [] "Memory that is in RAM." "Most of it is slots: see `jeton.slots.memory`.";
    PROCESS_MEMORY_VIRTUAL: UpDownCounter "process.memory.virtual" "By" [] "Memory that is mapped." "Much of it is never touched.";
    PROCESS_DESCRIPTORS: UpDownCounter "process.unix.file_descriptor.count" "{file_descriptor}" [] "Open file descriptors." "One for each connection; the limit is that of the process.";
    PROCESS_THREADS: UpDownCounter "process.thread.count" "{thread}" [] "Threads." "Their number does not grow with load.";
    PROCESS_CONTEXT_SWITCHES: Counter "process.context_switches" "{context_switch}" [of("process.context_switch.type", &["voluntary", "involuntary"])] "Context switches." "Many involuntary ones: the machine has not enough processors.";
    PROCESS_UPTIME: Gauge "process.uptime" "s" [] "Time since the start." "A small one again and again is a broker that dies: see its log.";
}
