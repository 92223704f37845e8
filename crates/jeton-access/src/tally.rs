//! Who was handed which tokens, and who was refused: counted as it happens, written to the audit trail in batches; when each use was
//! first and last seen, kept over restarts.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jeton_core::{
    AuditEvent, AuditResource, AuditTrail, Clock, Principal, SharedDirectory, TokenKey, Uid, Wall,
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    AccessStoreError, UseRecord, UseStore,
    refusals::Refusals,
    usage::{Due, Usage, Used, Waiting, Window},
};

/// How long one that is not used stays in memory.
const IDLE: Duration = Duration::from_secs(600);
/// How often first and last uses are stored, and idle ones forgotten.
const STORED_EVERY: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stop waits for room in the trail, and how often it looks.
const ROOM_TIMEOUT: Duration = Duration::from_secs(3);
const ROOM_PAUSE: Duration = Duration::from_millis(10);

/// A cloneable handle on the counts.
#[derive(Clone)]
pub struct Tally(Arc<Shared>);

/// What the tally needs.
pub struct TallyPorts {
    /// Where events go.
    pub trail: Arc<dyn AuditTrail>,
    /// Where first and last uses are kept.
    pub store: Arc<dyn UseStore>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// What identities are called.
    pub directory: SharedDirectory,
}

/// The tally's bounds.
#[derive(Debug, Clone, Copy)]
pub struct TallyBounds {
    /// How long uses are gathered.
    pub batch: Duration,
    /// Refusals of one principal that are written a minute.
    pub refusals_per_minute: u32,
    /// First and last uses that are kept, here and in the store.
    pub most_uses: usize,
}

struct Shared {
    ports: TallyPorts,
    bounds: TallyBounds,
    /// By who is handed the tokens of which key: those of another, by other claims, do not take their place.
    usages: Mutex<HashMap<(Principal, TokenKey), Arc<Usage>>>,
    due: Arc<Due>,
    refusals: Refusals,
    /// First and last uses that are not stored yet.
    unstored: Mutex<HashMap<Used, (Wall, Wall)>>,
}

/// The tally's task. Its owner notices when it dies, and stops it.
#[derive(Debug)]
pub struct TallyTask {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").field("usages", &locked(&self.0.usages).len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for TallyPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TallyPorts").finish_non_exhaustive()
    }
}

impl Tally {
    /// Nothing is written before the task is started.
    pub fn new(ports: TallyPorts, bounds: TallyBounds) -> Self {
        let refusals = Refusals::new(bounds.refusals_per_minute);
        let (usages, due, unstored) = (Mutex::default(), Arc::default(), Mutex::default());
        Self(Arc::new(Shared { ports, bounds, usages, due, refusals, unstored }))
    }

    /// Starts what writes in batches.
    pub fn start(&self) -> TallyTask {
        let (stop, stopped) = watch::channel(false);
        TallyTask { task: tokio::spawn(self.clone().run(stopped)), stop }
    }

    /// Where the uses of this key by this caller are counted.
    pub fn usage(&self, principal: &Principal, key: &TokenKey) -> Arc<Usage> {
        let place = (principal.clone(), key.clone());
        let mut usages = locked(&self.0.usages);
        if let Some(known) = usages.get(&place) {
            return Arc::clone(known);
        }
        let used = Used { principal: principal.clone(), identity: key.identity, target: key.target.clone() };
        let directory = self.0.ports.directory.load();
        let workload = directory.workload_of(&used.principal);
        let workload = workload.map(|w| AuditResource::new(w.name.as_str(), Some(w.uid)));
        let now = self.0.ports.clock.now().wall;
        let made = Arc::new(Usage::new(used, workload, Arc::clone(&self.0.due), now));
        // One that has no place here is counted all the same: it is due by itself.
        if usages.len() < self.0.bounds.most_uses {
            usages.insert(place, Arc::clone(&made));
        }
        made
    }

    /// Whether tokens may be handed out, as far as the trail is concerned.
    pub fn has_room(&self) -> bool {
        self.0.ports.trail.has_room() && self.0.due.has_room()
    }

    /// A caller got no token. What is over the bound is counted.
    pub fn refused(&self, event: AuditEvent) {
        self.0.refusals.refused(event, self.0.ports.clock.now().wall, &*self.0.ports.trail);
    }

    /// Who used an identity for what, and when first and last; the latest first.
    pub async fn uses_of(&self, identity: Uid) -> Result<Vec<UseRecord>, AccessStoreError> {
        self.gather();
        let mut uses = self.0.ports.store.uses_of(identity).await?;
        for (used, (first, last)) in locked(&self.0.unstored).iter().filter(|(u, _)| u.identity == identity) {
            let target = used.target.as_str();
            let same = |u: &&mut UseRecord| u.principal == used.principal && *u.target == *target;
            match uses.iter_mut().find(same) {
                Some(known) => (known.first, known.last) = (known.first.min(*first), known.last.max(*last)),
                None => uses.push(record(used, *first, *last)),
            }
        }
        uses.sort_by(|a, b| b.last.cmp(&a.last).then_with(|| a.principal.cmp(&b.principal)));
        Ok(uses)
    }

    /// Writes down what was counted, as far as the trail has room; the rest goes on waiting. False: there is some.
    pub fn gather(&self) -> bool {
        let mut waiting = self.0.due.take();
        let written = self.write_all(&mut waiting, || self.0.ports.trail.has_room());
        if !written {
            self.0.due.put_back(waiting);
        }
        written
    }

    /// Where there is no room in time the trail is handed everything all the same, and says what it lost.
    async fn gather_last(&self) {
        let room = async {
            while !self.gather() {
                tokio::time::sleep(ROOM_PAUSE).await;
            }
        };
        if tokio::time::timeout(ROOM_TIMEOUT, room).await.is_err() {
            self.write_all(&mut self.0.due.take(), || true);
        }
    }

    fn write_all(&self, waiting: &mut Waiting, has_room: impl Fn() -> bool) -> bool {
        while !waiting.is_empty() && has_room() {
            if let Some((usage, window)) = waiting.windows.pop_front() {
                self.write(&usage, window);
            } else if let Some(usage) = waiting.usages.pop_front() {
                usage.take().into_iter().for_each(|window| self.write(&usage, window));
            }
        }
        waiting.is_empty()
    }

    fn write(&self, usage: &Usage, window: Window) {
        let directory = self.0.ports.directory.load();
        let name = directory.identity(usage.of.identity).map_or("", |identity| identity.name.as_str());
        self.0.ports.trail.note(usage.event(window, name));
        let mut unstored = locked(&self.0.unstored);
        if let Some((first, last)) = unstored.get_mut(&usage.of) {
            (*first, *last) = ((*first).min(window.first), (*last).max(window.last));
        } else if unstored.len() < self.0.bounds.most_uses {
            unstored.insert(usage.of.clone(), (window.first, window.last));
        }
    }

    async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(self.0.bounds.batch);
        let mut store = tokio::time::interval(STORED_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        store.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    self.gather();
                    self.0.refusals.flush(self.0.ports.clock.now().wall, false, &*self.0.ports.trail);
                }
                _ = store.tick() => {
                    self.store().await;
                    self.forget_idle();
                }
                // Gone, or told.
                _ = stopped.changed() => break,
            }
        }
        self.gather_last().await;
        self.0.refusals.flush(self.0.ports.clock.now().wall, true, &*self.0.ports.trail);
        self.store().await;
    }

    async fn store(&self) {
        let taken = std::mem::take(&mut *locked(&self.0.unstored));
        if taken.is_empty() {
            return;
        }
        let records = taken.iter().map(|(used, (first, last))| record(used, *first, *last)).collect();
        if let Err(error) = self.0.ports.store.merge_uses(records, self.0.bounds.most_uses).await {
            tracing::warn!(%error, "first and last uses are not stored; it is tried again: see to the disk of the data directory if it goes on");
            let mut unstored = locked(&self.0.unstored);
            for (used, (first, last)) in taken {
                let kept = unstored.entry(used).or_insert((first, last));
                *kept = (kept.0.min(first), kept.1.max(last));
            }
        }
    }

    fn forget_idle(&self) {
        let now = self.0.ports.clock.now().wall;
        locked(&self.0.usages).retain(|_, usage| now.saturating_since(usage.last()) < IDLE);
    }
}

impl TallyTask {
    /// Ends when the task dies on its own, which it should not.
    pub async fn ended(&mut self) -> &'static str {
        let _ = (&mut self.task).await;
        "the tally of uses"
    }

    /// Writes what is there, and stops, within a bound.
    pub async fn shutdown(self) {
        // It may have died.
        let _ = self.stop.send(true);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(STOP_TIMEOUT, self.task).await.is_err() {
            abort.abort();
        }
    }
}

fn record(used: &Used, first: Wall, last: Wall) -> UseRecord {
    let target = used.target.as_str().into();
    UseRecord { principal: used.principal.clone(), identity: used.identity, target, first, last }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
