//! Why a change to the registry was not made.

use crate::{KeyError, StoreError};

/// Says what was wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LifecycleError {
    /// There is no such resource.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The name or principal is taken.
    #[error("{0}")]
    Exists(String),
    /// A field of the request is wrong.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The resource's state does not allow it.
    #[error("{0}")]
    Precondition(String),
    /// The request id was used for another request.
    #[error("request_id {0:?} was used for another request; use a new one")]
    RequestIdReused(String),
    /// Key material is wrong or cannot be made.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The registry's store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl LifecycleError {
    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }
}
