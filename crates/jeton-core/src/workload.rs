//! A registered service: who it is at each door, and its own identity.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{Principal, Uid, Wall, WorkloadName};

/// The stored record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Immutable.
    pub uid: Uid,
    /// Unique among living workloads.
    pub name: WorkloadName,
    /// For people.
    pub display_name: String,
    /// For people and filters.
    pub labels: BTreeMap<String, String>,
    /// How it is known at the doors; each belongs to at most one workload.
    pub principals: Vec<Principal>,
    /// Its system-assigned identity: what an empty identity in a request means.
    pub system_identity: Option<Uid>,
    /// What it may show at doors that know no better proof. Those that ended may still stand here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<WorkloadSecret>,
    /// When it was created.
    pub created_at: Wall,
    /// When the record changed last.
    pub updated_at: Wall,
    /// Counts changes; writes compare and set it.
    pub version: u64,
}

/// A secret of a workload, by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadSecret {
    /// Names it.
    pub uid: Uid,
    /// What is kept of it.
    pub digest: SecretDigest,
    /// When it was made.
    pub created_at: Wall,
    /// From when on it proves nothing any more; none: until it is rotated or revoked.
    pub expires_at: Option<Wall>,
}

impl WorkloadSecret {
    /// Whether it proves anything now.
    pub fn counts(&self, now: Wall) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// SHA-256 of a secret. Nothing slower is needed: what has 256 random bits cannot be guessed, however fast a guess is. And it is looked up
/// as a whole: whoever measures how long that takes learns of a digest, which says nothing of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretDigest(pub [u8; 32]);

impl From<SecretDigest> for String {
    fn from(digest: SecretDigest) -> Self {
        digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for SecretDigest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err("a digest has 64 hexadecimal digits");
        }
        for (place, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).map_err(|_| "not hexadecimal")?;
        }
        Ok(Self(digest))
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(*self)[..8])
    }
}
