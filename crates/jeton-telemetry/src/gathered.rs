//! Metrics, gathered when somebody asks; at most once a second, whoever asks how often.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use crate::{Exports, Signal, Snapshot, instrument, otlp::Counts, process};

const AGE: Duration = Duration::from_secs(1);

/// Who fills a snapshot with what was counted.
pub type Observer = Arc<dyn Fn(&mut Snapshot) + Send + Sync>;

/// A cloneable handle on what the broker tells.
#[derive(Clone)]
pub struct Gathered(Arc<Shared>);

struct Shared {
    observer: Observer,
    started: Instant,
    last: Mutex<Option<(Instant, Arc<Snapshot>)>>,
    exports: [Arc<Counts>; Signal::ALL.len()],
}

impl fmt::Debug for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathered").finish_non_exhaustive()
    }
}

impl Gathered {
    /// From an observer, and what became of the exports. `started`: when the process did.
    pub fn new(observer: Observer, exports: &Exports, started: Instant) -> Self {
        let exports = Signal::ALL.map(|signal| exports.counts(signal));
        Self(Arc::new(Shared { observer, started, last: Mutex::default(), exports }))
    }

    /// What there is, at most a second old. Whoever asks meanwhile waits for the same.
    pub(crate) async fn snapshot(&self) -> Arc<Snapshot> {
        let mut last = self.0.last.lock().await;
        if let Some((at, snapshot)) = &*last
            && at.elapsed() < AGE
        {
            return Arc::clone(snapshot);
        }
        let gathered = self.clone();
        // A million slots take a while to look at: not on a thread that serves.
        let made = tokio::task::spawn_blocking(move || gathered.gather()).await;
        let snapshot = Arc::new(made.unwrap_or_else(|error| {
            tracing::error!(%error, "the metrics could not be gathered: report it with this line");
            Snapshot::default()
        }));
        *last = Some((Instant::now(), Arc::clone(&snapshot)));
        snapshot
    }

    fn gather(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        (self.0.observer)(&mut snapshot);
        process::observe(&mut snapshot, self.0.started);
        for (signal, counts) in Signal::ALL.iter().zip(&self.0.exports) {
            let signal_name = signal.as_str();
            snapshot.count(&instrument::EXPORTS, [signal_name, "ok"], counts.ok.get());
            snapshot.count(&instrument::EXPORTS, [signal_name, "failed"], counts.failed.get());
            // Metrics do not wait in a queue: the next push tells all.
            if *signal != Signal::Metrics {
                snapshot.count(&instrument::DROPPED, [signal_name], counts.dropped.get());
            }
        }
        snapshot
    }
}
