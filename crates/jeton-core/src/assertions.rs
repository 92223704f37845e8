//! Client assertions, as the authority's side asks for them.
//!
//! An assertion is spent when it is sent, whatever the answer was: many authorities refuse a `jti` that they have seen. So
//! `take` never gives the same one twice, and preparing one ahead only fills a bounded pool.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use secrecy::SecretString;

use crate::{KeyReferences, Uid, Wall, profile::AssertionProfile};

/// A future that can be stored and sent.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whose assertion, for which authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionRequest {
    /// The identity or authority to which the credential belongs; names the sealed private key.
    pub owner: Uid,
    /// The credential that signs.
    pub credential: Uid,
    /// How the header can name its key.
    pub references: KeyReferences,
    /// `iss` and `sub` (RFC 7523 section 3).
    pub client_id: Arc<str>,
    /// The authority's rules.
    pub profile: Arc<AssertionProfile>,
    /// The authority's clock minus ours, in milliseconds, as learned from its `Date`.
    pub skew_millis: i64,
}

/// A proof of possession for Microsoft Graph's `addKey` and `removeKey`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofRequest {
    /// The identity to which the credential belongs.
    pub owner: Uid,
    /// A credential that is registered already.
    pub credential: Uid,
    /// How the header can name its key.
    pub references: KeyReferences,
    /// `iss`: the object id of the application.
    pub issuer: Arc<str>,
    /// `aud`.
    pub audience: Arc<str>,
    /// As in [`AssertionRequest`].
    pub skew_millis: i64,
}

/// A signed JWT, to be sent once.
#[derive(Clone)]
pub struct Assertion {
    /// The compact serialisation.
    pub jwt: SecretString,
    /// Its `exp`, by our clock.
    pub expires_at: Wall,
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Why no assertion could be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssertionError {
    /// The private key is not there or cannot be opened.
    #[error("the private key of credential {credential} cannot be used: {reason}")]
    Key {
        /// The credential.
        credential: Uid,
        /// What is wrong and what to do, without secrets.
        reason: String,
    },
    /// The key cannot make signatures of the profile's algorithm.
    #[error(
        "the key of credential {credential} cannot sign {algorithm}: rotate the credential or correct the authority's profile"
    )]
    Algorithm {
        /// The credential.
        credential: Uid,
        /// The profile's algorithm.
        algorithm: &'static str,
    },
    /// The signing threads have more work than they may queue.
    #[error("the signing queue is full; try again shortly")]
    Busy,
}

/// Makes client assertions.
pub trait Assertions: Send + Sync + 'static {
    /// One will be sent in `ahead`: signs it off the caller's path and keeps it for [`Assertions::take`], unless it would be too old
    /// by then. Never blocks.
    fn prepare(&self, request: &AssertionRequest, ahead: Duration);

    /// Hands out an assertion that nobody else gets, with enough life left to be sent: prepared, or signed now.
    fn take(&self, request: AssertionRequest) -> BoxFuture<'_, Result<Assertion, AssertionError>>;

    /// Signs a proof of possession.
    fn proof(&self, request: ProofRequest) -> BoxFuture<'_, Result<SecretString, AssertionError>>;

    /// Drops what was prepared for a credential (and its parsed key): it was rotated, disabled or removed.
    fn discard(&self, credential: Uid);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_does_not_show_its_jwt() {
        let assertion = Assertion { jwt: "canary".to_owned().into(), expires_at: Wall::from_secs(1) };
        let shown = format!("{assertion:?}");
        assert!(
            shown.contains("expires_at") && !shown.contains("jwt") && !shown.contains("canary"),
            "{shown}"
        );
    }
}
