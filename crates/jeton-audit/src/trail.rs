//! The handle on the log, and the one thread that writes it.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::{Duration, Instant},
};

use jeton_core::{AuditEvent, AuditProblem, AuditTrail, AuditUnavailable, BoxFuture, Clock, Wall};
use tokio::sync::oneshot;

use crate::{
    AuditKey, AuditSettings, OpenError,
    chain::Own,
    log::{Entry, Log},
    queue::{Batch, Queue, body, is_intent, nap},
    segments::FOLDER,
};

const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a log that failed is left alone, unless somebody waits.
const RETRY: Duration = Duration::from_secs(1);

const DISK: &str = "make room on the disk of the data directory, or make it writable; no restart is needed";
const SLOW: &str = "give the data directory a faster disk, or raise max_queued in [audit]";
const TAMPERING: &str =
    "keep a copy of the log's folder, and see what `jeton audit verify` names: somebody else changed it";

/// Is told of each event that is on disk: its number, when it was, and its members as JSON. It must not wait: the log does.
pub type Follower = Box<dyn Fn(u64, Wall, &str) + Send + Sync>;

/// A cloneable handle on the audit log.
#[derive(Clone)]
pub struct Trail(Arc<Shared>);

struct Shared {
    settings: AuditSettings,
    clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// What [`AuditTrail::has_room`] answers without the lock.
    room: AtomicBool,
    lost: AtomicU64,
    written: AtomicU64,
    ended: AtomicBool,
    /// Why the last write failed, if it did.
    unwritable: Mutex<Option<AuditProblem>>,
    /// What was found wrong at the start.
    alarms: Vec<String>,
    follower: OnceLock<Follower>,
}

/// Numbers about the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrailStats {
    /// The age of the oldest event that is not on disk.
    pub lag: Duration,
    /// Events that are not on disk.
    pub queued: usize,
    /// Events that were dropped since the start.
    pub lost: u64,
    /// Events that were written since the start.
    pub written: u64,
}

/// The log's thread. Its owner notices when it dies, and stops it.
#[derive(Debug)]
pub struct TrailTask {
    trail: Trail,
    ended: oneshot::Receiver<()>,
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trail").field("lost", &self.lost()).finish_non_exhaustive()
    }
}

impl Trail {
    /// Opens the log in a data directory, mends what a kill left half, and starts the thread. `begun`: the key was there before this
    /// start, so that an empty folder is a log that was removed.
    pub fn start(
        data_dir: &Path,
        key: AuditKey,
        begun: bool,
        settings: AuditSettings,
        version: &'static str,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, TrailTask), OpenError> {
        let folder = data_dir.join(FOLDER);
        let shown = folder.display().to_string();
        let (log, alarms) = Log::open(folder, key, begun, settings.clone(), version, clock.now().wall)?;
        for alarm in &alarms {
            tracing::error!(%alarm, "the audit log does not fit together; `jeton audit verify` names the places");
        }
        let trail = Self(Arc::new(Shared {
            settings,
            clock,
            queue: Mutex::default(),
            wake: Condvar::new(),
            room: AtomicBool::new(true),
            lost: AtomicU64::new(0),
            written: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            unwritable: Mutex::default(),
            alarms,
            follower: OnceLock::new(),
        }));
        let (tell, ended) = oneshot::channel();
        let writer = trail.clone();
        let body = move || {
            // Dropped when the thread ends, however it does.
            let _told = (Ending(writer.clone()), tell);
            writer.write(log);
        };
        let started = thread::Builder::new().name("jeton-audit".into()).spawn(body);
        started.map_err(|source| OpenError::Io { folder: shown, source })?;
        Ok((trail.clone(), TrailTask { trail, ended }))
    }

    /// Has somebody told of what is on disk from now on. The first one stays.
    pub fn follow(&self, follower: Follower) {
        // Another one before it stays.
        let _ = self.0.follower.set(follower);
    }

    /// Frequent events that were dropped since the start.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }

    /// Numbers about the log.
    pub fn stats(&self) -> TrailStats {
        let (queued, oldest) = locked(&self.0.queue).waiting();
        let now = self.0.clock.now().wall;
        TrailStats {
            lag: oldest.map_or(Duration::ZERO, |at| now.saturating_since(at)),
            queued,
            lost: self.lost(),
            written: self.0.written.load(Relaxed),
        }
    }

    fn write(&self, mut log: Log) {
        let mut signed_at = Instant::now();
        loop {
            let (batch, closing) = self.next_batch();
            let entries = self.entries(&batch);
            let written = log.append(&entries);
            if written.is_ok() {
                self.tell(&entries, log.last_seq());
            }
            let at = self.0.clock.now().wall;
            // Where nothing waits to be written, a head shows whether a log that failed can be written again.
            let ailing = locked(&self.0.unwritable).is_some();
            let due = closing || ailing || signed_at.elapsed() >= self.0.settings.head_interval();
            let sign = written.is_ok() && due && (ailing || log.has_news());
            let signed = if sign { log.sign(at) } else { Ok(()) };
            if due && signed.is_ok() {
                signed_at = Instant::now();
            }
            let failed = written.is_err();
            self.settle(batch, written, signed);
            if closing && (failed || locked(&self.0.queue).is_empty()) {
                return;
            }
        }
    }

    fn tell(&self, entries: &[Entry], last: u64) {
        if let Some(follower) = self.0.follower.get() {
            let first = last + 1 - entries.len() as u64;
            (first..).zip(entries).for_each(|(seq, (at, body))| follower(seq, *at, body));
        }
    }

    /// Waits for something urgent, or until what is there has waited long enough.
    fn next_batch(&self) -> (Batch, bool) {
        let queue = locked(&self.0.queue);
        let wait = if locked(&self.0.unwritable).is_some() { RETRY } else { nap(&self.0.settings) };
        let waited = self.0.wake.wait_timeout_while(queue, wait, |queue| !queue.is_urgent());
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (queue.take(), queue.closing)
    }

    fn entries(&self, batch: &Batch) -> Vec<Entry> {
        let lost =
            (batch.dropped > 0).then(|| (self.0.clock.now().wall, Own::Lost { lost: batch.dropped }.body()));
        let kept = batch.kept.iter().map(|kept| kept.entry.clone());
        kept.chain(lost).chain(batch.frequent.iter().cloned()).collect()
    }

    /// Tells everybody who waits, and keeps what is to be written later.
    fn settle(&self, batch: Batch, written: io::Result<()>, signed: io::Result<()>) {
        self.note_write(written.as_ref().err().or(signed.as_ref().err()));
        match written {
            Ok(()) => {
                let count = batch.kept.len() + batch.frequent.len();
                self.0.written.fetch_add(count as u64, Relaxed);
                let mut queue = locked(&self.0.queue);
                queue.written();
                self.0.room.store(queue.has_room(&self.0.settings), Relaxed);
                drop(queue);
                if batch.dropped > 0 {
                    tracing::error!(
                        lost = batch.dropped,
                        "audit events were lost: they came faster than they could be written; give the data directory a faster disk, or raise audit.max_queued"
                    );
                }
                for waiter in batch.kept.into_iter().filter_map(|kept| kept.waiter) {
                    // Whoever waited may have gone.
                    let _ = waiter.send(Ok(()));
                }
            }
            Err(error) => {
                let why = AuditUnavailable(format!("{error}; {}", remedy(&error)));
                let mut queue = locked(&self.0.queue);
                queue.put_back(batch, &why, &self.0.settings);
                self.0.room.store(queue.has_room(&self.0.settings), Relaxed);
            }
        }
    }

    /// Remembers how a write ended, and says so when that is another end than before.
    fn note_write(&self, failure: Option<&io::Error>) {
        let mut noted = locked(&self.0.unwritable);
        match (failure, noted.is_some()) {
            (Some(error), false) => {
                tracing::error!(%error, "the audit log cannot be written, so nothing can be changed; serving goes on: `jeton status` says what to do");
            }
            (None, true) => tracing::info!("the audit log can be written again"),
            _ => {}
        }
        *noted = failure.map(|error| AuditProblem {
            message: format!("the audit log cannot be written: {error}"),
            remedy: remedy(error),
        });
    }
}

impl AuditTrail for Trail {
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<(), AuditUnavailable>> {
        let stopped = || AuditUnavailable("its thread has ended".into());
        let intent = is_intent(&event);
        let entry = (self.0.clock.now().wall, body(event));
        let (waiter, told) = oneshot::channel();
        {
            let mut queue = locked(&self.0.queue);
            if !self.0.ended.load(SeqCst) {
                queue.keep(entry, Some(waiter), intent);
            }
        }
        self.0.wake.notify_one();
        Box::pin(async move { told.await.unwrap_or_else(|_| Err(stopped())) })
    }

    fn note(&self, event: AuditEvent) {
        let (frequent, intent) = (event.kind.is_frequent(), is_intent(&event));
        let entry = (self.0.clock.now().wall, body(event));
        let mut queue = locked(&self.0.queue);
        if !frequent {
            return queue.keep(entry, None, intent);
        }
        if queue.note(entry, &self.0.settings) {
            self.0.lost.fetch_add(1, Relaxed);
        }
        self.0.room.store(queue.has_room(&self.0.settings), Relaxed);
        if queue.is_urgent() {
            self.0.wake.notify_one();
        }
    }

    fn has_room(&self) -> bool {
        self.0.room.load(Relaxed)
    }

    fn problems(&self) -> Vec<AuditProblem> {
        let unwritable = locked(&self.0.unwritable).clone();
        let lost = self.lost();
        let lost = (lost > 0).then(|| AuditProblem {
            message: format!(
                "{lost} events were lost since the start: they came faster than they could be written"
            ),
            remedy: SLOW,
        });
        let alarms = self.0.alarms.iter().cloned();
        let alarms = alarms.map(|message| AuditProblem { message, remedy: TAMPERING });
        unwritable.into_iter().chain(lost).chain(alarms).collect()
    }
}

impl TrailTask {
    /// Ends when the thread dies on its own, which it should not.
    pub async fn ended(&mut self) -> &'static str {
        let _ = (&mut self.ended).await;
        "the audit log's thread"
    }

    /// Writes what is there, signs it, and stops, within a bound.
    pub async fn shutdown(self) {
        locked(&self.trail.0.queue).closing = true;
        self.trail.0.wake.notify_one();
        let _ = tokio::time::timeout(STOP_TIMEOUT, self.ended).await;
    }
}

/// Whoever waits for a thread that has died is told so.
struct Ending(Trail);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut queue = locked(&self.0.0.queue);
        self.0.0.ended.store(true, SeqCst);
        // Their waiters are dropped with them.
        *queue = Queue::default();
    }
}

fn remedy(error: &io::Error) -> &'static str {
    if Log::is_tampering(error) { TAMPERING } else { DISK }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
