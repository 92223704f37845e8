//! The vocabulary and the pure rules of the broker.
//!
//! Nothing here does I/O, starts a task or knows a runtime. The current time and randomness are arguments, so that every rule can
//! be tested to the millisecond.

pub mod clock;
pub mod name;
pub mod principal;
pub mod uid;

pub use clock::{Clock, Mono, Now, SystemClock, Wall};
pub use name::{AssignmentName, AuthorityName, IdentityName, NameError, WorkloadName};
pub use principal::{Principal, PrincipalError, PrincipalPattern};
pub use uid::Uid;
