//! Ending in order: no new connections, GOAWAY on the others, what is in flight finishes, and after a deadline everything is cut.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::accept::Counters;

/// Shared by all doors of a process.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    cut: CancellationToken,
    connections: TaskTracker,
    doors: Arc<Mutex<Doors>>,
}

/// By their names, for whoever reads of what was cut.
type Doors = Vec<(&'static str, Arc<Counters>)>;

impl Drain {
    /// Begins, and returns when everything has ended: at the deadline at the latest.
    pub async fn drain(&self, deadline: Duration) {
        self.begun.cancel();
        self.connections.close();
        if tokio::time::timeout(deadline, self.connections.wait()).await.is_err() {
            self.tell_what_is_cut(deadline);
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

    /// Whose connections it ends.
    pub(crate) fn ends(&self, door: &'static str, counters: Arc<Counters>) {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).push((door, counters));
    }

    fn tell_what_is_cut(&self, deadline: Duration) {
        for (door, counters) in self.doors.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let (connections, after_seconds) = (counters.open.load(Relaxed), deadline.as_secs_f64());
            if connections > 0 {
                tracing::warn!(
                    door,
                    connections,
                    after_seconds,
                    "a stop cuts connections that did not end in time: their peers do not read, or go on with calls; if these need longer, raise door.drain_deadline_ms"
                );
            }
        }
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
