//! Ending in order: no new connections, GOAWAY on the others, what is in flight finishes, and after a deadline everything is cut.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Shared by all doors of a process.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    cut: CancellationToken,
    connections: TaskTracker,
}

impl Drain {
    /// Begins, and returns when everything has ended: at the deadline at the latest.
    pub async fn drain(&self, deadline: Duration) {
        self.begun.cancel();
        self.connections.close();
        if tokio::time::timeout(deadline, self.connections.wait()).await.is_err() {
            self.cut.cancel();
            // A connection ends at once when it is cut; this bound is for a task that cannot be polled any more.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.connections.wait()).await;
        }
    }

    /// Whether one has begun.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Ends when a drain begins.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    pub(crate) async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// Runs what a drain waits for.
    pub(crate) fn track<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.connections.spawn(work)
    }
}
