//! What differs between authorities, as data.
//!
//! Real authorization servers disagree on nearly every detail of RFC 7523 and RFC 7591: which audience they accept, how long an
//! assertion may live, what a replay or a clock error looks like. All of it stands here, so that one code path serves them all
//! and a new authority is a new value, not a new branch. A change makes a new profile version, which is part of the token key.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::TargetRequest;

/// How an authority behaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The issuer identifier, exactly as discovery spells it (RFC 8414 section 2).
    pub issuer: String,
    /// The token endpoint, exactly as discovery spells it.
    pub token_endpoint: String,
    /// Where tokens are revoked (RFC 7009), if the authority does that.
    #[serde(default)]
    pub revocation_endpoint: Option<String>,
    /// How client assertions are made.
    pub assertion: AssertionProfile,
    /// The keys that are made for identities here.
    pub key: KeyKind,
    /// How a target is named in requests.
    pub target: TargetStyle,
    /// Other spellings of a resource, `(alias, canonical)`: both are one target.
    #[serde(default)]
    pub resource_aliases: Vec<(String, String)>,
    /// How clients are registered and changed.
    pub registration: RegistrationStyle,
    /// What the grant asks for that verifies a new key.
    pub verify_target: TargetRequest,
    /// How a client secret is sent (RFC 6749 section 2.3.1).
    pub secret_transport: SecretTransport,
    /// Error answers that mean something else here than by the general rules; the first match wins.
    #[serde(default)]
    pub error_rules: Vec<ErrorRule>,
    /// Connections and request budget.
    #[serde(default)]
    pub limits: AuthorityLimits,
}

/// Signature algorithm of an assertion (RFC 7518 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SigningAlgorithm {
    /// RSASSA-PSS with SHA-256 and a 32 byte salt.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl SigningAlgorithm {
    /// The `alg` value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// Kind of private key made for an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// RSA with a 2048 bit modulus.
    Rsa2048,
    /// RSA with a 3072 bit modulus.
    Rsa3072,
    /// ECDSA on P-256.
    P256,
}

impl KeyKind {
    /// Whether keys of this kind can make signatures of that algorithm.
    pub const fn signs(self, algorithm: SigningAlgorithm) -> bool {
        matches!(
            (self, algorithm),
            (Self::Rsa2048 | Self::Rsa3072, SigningAlgorithm::Ps256 | SigningAlgorithm::Rs256)
                | (Self::P256, SigningAlgorithm::Es256)
        )
    }
}

/// How the assertion's header names the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyReference {
    /// `x5t#S256`: SHA-256 of the certificate (RFC 7515 section 4.1.8).
    X5tS256,
    /// `x5t`: SHA-1 of the certificate (RFC 7515 section 4.1.7).
    X5t,
    /// `kid`: the registered JWK's id (RFC 7515 section 4.1.4).
    Kid,
}

/// How `iat` is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IssuedAt {
    /// No `iat`.
    Absent,
    /// That many seconds before now, so that a clock a little ahead of the authority's is not "issued in the future".
    SecondsAgo(u32),
}

/// How client assertions are made for an authority (RFC 7523 section 3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssertionProfile {
    /// `alg`.
    pub algorithm: SigningAlgorithm,
    /// How the key is named.
    pub key_reference: KeyReference,
    /// `aud`: one string, always.
    pub audience: String,
    /// From `iat` (or now) to `exp`, in seconds; at most [`MAX_ASSERTION_LIFETIME_SECONDS`].
    pub lifetime_seconds: u32,
    /// `iat`.
    pub issued_at: IssuedAt,
    /// Whether `nbf` is sent, with the value of `iat` (or now).
    pub not_before: bool,
}

/// No assertion lives longer.
pub const MAX_ASSERTION_LIFETIME_SECONDS: u32 = 600;

/// How a target is named in a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetStyle {
    /// One resource, sent as `scope={resource}/.default`.
    EntraDefault,
    /// Any scopes and at most one `resource` (RFC 8707).
    ScopeAndResource,
    /// Any scopes and at most one resource, sent as `audience`.
    ScopeAndAudience,
    /// Scopes alone.
    ScopeOnly,
}

/// Members of a client's metadata that are the broker's own business.
pub const OWN_METADATA: [&str; 5] =
    ["client_id", "client_name", "jwks", "token_endpoint_auth_method", "token_endpoint_auth_signing_alg"];

/// How clients are registered and changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "style", deny_unknown_fields)]
pub enum RegistrationStyle {
    /// Microsoft Graph v1.0.
    Graph {
        /// The base URL, up to and with `/v1.0`.
        base: String,
        /// The scope of the registrar's token.
        scope: String,
    },
    /// Dynamic client registration and its management (RFC 7591, RFC 7592).
    Dynamic {
        /// The registration endpoint.
        endpoint: String,
        /// The `scope` that is registered for each client, if any.
        scope: Option<String>,
        /// Members of the client's metadata (RFC 7591 section 2) in place of those that are sent usually; null: not sent.
        #[serde(default)]
        metadata: BTreeMap<String, serde_json::Value>,
    },
    /// Nothing can be registered: identities are only attached.
    None,
}

/// How a client secret is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretTransport {
    /// `client_secret` in the form.
    Body,
    /// HTTP Basic.
    Basic,
}

/// What an error answer means for the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorClass {
    /// Try again later; nothing is wrong with the request.
    Transient,
    /// Try again later, and slow down.
    Throttled,
    /// The authority does not know the key (yet): transient while a change spreads, permanent after.
    KeyUnknown,
    /// The assertion's times do not fit the authority's clock: sign once more with the learned skew.
    ClockSkew,
    /// The assertion was used before: sign a new one.
    Replay,
    /// The client's credential is refused.
    InvalidClient,
    /// The request is refused: no retry helps until somebody changes something.
    Permanent,
}

/// One exception to the general rules of classification. Every member that is present must match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRule {
    /// HTTP status.
    #[serde(default)]
    pub status: Option<u16>,
    /// The `error` member.
    #[serde(default)]
    pub error: Option<String>,
    /// One of `error_codes` (Entra).
    #[serde(default)]
    pub code: Option<i64>,
    /// A part of `error_description`.
    #[serde(default)]
    pub contains: Option<String>,
    /// What it means.
    pub class: ErrorClass,
}

/// Connections to, and request budget of, one authority.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthorityLimits {
    /// Token requests under way at once.
    pub max_concurrent: u32,
    /// Token requests a second, steady state.
    pub requests_per_second: u32,
    /// Token requests a second for slots that are only being warmed up after a start.
    pub warm_up_per_second: u32,
    /// A connection idle longer than this is not used again, in seconds.
    pub connection_idle_seconds: u32,
    /// Longest time to establish a connection, in seconds.
    pub connect_timeout_seconds: u32,
    /// Longest time for one call in all, in seconds.
    pub call_timeout_seconds: u32,
}

impl Eq for AuthorityLimits {}

impl Default for AuthorityLimits {
    fn default() -> Self {
        Self {
            max_concurrent: 64,
            requests_per_second: 200,
            warm_up_per_second: 20,
            connection_idle_seconds: 4,
            connect_timeout_seconds: 3,
            call_timeout_seconds: 30,
        }
    }
}

impl AuthorityLimits {
    /// The deadline of one call.
    pub const fn call_timeout(&self) -> Duration {
        Duration::from_secs(self.call_timeout_seconds as u64)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn entra_profile() -> Profile {
        Profile {
            issuer: "https://login.example/t/v2.0".into(),
            token_endpoint: "https://login.example/t/oauth2/v2.0/token".into(),
            revocation_endpoint: None,
            assertion: AssertionProfile {
                algorithm: SigningAlgorithm::Ps256,
                key_reference: KeyReference::X5tS256,
                audience: "https://login.example/t/oauth2/v2.0/token".into(),
                lifetime_seconds: 600,
                issued_at: IssuedAt::SecondsAgo(5),
                not_before: true,
            },
            key: KeyKind::Rsa2048,
            target: TargetStyle::EntraDefault,
            resource_aliases: vec![],
            registration: RegistrationStyle::None,
            verify_target: TargetRequest {
                scopes: vec!["https://graph.microsoft.com/.default".into()],
                resources: vec![],
            },
            secret_transport: SecretTransport::Body,
            error_rules: vec![],
            limits: AuthorityLimits::default(),
        }
    }

    pub(crate) fn oidc_profile() -> Profile {
        Profile { target: TargetStyle::ScopeAndResource, ..entra_profile() }
    }

    #[test]
    fn a_profile_survives_its_stored_form() {
        let profile = entra_profile();
        let text = serde_json::to_string(&profile).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), profile);
    }

    #[test]
    fn an_unknown_member_of_a_profile_is_an_error() {
        let mut value = serde_json::to_value(entra_profile()).unwrap();
        value["assertion"]["lifetime"] = 5.into();
        assert!(serde_json::from_value::<Profile>(value).is_err());
    }
}
