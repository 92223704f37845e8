//! The client: what callers hold.

use std::{fmt, sync::Arc};

use jeton_proto::v1;
use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    builder::Builder,
    error::Error,
    flight::Core,
    poll::poll,
    target::{Asked, Key, Target},
    token::Token,
    watch::watch,
};

/// Access tokens from a broker, kept fresh in memory. Cloning it copies a pointer; one for the whole program is right.
///
/// Dropping the last clone ends the task behind it.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    task: AbortHandle,
}

impl Client {
    /// Begins to set one up.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The current token of an identity for a target: one scope, a list of scopes, or a [`Target`].
    ///
    /// `identity` is a name such as `identities/billing`; empty, it is the system-assigned identity of the caller's workload.
    ///
    /// When the token is in memory and has life enough left (30 s, of short-lived ones a quarter) this neither waits nor allocates.
    /// Otherwise it asks the broker, at most for [`Builder::timeout`]; callers of one token share one question.
    ///
    /// # Errors
    ///
    /// Says whose fault it is and whether a retry helps; what may pass by itself has been tried again within the time allowed.
    pub async fn token<'a>(&self, identity: &'a str, target: impl Into<Target<'a>>) -> Result<Token, Error> {
        let asked = Asked { identity, target: target.into() };
        match self.0.core.near.token(&asked) {
            Some(token) => Ok(token),
            // On the heap, so that callers do not carry it around.
            None => Box::pin(self.0.core.ask(&Key::from(asked), None)).await,
        }
    }

    /// Tells the broker that a resource refused a token that has not expired: its authority is asked for another, for each token at most
    /// once in 60 s. [`token`](Self::token) hands out the old one until the new one is in.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token).
    pub async fn report_rejected(&self, token: &Token) -> Result<Report, Error> {
        let core = &self.0.core;
        let request = token.0.key.report(token.0.sha256());
        Ok(match core.report(request).await? {
            v1::ReportOutcome::Superseded => {
                // A question that went out before may bring the old one once more.
                if core.ask(&token.0.key, Some(token)).await?.0.same(&token.0) {
                    core.ask(&token.0.key, Some(token)).await?;
                }
                Report::Superseded
            }
            v1::ReportOutcome::TooSoon => Report::TooSoon,
            v1::ReportOutcome::Refreshing | v1::ReportOutcome::Unspecified => {
                core.near.reject(token);
                Report::Refreshing
            }
        })
    }

    /// Starts the task.
    pub(crate) fn start(core: Core, runtime: &Handle) -> Self {
        let core = Arc::new(core);
        let kept = Arc::clone(&core);
        let task = runtime.spawn(async move {
            tokio::join!(watch(&kept), poll(&kept));
        });
        Self(Arc::new(Inner { core, task: task.abort_handle() }))
    }
}

/// Without the task nothing goes stale unseen: a token that runs out is asked for by whoever needs it.
impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// What a report led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// The authority is asked for a new token.
    Refreshing,
    /// There was a newer token already, and it is in memory now.
    Superseded,
    /// This token is new, from a report less than 60 s ago: its refusal has another cause.
    TooSoon,
}
