//! SQLite, the embedded default.
//!
//! Two files. `registry.db` holds who exists and the sealed secrets: every commit is on disk before it is acknowledged. `tokens.db`
//! holds sealed tokens, written behind in batches: losing its tail costs refreshes. Nothing secret stands in either in clear.

mod access;
mod database;
mod identities;
mod recorded;
mod sealing;
mod secrets;
mod store;
mod tokens;

pub use sealing::{SealingKey, SealingKeyError};
pub use store::{OpenError, Store};
