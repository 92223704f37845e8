//! Workloads, identities and authorities: created, kept, rotated, removed.
//!
//! The intent is durable before it is acknowledged; a worker then takes the named steps, each of which is written down when it is
//! done, can be repeated, and is resumed after a kill at any point. This crate is the one owner of the registry and publishes the
//! [`Directory`](jeton_core::Directory) after each commit.

mod attach;
mod audited;
mod authorities;
mod busy;
mod causes;
mod counts;
mod error;
mod identities;
mod list;
mod ports;
mod record;
mod registry;
mod restored;
mod runner;
mod secret_debug;
mod secrets;
mod settings;
mod take;
mod workloads;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use attach::{AttachIdentity, AttachMaterial};
pub use authorities::{AuthorityPatch, CreateAuthority, RegistrarMaterial};
pub use counts::StepCounts;
pub use error::LifecycleError;
pub use identities::{CreateIdentity, IdentityPatch};
pub use list::{IdentityFilter, Page, page, page_of};
pub use ports::*;
pub use registry::{Lifecycle, LifecycleEvent, Ports, StepTried};
pub use restored::verify_all;
pub use runner::LifecycleTasks;
pub use secrets::{DEFAULT_OVERLAP, NewSecret, principal_of_secret};
pub use settings::{LifecycleSettings, RotationSettings};
pub use workloads::{CreateWorkload, WorkloadPatch, system_identity_name};
