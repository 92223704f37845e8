//! Following one token: the current one at once, every refreshed one after it, the latest for a slow reader.

use std::sync::Arc;

use jeton_core::{Clock, Freshness};
use tokio::sync::watch;

use crate::{Hit, IssueError, slot::Seen};

/// What happened to a watched token.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// The current or a refreshed token.
    Token(Hit),
    /// A refresh failed; the token before stays valid until it expires.
    Failed(IssueError),
    /// The token was taken back. The last event: whoever watches anew gets a new one.
    Revoked,
}

/// Follows one slot. As long as it lives, the slot stays fresh and in the cache.
pub struct Watch {
    pub(crate) seen: watch::Receiver<Seen>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shown: u64,
    pub(crate) failures: u64,
    pub(crate) revocations: u64,
    /// Whether the last event was told.
    pub(crate) over: bool,
    /// Why there is no token at the start.
    pub(crate) first: Option<IssueError>,
    pub(crate) _counted: (crate::engine::WatchCount, crate::callers::Held),
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// The next event; none when the slot is gone (identity disabled or deleted), or was taken back.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if self.over {
                return None;
            }
            if let Some(event) = self.unseen() {
                return Some(event);
            }
            if self.seen.borrow().ended || self.seen.changed().await.is_err() {
                return None;
            }
        }
    }

    fn unseen(&mut self) -> Option<WatchEvent> {
        let seen = self.seen.borrow_and_update().clone();
        if seen.revocations != self.revocations {
            self.over = true;
            return Some(WatchEvent::Revoked);
        }
        if let Some(error) = self.first.take() {
            return Some(WatchEvent::Failed(error));
        }
        if let Some(cached) = &seen.token
            && self.shown != seen.generation
        {
            self.shown = seen.generation;
            if seen.error.is_none() {
                // What failed before this token is over; what failed after it is told next.
                self.failures = seen.failures;
            }
            let state = cached.phases.at(self.clock.now());
            if state != Freshness::Expired {
                return Some(WatchEvent::Token(Hit::of(cached, state)));
            }
        }
        if seen.failures != self.failures {
            self.failures = seen.failures;
            return seen.error.map(WatchEvent::Failed);
        }
        None
    }
}
