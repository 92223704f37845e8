//! Who may use which identity for what.
//!
//! One function, [`Access::authorize`], stands between every request and the cache: it finds the identity, the authority and the
//! target, and decides on immutable snapshots. To a caller, an identity that does not exist and one that it may not use look the
//! same; the operator learns which it was by the denial's correlation id.

mod access;
mod assignments;
mod caller;
mod denials;
mod explain;
mod ports;
mod refusals;
mod settings;
mod tally;
mod usage;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use access::{Access, AccessError, Authorized, Refused};
pub use assignments::CreateAssignment;
pub use caller::{Authenticated, BearerTokens, Rejected};
pub use denials::Denied;
pub use explain::Explanation;
pub use ports::*;
pub use settings::AccessSettings;
pub use tally::{Tally, TallyBounds, TallyPorts, TallyTask};
pub use usage::{Usage, Used};
