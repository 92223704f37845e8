//! When credentials are rotated, and how much is done at once.

use std::time::Duration;

use jeton_core::Problem;
use serde::{Deserialize, Serialize};

/// `[lifecycle]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LifecycleSettings {
    /// Operations under way at once at each authority: one that does not answer holds up nobody else.
    pub max_concurrent: usize,
    /// Rotation.
    pub rotation: RotationSettings,
}

/// `[lifecycle.rotation]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RotationSettings {
    /// How long a new certificate is valid, in seconds.
    pub valid_for_seconds: u64,
    /// At what age a certificate is replaced, in seconds; spread by 10 % so that identities made together are not rotated together.
    pub after_seconds: u64,
    /// How long the replaced key stays registered, in seconds.
    pub overlap_seconds: u64,
}

impl Default for LifecycleSettings {
    fn default() -> Self {
        Self { max_concurrent: 8, rotation: RotationSettings::default() }
    }
}

impl Default for RotationSettings {
    fn default() -> Self {
        Self { valid_for_seconds: 90 * 86_400, after_seconds: 45 * 86_400, overlap_seconds: 86_400 }
    }
}

impl LifecycleSettings {
    /// Everything that is wrong.
    pub fn validate(&self) -> Vec<Problem> {
        let rotation = &self.rotation;
        let rules = [
            ("max_concurrent", (1..=1024).contains(&self.max_concurrent), "must be between 1 and 1024"),
            ("rotation.after_seconds", rotation.after_seconds >= 60, "must be at least 60"),
            (
                "rotation.valid_for_seconds",
                rotation.valid_for_seconds
                    > rotation.after_seconds + rotation.after_seconds / 10 + rotation.overlap_seconds,
                "must be longer than rotation.after_seconds plus 10 % plus rotation.overlap_seconds, or certificates end before they are replaced",
            ),
        ];
        rules
            .into_iter()
            .filter(|(_, holds, _)| !holds)
            .map(|(key, _, message)| Problem::new(key, message))
            .collect()
    }
}

impl RotationSettings {
    pub(crate) fn valid_for(&self) -> Duration {
        Duration::from_secs(self.valid_for_seconds)
    }

    pub(crate) fn overlap(&self) -> Duration {
        Duration::from_secs(self.overlap_seconds)
    }
}
