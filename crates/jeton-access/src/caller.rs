//! Who is calling: what a credential proved.

use jeton_core::{BoxFuture, Principal, Wall};

/// A principal that proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    /// Who.
    pub principal: Principal,
    /// When its credential ends; none: with the connection that it came by.
    pub until: Option<Wall>,
}

/// Why a credential proves nothing. For the operator's log; the caller hears only that it is not authenticated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// It is wrong, and stays so.
    #[error("{0}")]
    Credential(String),
    /// It cannot be judged now: whoever could tell does not answer.
    #[error("{0}")]
    Unavailable(String),
}

/// Judges bearer tokens (RFC 6750).
pub trait BearerTokens: Send + Sync + 'static {
    /// What this very token proved before, as long as that counts. Without I/O and without a lock.
    fn remembered(&self, token: &str, now: Wall) -> Option<Authenticated>;

    /// What it proves.
    fn verify<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Authenticated, Rejected>>;

    /// Whose keys cannot be had now, and why.
    fn failing(&self) -> Vec<(String, String)> {
        vec![]
    }
}
