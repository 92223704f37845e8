//! `sandbox.json`: everything that somebody needs who wants to use the sandbox. It holds secrets, so only its owner reads it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};
use serde::{Deserialize, Serialize};

use crate::SandboxError;

pub(crate) const FILE: &str = "sandbox.json";

/// A running sandbox.
#[derive(Clone, Serialize, Deserialize)]
pub struct Description {
    /// The process.
    pub pid: u32,
    /// The authority's base URL.
    pub url: String,
    /// The certificate authority of all its listeners, PEM.
    pub ca_file: PathBuf,
    /// The key vault.
    pub vault: VaultPlace,
    /// The Entra-shaped tenant.
    pub entra: EntraTenant,
    /// The OIDC-shaped tenant.
    pub oidc: OidcTenant,
    /// The client with which the Entra-shaped tenant is administered.
    pub administrator: Administrator,
    /// Lets a client be registered at the OIDC-shaped tenant. Secret.
    pub initial_access_token: String,
}

/// Where the vault is and what it asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VaultPlace {
    /// Its base URL.
    pub url: String,
    /// Its base URL for clients that verify the challenge's resource. The name must resolve to loopback.
    pub named_url: String,
    /// The resource that it asks for there.
    pub named_resource: String,
    /// The scope of a token for it.
    pub scope: String,
    /// The name of a secret in it.
    pub secret: String,
}

/// The Entra-shaped tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EntraTenant {
    /// The tenant's id.
    pub tenant: String,
    /// The authority, as SDKs take it.
    pub authority: String,
    /// `iss` of its tokens.
    pub issuer: String,
    /// Where tokens are issued.
    pub token_endpoint: String,
    /// Its signing keys.
    pub jwks_uri: String,
    /// The base of its Graph API.
    pub graph: String,
    /// The scope of a token for it.
    pub graph_scope: String,
    /// Scopes of its APIs.
    pub scopes: Vec<String>,
}

/// The OIDC-shaped tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OidcTenant {
    /// `iss` of its tokens.
    pub issuer: String,
    /// Where tokens are issued.
    pub token_endpoint: String,
    /// Its signing keys.
    pub jwks_uri: String,
    /// Where clients are registered (RFC 7591).
    pub registration_endpoint: String,
    /// Where tokens are revoked (RFC 7009).
    pub revocation_endpoint: String,
    /// Where resources ask what a token is worth (RFC 7662).
    pub introspection_endpoint: String,
    /// Its APIs (RFC 8707).
    pub resources: Vec<String>,
    /// Scopes that clients may register.
    pub scopes: Vec<String>,
}

/// A client that may do everything in the Entra-shaped tenant.
#[derive(Clone, Serialize, Deserialize)]
pub struct Administrator {
    /// Its client id.
    pub client_id: String,
    /// Secret.
    pub client_secret: String,
}

impl fmt::Debug for Administrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Administrator").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Description")
            .field("url", &self.url)
            .field("vault", &self.vault)
            .finish_non_exhaustive()
    }
}

/// The sandbox that runs on a data directory.
pub fn read_description(data_dir: &Path) -> Result<Description, SandboxError> {
    let missing = |why: &dyn fmt::Display| {
        SandboxError::NotRunning(format!(
            "no sandbox runs on {}: {why}; `jeton sandbox --data-dir` starts one",
            data_dir.display()
        ))
    };
    let text = std::fs::read(data_dir.join(FILE)).map_err(|e| missing(&e))?;
    let found: Description = serde_json::from_slice(&text).map_err(|e| missing(&e))?;
    let pid = i32::try_from(found.pid).ok().and_then(Pid::from_raw);
    if pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH)) {
        Ok(found)
    } else {
        Err(missing(&format_args!("process {}, which did, is gone", found.pid)))
    }
}
