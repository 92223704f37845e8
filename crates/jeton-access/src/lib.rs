//! Who may use which identity for what.
//!
//! One function, [`Access::authorize`], stands between every request and the cache: it finds the identity, the authority and the
//! target, and decides on immutable snapshots. To a caller, an identity that does not exist and one that it may not use look the
//! same; the operator learns which it was by the denial's correlation id. An [`AdminCall`] decides likewise on the admin plane.
//!
//! [`Tokens`] says who calls where callers show bearer tokens.

mod access;
mod administration;
mod answers;
mod assignments;
mod caller;
mod certificate;
mod denials;
mod explain;
mod near;
mod ports;
mod refusals;
mod settings;
mod spiffe;
mod tally;
mod tokens;
mod usage;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use access::{Access, AccessError, Authorized, Correlation, Refused};
pub use administration::{AdminCall, NotPermitted};
pub use answers::Requested;
pub use assignments::CreateAssignment;
pub use caller::{Authenticated, BearerTokens, Rejected};
pub use certificate::{NameKind, Naming, validity};
pub use denials::Denied;
pub use explain::Explanation;
pub use near::NearMiss;
pub use ports::*;
pub use settings::AccessSettings;
pub use spiffe::{TrustDomain, TrustDomainError};
pub use tally::{Tally, TallyBounds, TallyPorts, TallyTask};
pub use tokens::{IssuerKind, IssuerPorts, IssuerSettings, KeysAt, TokenReviewSettings, TokenTasks, Tokens};
pub use usage::{Usage, Used};
