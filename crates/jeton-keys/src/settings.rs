//! The bounds of keys and assertions.

use jeton_core::Problem;
use serde::{Deserialize, Serialize};

/// `[keys]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysSettings {
    /// Threads that sign what somebody waits for, and as many again that sign ahead; 0: half of the cores, at least one. One more generates
    /// keys.
    pub signing_threads: usize,
    /// Signatures that may wait for a thread.
    pub max_queued: usize,
    /// Parsed private keys kept in memory.
    pub max_parsed_keys: u64,
    /// Assertions that may be signed ahead, in all.
    pub max_presigned: usize,
}

impl Default for KeysSettings {
    fn default() -> Self {
        Self { signing_threads: 0, max_queued: 10_000, max_parsed_keys: 20_000, max_presigned: 20_000 }
    }
}

impl KeysSettings {
    /// Everything that is wrong.
    pub fn validate(&self) -> Vec<Problem> {
        let rules = [
            ("signing_threads", self.signing_threads <= 256, "must be at most 256"),
            ("max_queued", self.max_queued >= 1, "must be at least 1"),
            ("max_parsed_keys", self.max_parsed_keys >= 1, "must be at least 1"),
        ];
        rules
            .into_iter()
            .filter(|(_, holds, _)| !holds)
            .map(|(key, _, message)| Problem::new(key, message))
            .collect()
    }

    pub(crate) fn threads(&self) -> usize {
        match self.signing_threads {
            0 => (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1),
            given => given,
        }
    }
}
