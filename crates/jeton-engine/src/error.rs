//! Why a caller gets no token from the engine.

use std::time::Duration;

use crate::IssueError;

/// Cloned for everybody who waited for the same flight.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The authority did not issue one.
    #[error("{0}")]
    Authority(IssueError),
    /// The caller's own deadline, or the longest wait, passed first. The flight goes on.
    #[error("the authority did not answer in time; the request to it goes on, so try again")]
    Deadline,
    /// A bound of this broker.
    #[error("{what}")]
    Overloaded {
        /// Which bound.
        what: &'static str,
        /// When to come again.
        retry_after: Duration,
    },
    /// A limit of this caller's own.
    #[error(
        "this caller is over its own limit of {what} ({limit}): ask for fewer, or have the limit raised on its role assignment"
    )]
    OverLimit {
        /// Of what.
        what: &'static str,
        /// The setting.
        limit: &'static str,
        /// When to come again.
        retry_after: Duration,
    },
    /// More remaining life was asked for than a refresh can promise.
    #[error("min_validity of {asked:?} is more than 40 % of the token's life of {lifetime:?}: ask for less")]
    MinValidity {
        /// What was asked for.
        asked: Duration,
        /// The token's whole life.
        lifetime: Duration,
    },
    /// The identity may not be used any more.
    #[error("the identity is disabled or deleted")]
    Denied,
    /// The broker is about to stop.
    #[error("the broker is about to stop; connect anew")]
    ShuttingDown,
}
