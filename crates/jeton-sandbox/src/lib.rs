//! An authority to try things with: an Entra-shaped and an OIDC-shaped tenant, a small key vault, and faults on demand.
//!
//! It verifies what it is sent as the real ones do, and answers with their errors. It knows no other crate of this project, so
//! that a mistake of the broker's cannot verify itself here. What it answered is durable before it answers.

mod certificates;
mod control;
mod dates;
mod description;
mod entra;
mod files;
mod graph;
mod jwt;
mod model;
mod oidc;
mod reply;
mod serve;
mod settings;
mod start;
mod state;
mod vault;

pub use description::{Administrator, Description, EntraTenant, OidcTenant, VaultPlace, read_description};
pub use start::{Sandbox, SandboxError, SandboxOptions};
