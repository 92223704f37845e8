//! The API's messages as JSON, in the shape in which the page and the command line show them. Secrets have no place in it.

use jeton_proto::v1;
use prost_types::{Duration, Timestamp};
use serde_json::{Map, Value, json};

/// A time (RFC 3339).
pub fn time(at: Option<&Timestamp>) -> Option<String> {
    at.map(ToString::to_string)
}

/// A length of time, in seconds.
pub fn seconds(duration: Option<&Duration>) -> Option<f64> {
    duration.map(|d| d.seconds as f64 + f64::from(d.nanos) / 1e9)
}

/// A text that is empty where there is none.
pub fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// `IDENTITY_STATE_ACTIVE` as `active`.
pub fn lower(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase()
}

/// Work on an identity.
pub fn operation(operation: &v1::Operation) -> Value {
    json!({
        "kind": operation.kind,
        "step": operation.step,
        "start_time": time(operation.start_time.as_ref()),
        "attempts": operation.attempts,
        "next_try_time": time(operation.next_try_time.as_ref()),
        "last_error": operation.last_error,
    })
}

/// Something that happened.
pub fn event(event: &v1::Event) -> Value {
    json!({
        "id": event.id,
        "time": time(event.time.as_ref()),
        "kind": event.kind,
        "severity": lower(event.severity().as_str_name(), "EVENT_SEVERITY_"),
        "identity": some(&event.identity),
        "authority": some(&event.authority),
        "message": event.message,
        "correlation_id": some(&event.correlation_id),
    })
}

/// How an identity fares.
pub fn identity_status(of: &v1::IdentityStatus) -> Value {
    json!({
        "name": of.name,
        "display_name": of.display_name,
        "kind": lower(of.kind().as_str_name(), "IDENTITY_KIND_"),
        "state": lower(of.state().as_str_name(), "IDENTITY_STATE_"),
        "authority": of.authority,
        "workload": some(&of.workload),
        "client_id": some(&of.client_id),
        "starves_in_seconds": seconds(of.starves_in.as_ref()),
        "last_error": some(&of.last_error),
        "credential_create_time": time(of.credential_create_time.as_ref()),
        "credential_expire_time": time(of.credential_expire_time.as_ref()),
        "next_refresh_time": time(of.next_refresh_time.as_ref()),
        "last_use_time": time(of.last_use_time.as_ref()),
        "consumers": of.consumers,
        "tokens": of.tokens,
        "may_change": of.may_change,
    })
}

/// How much there is to do.
pub fn rates(of: &v1::Rates) -> Value {
    json!({
        "over_seconds": seconds(of.over.as_ref()),
        "lookups_per_second": of.lookups_per_second,
        "fresh_ratio": of.fresh_ratio,
        "misses_per_second": of.misses_per_second,
        "denied_per_second": of.denied_per_second,
        "refreshes_per_second": of.refreshes_per_second,
        "failed_refreshes_per_second": of.failed_refreshes_per_second,
        "authority_calls_per_second": of.authority_calls_per_second,
        "waiting_callers": of.waiting_callers,
        "connections": of.connections,
    })
}

/// How an authority is doing.
pub fn authority_status(a: &v1::AuthorityStatus) -> Value {
    json!({
        "name": a.name,
        "requests_per_second": a.requests_per_second,
        "in_flight": a.in_flight,
        "held_identities": a.held_identities,
        "retry_after_seconds": seconds(a.retry_after.as_ref()),
        "failing_refreshes": a.failing_refreshes,
        "starves_in_seconds": seconds(a.starves_in.as_ref()),
        "last_error": some(&a.last_error),
        "identities": a.identities,
    })
}

/// How the broker is doing.
pub fn status(s: &v1::StatusResponse) -> Value {
    let sorted = |map: &std::collections::HashMap<String, u64>| {
        let mut names: Vec<_> = map.iter().collect();
        names.sort();
        names.into_iter().map(|(k, v)| (k.clone(), Value::from(*v))).collect::<Map<_, _>>()
    };
    json!({
        "healthy": s.healthy,
        "version": s.version,
        "node": s.node,
        "uptime_seconds": seconds(s.uptime.as_ref()),
        "problems": s.problems.iter().map(|p| json!({
            "subject": p.subject, "message": p.message, "remedy": p.remedy, "starves_in_seconds": seconds(p.starves_in.as_ref()),
        })).collect::<Vec<_>>(),
        "identities": sorted(&s.identities),
        "tokens": sorted(&s.tokens),
        "authorities": s.authorities.iter().map(authority_status).collect::<Vec<_>>(),
        "rates": s.rates.as_ref().map(rates),
        "certificates": s.certificates.iter().map(|c| json!({
            "identity": c.identity, "expire_time": time(c.expire_time.as_ref()), "rotating": c.rotating,
        })).collect::<Vec<_>>(),
        "suspected_orphans": s.suspected_orphans.iter().map(|o| json!({
            "authority": o.authority, "client_name": o.client_name, "time": time(o.time.as_ref()),
        })).collect::<Vec<_>>(),
    })
}
