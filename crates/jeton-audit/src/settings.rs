//! The log's bounds.

use std::time::Duration;

use jeton_core::Problem;
use serde::{Deserialize, Serialize};

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditSettings {
    /// A segment that has so many bytes is ended, and another one begun.
    pub max_segment_bytes: u64,
    /// Most segments kept; the oldest is removed, and that is recorded.
    pub max_segments: usize,
    /// How often a head is signed while something is written, in seconds.
    pub head_interval_seconds: u64,
    /// How long frequent events are gathered before they are written, in milliseconds.
    pub batch_ms: u64,
    /// Most frequent events (tokens served, assertions sent, denials) that wait to be written.
    pub max_queued: usize,
    /// What happens when so many wait.
    pub on_full: OnFull,
    /// Denials of one principal that are written a minute, each for itself; more are counted.
    pub max_denials_per_minute: u32,
}

/// What happens when the log does not take frequent events as fast as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// The oldest are dropped, which is counted, recorded and shown.
    #[default]
    Drop,
    /// No token is handed out until there is room again.
    Refuse,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            max_segment_bytes: 16 * 1024 * 1024,
            max_segments: 64,
            head_interval_seconds: 60,
            batch_ms: 1_000,
            max_queued: 65_536,
            on_full: OnFull::Drop,
            max_denials_per_minute: 60,
        }
    }
}

impl AuditSettings {
    /// Everything that is wrong.
    pub fn validate(&self) -> Vec<Problem> {
        let rules = [
            (
                "max_segment_bytes",
                (64 * 1024..=1 << 30).contains(&self.max_segment_bytes),
                "must be between 65536 (64 KiB) and 1073741824 (1 GiB)",
            ),
            ("max_segments", self.max_segments >= 2, "must be at least 2"),
            (
                "head_interval_seconds",
                (1..=3_600).contains(&self.head_interval_seconds),
                "must be between 1 and 3600",
            ),
            ("batch_ms", (10..=60_000).contains(&self.batch_ms), "must be between 10 and 60000"),
            ("max_queued", (16..=10_000_000).contains(&self.max_queued), "must be between 16 and 10000000"),
            ("max_denials_per_minute", self.max_denials_per_minute >= 1, "must be at least 1"),
        ];
        let wrong = rules.into_iter().filter(|(_, holds, _)| !holds);
        wrong.map(|(key, _, message)| Problem::new(key, message)).collect()
    }

    /// How long frequent events are gathered.
    pub fn batch(&self) -> Duration {
        Duration::from_millis(self.batch_ms)
    }

    pub(crate) fn head_interval(&self) -> Duration {
        Duration::from_secs(self.head_interval_seconds)
    }
}
