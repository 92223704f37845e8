//! Accepting connections: bounded, authenticated once, aged, drained in time.

mod accept;
mod authority;
mod connection;
pub(crate) mod deadline;
mod drain;
mod gather;
mod inline;
mod listen;
mod meter;
mod peer;
mod request;
mod settings;

pub use accept::{Door, DoorStats, serve};
pub use drain::Drain;
pub use listen::{DoorError, Listen, Listener};
pub use peer::{AdminPeer, Authenticate, Caller, LoopbackDev, Peer, Refusal, UnixPeer};
pub use request::Shortcut;
pub use settings::DoorSettings;
