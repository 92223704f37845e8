//! Where role assignments are kept.

use std::sync::Arc;

use jeton_core::{BoxFuture, RoleAssignment, Uid, Wall};

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
