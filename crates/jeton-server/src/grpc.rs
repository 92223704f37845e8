//! The services. Generated types stop here: each file turns requests into the broker's own words, asks, and turns the answer back.

mod access;
mod audit;
mod authority;
mod convert;
mod encoded;
mod error;
mod events;
mod identity;
mod permit;
mod probe;
mod problems;
mod revoke;
mod routes;
mod sealing;
mod shortcut;
mod standings;
mod status;
mod token;
mod watch;
mod workload;

pub use encoded::encode_token;
pub(crate) use error::Failure;
pub use error::{REASONS, Reason, complete};
pub use permit::{METHODS, Method, On};
pub use probe::{AuthorityProbe, DiscoverRequest, ProbeStep, RegistrarShape};
pub use routes::{
    Broker, Health, MAX_WATCHERS, admin_routes, data_routes, data_shortcut, is_streaming, method_names,
};
pub use sealing::{NotRotated, SealingKeyRotated, SealingRotation};
pub use shortcut::GetTokenShortcut;
