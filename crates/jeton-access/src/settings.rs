//! The bounds of access.

use jeton_core::Problem;
use serde::{Deserialize, Serialize};

use crate::tokens::{IssuerSettings, between};

/// `[access]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSettings {
    /// Denials that can be explained by their correlation id; the latest are kept.
    pub max_remembered_denials: usize,
    /// Verified bearer tokens that are remembered, each for at most 60 s.
    pub max_remembered_tokens: usize,
    /// Whose bearer tokens count.
    pub issuers: Vec<IssuerSettings>,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self { max_remembered_denials: 10_000, max_remembered_tokens: 100_000, issuers: vec![] }
    }
}

impl AccessSettings {
    /// Everything that is wrong.
    pub fn validate(&self) -> Vec<Problem> {
        let bounded = [
            ("max_remembered_denials", self.max_remembered_denials),
            ("max_remembered_tokens", self.max_remembered_tokens),
        ];
        let wrong = bounded.into_iter().filter(|(_, n)| !(1..=1_000_000).contains(n));
        let wrong = wrong.map(|(key, _)| Problem::new(key, "must be between 1 and 1000000"));
        let issuers = self.issuers.iter().enumerate().flat_map(|(n, issuer)| {
            issuer.validate().into_iter().map(move |problem| problem.within(&format!("issuers[{n}]")))
        });
        wrong.chain(issuers).chain(between(&self.issuers)).collect()
    }
}
