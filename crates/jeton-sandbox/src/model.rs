//! What the directory holds. Stored as JSON documents.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Application {
    pub(crate) id: String,
    pub(crate) app_id: String,
    pub(crate) display_name: String,
    pub(crate) unique_name: Option<String>,
    pub(crate) identifier_uris: Vec<String>,
    pub(crate) app_roles: Vec<AppRole>,
    pub(crate) keys: Vec<Key>,
    pub(crate) secrets: Vec<Secret>,
    /// Object ids of the service principals that own it.
    pub(crate) owners: Vec<String>,
    pub(crate) created_ms: i64,
    pub(crate) built_in: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AppRole {
    pub(crate) id: String,
    pub(crate) value: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) key_id: String,
    pub(crate) display_name: Option<String>,
    /// DER in base64.
    pub(crate) certificate: String,
    pub(crate) x5t: String,
    pub(crate) x5t_s256: String,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    pub(crate) created_ms: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Secret {
    pub(crate) key_id: String,
    pub(crate) display_name: Option<String>,
    pub(crate) sha256: String,
    pub(crate) hint: String,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServicePrincipal {
    pub(crate) id: String,
    pub(crate) app_id: String,
    pub(crate) enabled: bool,
    pub(crate) created_ms: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RoleGrant {
    pub(crate) id: String,
    /// The service principal that has the role.
    pub(crate) principal: String,
    /// The service principal of the API that defines it.
    pub(crate) resource: String,
    pub(crate) role: String,
    pub(crate) created_ms: i64,
}

/// A client of the OIDC-shaped tenant: its metadata as registered (RFC 7591).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OidcClient {
    pub(crate) client_id: String,
    pub(crate) metadata: Value,
    pub(crate) access_token_sha256: String,
    pub(crate) secret_sha256: Option<String>,
}

/// What the control door can change.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) token_lifetime_seconds: Option<u64>,
    pub(crate) latency_ms: u64,
    pub(crate) hang_seconds: f64,
    pub(crate) reject_replay: bool,
    pub(crate) error: Fault,
    pub(crate) clock_offset_seconds: i64,
    pub(crate) propagation_delay_seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub(crate) rate: f64,
    pub(crate) status: u16,
    pub(crate) retry_after_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            token_lifetime_seconds: None,
            latency_ms: 0,
            hang_seconds: 0.0,
            reject_replay: false,
            error: Fault { rate: 0.0, status: 429, retry_after_seconds: 2 },
            clock_offset_seconds: 0,
            propagation_delay_seconds: 0.0,
        }
    }
}
