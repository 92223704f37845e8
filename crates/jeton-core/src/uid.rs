//! The immutable id of a stored resource.
//!
//! A name can be deleted and made again; what was granted to the old holder must not pass to the new one. So keys, assignments,
//! sealed rows and audit bind the uid and never the name. UUIDv7 (RFC 9562): sorted by creation.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

use crate::Wall;

/// A UUIDv7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(Uuid);

impl Uid {
    /// Sorts before all others, and is nobody's.
    pub const LEAST: Self = Self(Uuid::nil());

    /// Makes a uid from the time of creation and 80 random bits.
    pub fn new(created: Wall, random: [u8; 10]) -> Self {
        let millis = u64::try_from(created.as_millis()).unwrap_or(0);
        Self(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The 16 bytes, for associated data and indexes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a uid: expected a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct UidError(String);

impl FromStr for Uid {
    type Err = UidError;

    fn from_str(text: &str) -> Result<Self, UidError> {
        Uuid::try_parse(text).map(Self).map_err(|_| UidError(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_sort_by_creation_and_survive_their_text() {
        let early = Uid::new(Wall::from_millis(1_000), [255; 10]);
        let late = Uid::new(Wall::from_millis(1_001), [0; 10]);
        assert!(early < late);
        assert_eq!(early.to_string().parse::<Uid>(), Ok(early));
        assert!("billing".parse::<Uid>().is_err());
    }
}
