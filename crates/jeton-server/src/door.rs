//! Accepting connections: bounded, authenticated once, aged, drained in time.

mod accept;
mod authority;
mod caller;
mod calls;
mod certificates;
mod connection;
pub(crate) mod deadline;
mod drain;
mod ending;
mod gather;
mod http1;
mod incoming;
mod listen;
mod meter;
mod outgoing;
mod peer;
mod places;
mod process;
mod request;
mod settings;
mod standing;
mod tls;
mod turn;
mod unix;

pub use accept::{Door, DoorStats, Protocol, serve};
pub use caller::AuthenticationFailure;
pub use calls::{Calls, CallsEnded, RequestKind};
pub use certificates::{Certificates, TlsSettings, TrustSettings};
pub use drain::Drain;
pub use listen::{DoorError, Listen, Listener};
pub use peer::{Authenticate, Caller, Configured, LoopbackDev, Peer, Refusal};
pub use request::Shortcut;
pub use settings::DoorSettings;
pub use tls::{Bundle, ClientCertificates, Tls, TlsError};
pub use turn::Moment;
pub use unix::{UnixPeerRule, UnixPeers};
