//! The doors: who connects, how much they may, and the services behind.
//!
//! The accept loop is our own, because a stock server has no deadline for silent peers, no cap on connections, and no end for a
//! drain. Behind it stand tonic's routes. Everything that a service answers is decided elsewhere; here it is put on the wire.

mod alarms;
mod correlation;
pub mod door;
mod events;
pub mod grpc;
mod history;
pub mod managed_identity;
mod seldom;

pub use alarms::{Alarm, Alarms};
pub use events::{Event, EventKind, Events, Severity};
pub use history::{History, Rates, Totals};
