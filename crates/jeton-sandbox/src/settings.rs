//! What the control door can change: members that are named, for all clients or for one, over the defaults.

use std::{ops::RangeInclusive, time::Duration};

use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Ten years: dates stay far from where a calendar ends.
const LONGEST_SECONDS: f64 = 315_360_000.0;
/// What as many groups as a token names make of it, and no more.
pub(crate) const MOST_TOKEN_BYTES: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// None: what the tenant gives.
    pub(crate) token_lifetime_seconds: Option<u64>,
    /// None: what the sandbox was started with.
    pub(crate) token_bytes: Option<usize>,
    pub(crate) latency_ms: u64,
    pub(crate) hang_seconds: f64,
    pub(crate) reject_replay: bool,
    pub(crate) error: Fault,
    pub(crate) clock_offset_seconds: i64,
    pub(crate) propagation_delay_seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Fault {
    pub(crate) rate: f64,
    pub(crate) status: u16,
    pub(crate) retry_after_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            token_lifetime_seconds: None,
            token_bytes: None,
            latency_ms: 0,
            hang_seconds: 0.0,
            reject_replay: false,
            error: Fault::default(),
            clock_offset_seconds: 0,
            propagation_delay_seconds: 0.0,
        }
    }
}

impl Default for Fault {
    fn default() -> Self {
        Self { rate: 0.0, status: 429, retry_after_seconds: 2 }
    }
}

impl Settings {
    /// The defaults with each layer over those before it; or what is wrong.
    pub(crate) fn layered<'a>(layers: impl IntoIterator<Item = &'a Value>) -> Result<Self, String> {
        let mut merged = json!({});
        for layer in layers {
            merge(&mut merged, layer);
        }
        let settings: Self = serde_json::from_value(merged).map_err(|e| e.to_string())?;
        settings.bounded()
    }

    /// Waits as long as was ordered; whether the request then fails.
    pub(crate) async fn strike(&self) -> bool {
        let wait = Duration::from_millis(self.latency_ms) + Duration::from_secs_f64(self.hang_seconds);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        rand::rng().random::<f64>() < self.error.rate
    }

    fn bounded(self) -> Result<Self, String> {
        let bounds: [(&str, f64, RangeInclusive<f64>); 9] = [
            (
                "token_lifetime_seconds",
                self.token_lifetime_seconds.unwrap_or(1) as f64,
                1.0..=LONGEST_SECONDS,
            ),
            ("token_bytes", self.token_bytes.unwrap_or(0) as f64, 0.0..=MOST_TOKEN_BYTES as f64),
            ("latency_ms", self.latency_ms as f64, 0.0..=3_600_000.0),
            ("hang_seconds", self.hang_seconds, 0.0..=3_600.0),
            ("error.rate", self.error.rate, 0.0..=1.0),
            ("error.status", self.error.status.into(), 400.0..=599.0),
            ("error.retry_after_seconds", self.error.retry_after_seconds as f64, 0.0..=LONGEST_SECONDS),
            ("clock_offset_seconds", self.clock_offset_seconds as f64, -LONGEST_SECONDS..=LONGEST_SECONDS),
            ("propagation_delay_seconds", self.propagation_delay_seconds, 0.0..=86_400.0),
        ];
        match bounds.iter().find(|(_, value, range)| !range.contains(value)) {
            Some((name, _, range)) => {
                Err(format!("{name} must be from {} to {}", range.start(), range.end()))
            }
            None => Ok(self),
        }
    }
}

/// JSON merge patch (RFC 7396): null clears a member.
pub(crate) fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return into.clone_from(patch) };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Some(members) = into.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.as_str()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_replaces_the_members_that_it_names_and_no_others() {
        let general = json!({"token_lifetime_seconds": 33, "error": {"rate": 1.0, "status": 503}});
        let own = json!({"latency_ms": 500, "error": {"rate": 0.5}});
        let settings = Settings::layered([&general, &own]).unwrap();
        assert_eq!((settings.token_lifetime_seconds, settings.latency_ms), (Some(33), 500));
        assert_eq!(settings.error, Fault { rate: 0.5, status: 503, retry_after_seconds: 2 });
    }

    #[test]
    fn null_clears_a_member() {
        let mut named = json!({"latency_ms": 500, "error": {"rate": 0.5, "status": 500}});
        merge(&mut named, &json!({"latency_ms": null, "error": {"rate": null}}));
        assert_eq!(named, json!({"error": {"status": 500}}));
        merge(&mut named, &json!({"error": null}));
        assert_eq!(named, json!({}));
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_named() {
        for (wrong, name) in [
            (json!({"error": {"foo": 1}}), "foo"),
            (json!({"error": {"rate": 7}}), "error.rate"),
            (json!({"error": {"status": 99}}), "error.status"),
            (json!({"error": {"status": 200}}), "error.status"),
            (json!({"hang_seconds": -5}), "hang_seconds"),
            (json!({"token_lifetime_seconds": 0}), "token_lifetime_seconds"),
            (json!({"token_bytes": 10_001}), "token_bytes"),
            (json!({"clock_offset_seconds": 1_000_000_000_000_i64}), "clock_offset_seconds"),
        ] {
            let error = Settings::layered([&wrong]).unwrap_err();
            assert!(error.contains(name), "{wrong}: {error}");
        }
    }
}
