//! The heart of the broker: tokens in memory, always fresh.
//!
//! A [`TokenKey`](jeton_core::TokenKey) names a slot. A hit is a look at the slot and nothing else. A miss and a refresh are the same
//! thing, a flight: one detached task for each key, whose end everybody waits for who wants the token. What is used is refreshed
//! ahead of its expiry; what is not used is forgotten. The engine knows nothing of identities' lives, of access, of the wire: it
//! asks a [`TokenSource`] and keeps with a [`TokenStore`].

mod callers;
mod counts;
mod engine;
mod error;
mod flight;
mod gate;
mod index;
mod line;
mod ports;
mod queue;
mod recency;
mod refresh;
mod report;
mod revoke;
mod settings;
mod slot;
mod standing;
mod start;
mod watch;
mod writer;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use callers::Account;
pub use counts::{Census, EngineCounts, RefreshCounts};
pub use engine::{Ask, Engine, Hit, Seat};
pub use error::TokenError;
pub use gate::BudgetInfo;
pub use ports::*;
pub use report::{EngineStats, Rejected, SlotInfo, SlotState};
pub use revoke::{Leaving, Revocation};
pub use settings::EngineSettings;
pub use standing::{Refreshing, Standing};
pub use start::{Encoded, Encoder, EngineTasks, Ports};
pub use watch::{Watch, WatchEvent};
