//! SQLite, the embedded default.
//!
//! Three files. `registry.db` holds who exists and the sealed secrets: every commit is on disk before it is acknowledged. `tokens.db`
//! holds sealed tokens, written behind in batches: losing its tail costs refreshes. `uses.db` tells who used what. Nothing secret
//! stands in any of them in clear.

mod access;
mod backup;
mod database;
mod identities;
mod recorded;
mod ring;
mod rotate;
mod sealing;
mod secrets;
mod store;
mod tokens;
mod uses;

pub use backup::{Backup, BackupError, backup, restore};
pub use ring::SealingKeys;
pub use rotate::{RotateError, Rotated, Rotating};
pub use sealing::{SealingKey, SealingKeyError};
pub use store::{OpenError, Store};
