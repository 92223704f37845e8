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
    /// Whether only clients that have an app role on it get tokens for it.
    #[serde(default)]
    pub(crate) assignment_required: bool,
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
