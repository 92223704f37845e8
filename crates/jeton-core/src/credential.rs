//! What proves an identity to its authority.
//!
//! Only what is public stands here: references, times, state. The private key or secret itself is sealed in the store under the
//! credential's uid and is never part of a value that is listed, logged or published.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Uid, Wall,
    profile::{KeyKind, KeyReference},
};

/// Public facts of one credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Binds the sealed private part.
    pub uid: Uid,
    /// What it is.
    pub kind: CredentialKind,
    /// Where it is in its life.
    pub state: CredentialState,
    /// The authority's own id of the registered key, where it gives one (Graph's `keyId`).
    pub remote_id: Option<Arc<str>>,
    /// When it was made or brought along.
    pub created_at: Wall,
}

/// The kinds of credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum CredentialKind {
    /// A private key with a certificate: `private_key_jwt` (RFC 7523).
    Certificate(CertificateFacts),
    /// A client secret, for authorities that know nothing better.
    Secret {
        /// When it ends, if known.
        expires_at: Option<Wall>,
    },
}

/// Public facts of a certificate credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFacts {
    /// The key's kind.
    pub key: KeyKind,
    /// How assertions can name it.
    pub references: KeyReferences,
    /// The certificate, DER in base64.
    pub certificate: Arc<str>,
    /// The public key as a JWK (RFC 7517) with `kid`, `use` and `alg`, as JSON.
    pub jwk: Arc<str>,
    /// Start of validity.
    pub not_before: Wall,
    /// End of validity.
    pub not_after: Wall,
}

/// How a key can be named in an assertion's header. All base64url without padding.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyReferences {
    /// SHA-1 of the certificate.
    pub x5t: Arc<str>,
    /// SHA-256 of the certificate.
    pub x5t_s256: Arc<str>,
    /// The JWK thumbprint (RFC 7638, SHA-256), which is the registered `kid`.
    pub kid: Arc<str>,
}

impl KeyReferences {
    /// The header member and its value for a profile.
    pub fn header(&self, reference: KeyReference) -> (&'static str, &str) {
        match reference {
            KeyReference::X5tS256 => ("x5t#S256", &self.x5t_s256),
            KeyReference::X5t => ("x5t", &self.x5t),
            KeyReference::Kid => ("kid", &self.kid),
        }
    }
}

/// Where a credential is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialState {
    /// Made, not yet used: being registered and verified.
    Pending,
    /// Proves the identity.
    Current,
    /// Replaced, still registered until the overlap ends.
    Overlap,
}

impl CertificateFacts {
    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }
}

/// PEM (RFC 7468) of what is in base64 already.
pub fn pem(label: &str, base64: &str) -> String {
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl Credential {
    /// The certificate's facts, if it is a certificate.
    pub fn certificate(&self) -> Option<&CertificateFacts> {
        match &self.kind {
            CredentialKind::Certificate(facts) => Some(facts),
            CredentialKind::Secret { .. } => None,
        }
    }

    /// When the credential ends, if it does.
    pub fn expires_at(&self) -> Option<Wall> {
        match &self.kind {
            CredentialKind::Certificate(facts) => Some(facts.not_after),
            CredentialKind::Secret { expires_at } => *expires_at,
        }
    }
}
