//! Accepting connections: bounded, authenticated once, aged, drained in time.

mod accept;
mod authority;
mod connection;
pub(crate) mod deadline;
mod drain;
mod ending;
mod gather;
mod incoming;
mod listen;
mod meter;
mod outgoing;
mod peer;
mod request;
mod settings;
mod turn;

pub use accept::{Door, DoorStats, serve};
pub use drain::Drain;
pub use listen::{DoorError, Listen, Listener};
pub use peer::{AdminPeer, Authenticate, Caller, LoopbackDev, Peer, Refusal, UnixPeer};
pub use request::Shortcut;
pub use settings::DoorSettings;
pub use turn::Moment;
