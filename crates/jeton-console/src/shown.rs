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
        "authorities": s.authorities.iter().map(|a| json!({
            "name": a.name, "requests_per_second": a.requests_per_second, "in_flight": a.in_flight, "held_identities": a.held_identities,
            "retry_after_seconds": seconds(a.retry_after.as_ref()), "failing_refreshes": a.failing_refreshes,
            "starves_in_seconds": seconds(a.starves_in.as_ref()),
        })).collect::<Vec<_>>(),
        "certificates": s.certificates.iter().map(|c| json!({
            "identity": c.identity, "expire_time": time(c.expire_time.as_ref()), "rotating": c.rotating,
        })).collect::<Vec<_>>(),
        "suspected_orphans": s.suspected_orphans.iter().map(|o| json!({
            "authority": o.authority, "client_name": o.client_name, "time": time(o.time.as_ref()),
        })).collect::<Vec<_>>(),
    })
}
