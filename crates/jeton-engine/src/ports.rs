//! What the engine needs of the world: somebody who issues tokens, and somebody who keeps them over a restart.

use std::{sync::Arc, time::Duration};

use jeton_core::{BoxFuture, IssuedToken, Token, TokenKey, Uid, Wall};

/// Issues tokens for identities; in the product, an authority's token endpoint.
pub trait TokenSource: Send + Sync + 'static {
    /// A refresh of this key comes up within `ahead`: sign an assertion for it now, off everybody's path. Never blocks, may do
    /// nothing.
    fn prepare(&self, key: &TokenKey, ahead: Duration);

    /// One try at one token. Bounded in time by the implementation, whatever the callers' deadlines are.
    fn issue(&self, key: TokenKey) -> BoxFuture<'static, Result<IssuedToken, IssueError>>;

    /// One try at having a token of this key revoked where it was issued (RFC 7009), as bounded as an issuance. None: nothing can be
    /// revoked there. Nothing is sent before the future is polled.
    fn revoke(
        &self,
        key: &TokenKey,
        token: Arc<Token>,
    ) -> Option<BoxFuture<'static, Result<(), IssueError>>> {
        let _ = (key, token);
        None
    }
}

/// Why no token was issued. Cloned for every caller that waited.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct IssueError {
    /// What to do about it.
    pub class: IssueErrorClass,
    /// The authority's Retry-After, counted from the answer.
    pub retry_after: Option<Duration>,
    /// The authority's own code, such as `invalid_client` or `AADSTS700027`, cleaned for display.
    pub code: Option<Arc<str>>,
    /// What happened and what to do, for an administrator. No secrets, no bodies.
    pub message: Arc<str>,
}

/// The classes of failure that the refresh plan tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IssueErrorClass {
    /// Try again with back-off; a valid token stays.
    Transient,
    /// As transient, and the authority wants less traffic.
    Throttled,
    /// The authority refuses: keep the valid token, try rarely, say so loudly.
    Permanent,
    /// Our own credential cannot be used, and nothing was sent: as permanent.
    Credential,
    /// Our own decision: the identity is disabled, deleted or unknown. Evict now.
    Denied,
}

/// A token as it is kept over a restart. The implementation seals it.
#[derive(Debug, Clone)]
pub struct StoredToken {
    /// What it is cached under.
    pub key: TokenKey,
    /// What the authority answered.
    pub token: IssuedToken,
    /// Wall time at the start of the request.
    pub issued_at: Wall,
    /// When its refresh is due.
    pub refresh_at: Wall,
    /// When a caller asked for it last.
    pub last_used: Wall,
    /// Until when tokens of this key may be valid that this one replaced.
    pub earlier_until: Option<Wall>,
}

/// One change to what is kept.
#[derive(Debug, Clone)]
pub enum TokenWrite {
    /// Keep this token, in place of an older one under its key.
    Put(Box<StoredToken>),
    /// Forget the token under this key.
    Remove(TokenKey),
    /// No token request for this identity at this authority before that time (Retry-After).
    Hold(Hold),
    /// Forget every token of a scope. With one of these the batch is on disk for good before the write returns: what was taken back
    /// must not come back after a crash.
    Revoke(Scope),
}

/// Whose tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of one identity.
    Identity(Uid),
    /// Those of all identities at one authority.
    Authority(Uid),
    /// All.
    Everything,
}

impl Scope {
    /// Whether a key is one of them.
    pub fn covers(&self, key: &TokenKey) -> bool {
        match self {
            Self::Identity(uid) => key.identity == *uid,
            Self::Authority(uid) => key.authority == *uid,
            Self::Everything => true,
        }
    }
}

/// A Retry-After in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// The authority that asked for it.
    pub authority: Uid,
    /// The identity that asked.
    pub identity: Uid,
    /// When it ends.
    pub until: Wall,
}

/// What was kept.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Tokens that could be opened.
    pub tokens: Vec<StoredToken>,
    /// Holds.
    pub holds: Vec<Hold>,
    /// How many rows could not be opened; they are left out and logged by name.
    pub unreadable: usize,
}

/// Keeps tokens over a restart. Losing the latest writes costs refreshes and nothing else.
pub trait TokenStore: Send + Sync + 'static {
    /// Everything that is kept.
    fn load(&self) -> BoxFuture<'_, Result<Kept, TokenStoreError>>;

    /// Applies a batch, in order.
    fn write(&self, batch: Vec<TokenWrite>) -> BoxFuture<'_, Result<(), TokenStoreError>>;
}

/// The token store failed. The engine goes on from memory and says so.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the token store failed: {0}")]
pub struct TokenStoreError(pub Arc<str>);
