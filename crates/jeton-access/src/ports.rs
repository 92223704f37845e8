//! Where role assignments are kept.

use std::sync::Arc;

use jeton_core::{BoxFuture, Principal, RoleAssignment, Uid, Wall};

/// Durable role assignments.
pub trait AccessStore: Send + Sync + 'static {
    /// All of them.
    fn load(&self) -> BoxFuture<'_, Result<Vec<RoleAssignment>, AccessStoreError>>;

    /// Applies all writes or none, durably, before it returns.
    fn commit(&self, writes: Vec<AccessWrite>) -> BoxFuture<'_, Result<(), AccessStoreError>>;

    /// What a mutation with this request id did, if it was carried out.
    fn recorded(&self, request_id: String)
    -> BoxFuture<'_, Result<Option<AccessRecorded>, AccessStoreError>>;
}

/// One write of a commit.
#[derive(Debug, Clone)]
pub enum AccessWrite {
    /// Insert.
    Put(Box<RoleAssignment>),
    /// Remove.
    Remove(Uid),
    /// Remember what a request id did.
    Recorded(AccessRecorded),
}

/// A mutation that was carried out, for idempotency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRecorded {
    /// The caller's id for it.
    pub request_id: String,
    /// What it asked for.
    pub fingerprint: String,
    /// The assignment it made or removed.
    pub resource: Uid,
    /// When.
    pub at: Wall,
    /// What was answered, where that cannot be read from what is there.
    pub answer: Option<String>,
}

/// The store failed; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("role assignments cannot be kept: {0}")]
pub struct AccessStoreError(pub Arc<str>);

/// Where the keys of an issuer of tokens are published.
pub trait KeySetSource: Send + Sync + 'static {
    /// The JWK set (RFC 7517) as it is now, or why it cannot be had. Whoever asks limits the time.
    fn fetch(&self) -> BoxFuture<'_, Result<serde_json::Value, String>>;
}

/// Who knows whether a Kubernetes token still counts: the cluster's API server.
pub trait TokenReview: Send + Sync + 'static {
    /// What it says of a token, or why it says nothing. Whoever asks limits the time.
    fn review<'a>(&'a self, token: &'a str, audience: &'a str) -> BoxFuture<'a, Result<Reviewed, String>>;
}

/// The status of a TokenReview (`authentication.k8s.io/v1`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reviewed {
    /// Whether the token counts.
    pub authenticated: bool,
    /// Why it does not.
    pub error: String,
    /// Whose it is.
    pub username: String,
    /// Which one of that name.
    pub uid: String,
    /// For which of the audiences that were asked for; empty from a server that knows no audiences.
    pub audiences: Vec<String>,
    /// The pod that it is bound to.
    pub pod_uid: Option<String>,
}

/// When an identity was first and last used, by whom and for what. Losing it loses that and nothing else.
pub trait UseStore: Send + Sync + 'static {
    /// Keeps the earliest first and the latest last use of each; of more than `most`, those that were used last.
    fn merge_uses(&self, uses: Vec<UseRecord>, most: usize) -> BoxFuture<'_, Result<(), AccessStoreError>>;

    /// The uses of an identity, the latest first; at most [`MOST_USES_TOLD`].
    fn uses_of(&self, identity: Uid) -> BoxFuture<'_, Result<Vec<UseRecord>, AccessStoreError>>;
}

/// Most uses of one identity that are told.
pub const MOST_USES_TOLD: usize = 1_000;

/// One use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UseRecord {
    /// By whom.
    pub principal: Principal,
    /// Of which identity.
    pub identity: Uid,
    /// For what, canonical.
    pub target: Box<str>,
    /// When first.
    pub first: Wall,
    /// When last.
    pub last: Wall,
}
