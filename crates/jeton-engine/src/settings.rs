//! The engine's bounds.

use std::time::Duration;

use jeton_core::Problem;
use serde::{Deserialize, Serialize};

/// `[engine]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// Most slots in the cache.
    pub max_entries: u64,
    /// Most bytes of slots and tokens.
    pub max_bytes: u64,
    /// The part of both that slots brought in by one caller may take, in percent.
    pub caller_share_percent: u64,
    /// Misses and new keys of one caller, a second.
    pub misses_per_second: u32,
    /// Misses and new keys of one caller at once.
    pub miss_burst: u32,
    /// Refreshes that one caller forces by reports of rejected tokens, a minute.
    pub forced_refreshes_per_minute: u32,
    /// Most requests of one caller that wait for authorities at once.
    pub max_waiting_per_caller: u32,
    /// Most slots that one caller watches.
    pub max_watches_per_caller: u32,
    /// Longest wait of a caller for an authority, in milliseconds.
    pub max_wait_ms: u64,
    /// Most callers that wait at once.
    pub max_waiters: u32,
    /// Most watched slots.
    pub max_watches: u32,
    /// How often the clocks are looked at, in milliseconds.
    pub tick_ms: u64,
    /// How long before a refresh its assertion is signed, in milliseconds.
    pub presign_lead_ms: u64,
    /// Most token writes waiting for the store; further ones are dropped and cost a refresh after a restart.
    pub max_pending_writes: usize,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            max_entries: 100_000,
            max_bytes: 256 * 1024 * 1024,
            caller_share_percent: 50,
            misses_per_second: 50,
            miss_burst: 500,
            forced_refreshes_per_minute: 60,
            max_waiting_per_caller: 20_000,
            max_watches_per_caller: 20_000,
            max_wait_ms: 10_000,
            max_waiters: 100_000,
            max_watches: 100_000,
            tick_ms: 250,
            presign_lead_ms: 10_000,
            max_pending_writes: 5_000,
        }
    }
}

impl EngineSettings {
    /// Everything that is wrong.
    pub fn validate(&self) -> Vec<Problem> {
        let rules = [
            ("max_entries", self.max_entries >= 1, "must be at least 1"),
            ("max_bytes", self.max_bytes >= 1 << 20, "must be at least 1048576 (1 MiB)"),
            (
                "caller_share_percent",
                (1..=100).contains(&self.caller_share_percent),
                "must be between 1 and 100",
            ),
            ("misses_per_second", self.misses_per_second >= 1, "must be at least 1"),
            ("miss_burst", self.miss_burst >= 1, "must be at least 1"),
            ("forced_refreshes_per_minute", self.forced_refreshes_per_minute >= 1, "must be at least 1"),
            ("max_waiting_per_caller", self.max_waiting_per_caller >= 1, "must be at least 1"),
            ("max_wait_ms", (1..=60_000).contains(&self.max_wait_ms), "must be between 1 and 60000"),
            ("max_waiters", self.max_waiters >= 1, "must be at least 1"),
            ("tick_ms", (10..=5_000).contains(&self.tick_ms), "must be between 10 and 5000"),
            ("presign_lead_ms", self.presign_lead_ms <= 120_000, "must be at most 120000"),
            ("max_pending_writes", self.max_pending_writes >= 1, "must be at least 1"),
        ];
        rules
            .into_iter()
            .filter(|(_, holds, _)| !holds)
            .map(|(key, _, message)| Problem::new(key, message))
            .collect()
    }

    pub(crate) fn max_wait(&self) -> Duration {
        Duration::from_millis(self.max_wait_ms)
    }

    pub(crate) fn presign_lead(&self) -> Duration {
        Duration::from_millis(self.presign_lead_ms)
    }

    /// What a slot weighs at least, so that the bound on bytes is the bound on entries too.
    pub(crate) fn least_weight(&self) -> u64 {
        (self.max_bytes / self.max_entries).max(1)
    }

    pub(crate) fn caller_share(&self) -> u64 {
        self.max_bytes / 100 * self.caller_share_percent
    }
}
