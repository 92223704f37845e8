//! `endpoints.json`: how programs find a running broker.
//!
//! Written into the data directory when everything listens, removed at a clean stop. After a crash it stays behind; whoever
//! reads it checks that the process is still there.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::Context;
use jeton_core::Principal;
use serde::{Deserialize, Serialize};

use crate::{data_dir::write_private, managed_identity::AllFound};

const FILE: &str = "endpoints.json";

/// Where a broker listens, and in `dev` what there is to try.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    pub(crate) pid: u32,
    pub(crate) version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grpc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grpc_tls: Option<GrpcTls>,
    pub(crate) grpc_socket: PathBuf,
    pub(crate) admin_socket: PathBuf,
    /// Where the admin plane listens with TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin_tls: Option<String>,
    /// Where what is counted can be read; `/livez` and `/readyz` are beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<String>,
    /// Where SDKs of managed identities ask, by flavour.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) managed_identity: AllFound,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) dev: Option<DevEndpoints>,
}

/// Where the data plane listens with TLS, and whom to trust.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GrpcTls {
    pub(crate) address: String,
    /// In `dev`, which makes its own certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) clients: Vec<TlsClient>,
}

/// A client certificate that `dev` made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TlsClient {
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
    /// As whom it is let in.
    pub(crate) principal: Principal,
    /// Whether it may have the demo workload's tokens.
    pub(crate) allowed: bool,
}

/// What `dev` adds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DevEndpoints {
    pub(crate) sandbox: SandboxEndpoints,
    pub(crate) vault: VaultEndpoint,
    /// What the demo workload may ask for with every demo identity at `authorities/entra`; only the first is warm at the start.
    pub(crate) scopes: Vec<String>,
    pub(crate) workloads: Vec<DevWorkload>,
    pub(crate) identities: Vec<DevIdentity>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxEndpoints {
    pub(crate) url: String,
    pub(crate) ca_file: PathBuf,
    pub(crate) tenant: String,
    pub(crate) issuer: String,
    pub(crate) token_endpoint: String,
    pub(crate) jwks_uri: String,
    pub(crate) oidc: OidcEndpoints,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OidcEndpoints {
    pub(crate) issuer: String,
    pub(crate) token_endpoint: String,
    pub(crate) jwks_uri: String,
    pub(crate) registration_endpoint: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VaultEndpoint {
    pub(crate) url: String,
    /// For clients that verify the challenge's resource; the name must resolve to loopback.
    pub(crate) named_url: String,
    pub(crate) scope: String,
    pub(crate) secret: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DevWorkload {
    pub(crate) name: String,
    pub(crate) system_identity: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DevIdentity {
    pub(crate) name: String,
    pub(crate) client_id: String,
    pub(crate) kind: String,
    pub(crate) vault_access: bool,
}

/// Why no running broker is found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Missing {
    #[error(
        "no broker is running on {0}: start one with `jeton dev`, or name its directory with --data-dir, or its listener with --endpoint, --socket or --admin-socket"
    )]
    NotRunning(String),
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Unreadable(String),
}

impl Endpoints {
    /// Writes the file, whole or not at all.
    pub(crate) fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(self).context("endpoints as JSON")?;
        text.push(b'\n');
        write_private(&data_dir.join(FILE), &text)
            .with_context(|| format!("writing {FILE} into {}", data_dir.display()))
    }

    /// Removes the file of this process.
    pub(crate) fn remove(data_dir: &Path) {
        // Gone already is as good.
        let _ = fs::remove_file(data_dir.join(FILE));
    }

    /// The running broker of a data directory. A file whose process is gone is as good as none.
    pub(crate) fn find(data_dir: &Path) -> Result<Endpoints, Missing> {
        let path = data_dir.join(FILE);
        let none = || Missing::NotRunning(data_dir.display().to_string());
        let text = fs::read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => none(),
            ErrorKind::PermissionDenied => Missing::Denied(format!(
                "{} is not open to this user ({error}): ask the one who runs the broker",
                path.display()
            )),
            _ => Missing::Unreadable(format!("{} cannot be read: {error}", path.display())),
        })?;
        let found: Endpoints = serde_json::from_slice(&text)
            .map_err(|error| Missing::Unreadable(format!("{} cannot be read: {error}", path.display())))?;
        let pid = i32::try_from(found.pid).ok().and_then(rustix::process::Pid::from_raw);
        let alive =
            pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
        if alive { Ok(found) } else { Err(none()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(pid: u32) -> Endpoints {
        Endpoints {
            pid,
            version: "0".into(),
            grpc: Some("127.0.0.1:7411".into()),
            grpc_tls: None,
            admin_tls: None,
            grpc_socket: "/tmp/data.sock".into(),
            admin_socket: "/tmp/admin.sock".into(),
            metrics: None,
            managed_identity: AllFound::new(),
            dev: None,
        }
    }

    #[test]
    fn a_file_left_by_a_dead_process_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        endpoints(std::process::id()).write(folder.path()).unwrap();
        assert_eq!(Endpoints::find(folder.path()).unwrap().grpc.as_deref(), Some("127.0.0.1:7411"));
        endpoints(0x7fff_fff0).write(folder.path()).unwrap();
        assert!(Endpoints::find(folder.path()).unwrap_err().to_string().contains("jeton dev"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_a_broker_that_is_not_running() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Endpoints::find(folder.path()), Err(Missing::NotRunning(_))));
        fs::create_dir(folder.path().join(FILE)).unwrap();
        assert!(matches!(Endpoints::find(folder.path()), Err(Missing::Unreadable(_))));
    }
}
