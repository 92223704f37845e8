//! The file's shape. Secrets are never in it: it names the files that hold them.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// What shall be there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StateFile {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) authorities: Vec<Authority>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) workloads: Vec<Workload>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) identities: Vec<Identity>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) role_assignments: Vec<Assignment>,
}

/// An authority. To make one, its kind and URL are needed; of one that is there, only the display name can be changed, and what is
/// left out is as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Authority {
    pub(crate) name: String,
    pub(crate) display_name: String,
    /// `entra` or `oidc`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) graph_url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) ca_file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) registrar: Option<Registrar>,
}

/// The files of a registrar's credential.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Registrar {
    Certificate { client_id: String, certificate_file: PathBuf, private_key_file: PathBuf },
    InitialAccessToken { initial_access_token_file: PathBuf },
}

/// A workload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) display_name: String,
    pub(crate) principals: Vec<String>,
    /// The authority of its system-assigned identity. Left out: as it is, and with `--prune` none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) system_identity_authority: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// A user-assigned identity that the broker registers itself. Attached ones are attached by command.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) authority: String,
    pub(crate) display_name: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// A role assignment. It is never changed in place: one that differs is taken back and made again. The name tells which is which;
/// targets are spelled as for `jeton access assign`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Assignment {
    pub(crate) name: String,
    pub(crate) member: String,
    pub(crate) role: String,
    pub(crate) identity: String,
    pub(crate) targets: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) keep_warm: bool,
    /// Such as 2027-01-31T00:00:00Z
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) expires: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_token_lifetime_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Limits::is_usual")]
    pub(crate) limits: Limits,
}

/// What each caller may ask beside tokens in memory; what is absent is as the broker's settings say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) misses_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) miss_burst: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) forced_refreshes_per_minute: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_watches: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_waiting: Option<u32>,
}

impl Limits {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}
