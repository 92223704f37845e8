//! The bounds of access.

use jeton_core::Problem;
use serde::{Deserialize, Serialize};

/// `[access]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSettings {
    /// Denials that can be explained by their correlation id; the latest are kept.
    pub max_remembered_denials: usize,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self { max_remembered_denials: 10_000 }
    }
}

impl AccessSettings {
    /// Everything that is wrong.
    pub fn validate(&self) -> Vec<Problem> {
        let wrong = (!(1..=1_000_000).contains(&self.max_remembered_denials))
            .then(|| Problem::new("max_remembered_denials", "must be between 1 and 1000000"));
        wrong.into_iter().collect()
    }
}
