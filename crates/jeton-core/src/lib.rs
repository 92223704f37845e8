//! The vocabulary and the pure rules of the broker.
//!
//! Nothing here does I/O, starts a task or knows a runtime. The current time and randomness are arguments, so that every rule can
//! be tested to the millisecond. The other crates meet in what is defined here: [`Directory`], [`Assertions`], [`TokenKey`],
//! [`Decision`].

pub mod access;
pub mod administration;
pub mod assertions;
pub mod audit;
pub mod authority;
pub mod budget;
pub mod clock;
pub mod credential;
pub mod directory;
pub mod identity;
pub mod metrics;
pub mod name;
pub mod principal;
pub mod problem;
pub mod profile;
pub mod published;
pub mod refresh;
pub mod retry_after;
pub mod role;
pub mod steps;
pub mod target;
pub mod token;
pub mod token_key;
pub mod uid;
pub mod workload;

pub use access::{
    AccessSnapshot, AssignmentScope, CallerLimits, Decision, Denial, Member, RoleAssignment, ScopeError,
    ScopeName, Subject, TargetRule,
};
pub use administration::{Administrator, Object};
pub use assertions::{Assertion, AssertionError, AssertionRequest, Assertions, BoxFuture, ProofRequest};
pub use audit::{
    AuditEvent, AuditKind, AuditOutcome, AuditProblem, AuditResource, AuditTrail, AuditUnavailable, TokenHash,
};
pub use authority::{Authority, AuthorityState, Registrar};
pub use budget::{Budget, Priority};
pub use clock::{Clock, Mono, Now, SystemClock, Wall};
pub use credential::{CertificateFacts, Credential, CredentialKind, CredentialState, KeyReferences, pem};
pub use directory::{Directory, SharedDirectory};
pub use identity::{Identity, IdentityKind, IdentityState, Registration};
pub use name::{AssignmentName, AuthorityName, IdentityName, NameError, WorkloadName};
pub use principal::{Principal, PrincipalError, PrincipalPattern};
pub use problem::Problem;
pub use profile::{KeyKind, Profile, SigningAlgorithm};
pub use published::Published;
pub use refresh::{RefreshOutcome, RefreshPlan};
pub use role::{Permission, Role, RoleError};
pub use steps::{Operation, OperationKind, Step};
pub use target::{Target, TargetError, TargetRequest};
pub use token::{AccessToken, Freshness, IssuedToken, Phases, Token, serve_floor};
pub use token_key::{Claims, ClaimsError, TokenKey, TokenType};
pub use uid::Uid;
pub use workload::{SecretDigest, Workload, WorkloadSecret};
