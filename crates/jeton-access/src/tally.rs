//! Who was handed which tokens, and who was refused: counted as it happens, written to the audit trail in batches; when each use was
//! first and last seen, kept over restarts.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, sync_channel},
    },
    time::Duration,
};

use jeton_core::{
    AuditEvent, AuditResource, AuditTrail, Clock, Principal, SharedDirectory, TokenKey, Uid, Wall,
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    AccessStoreError, UseRecord, UseStore,
    refusals::Refusals,
    usage::{Due, Usage, Used, Window},
};

/// Usages that may wait for a batch; with more, all are looked at.
const LINE: usize = 16_384;
/// How long one that is not used stays in memory.
const IDLE: Duration = Duration::from_secs(600);
/// How often first and last uses are stored, and idle ones forgotten.
const STORED_EVERY: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

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
    usages: Mutex<HashMap<Used, Arc<Usage>>>,
    due: Arc<Due>,
    line: Mutex<Receiver<Arc<Usage>>>,
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
        let (sender, line) = sync_channel(LINE);
        let due = Arc::new(Due { line: sender, overflow: AtomicBool::new(false), before: Mutex::default() });
        let refusals = Refusals::new(bounds.refusals_per_minute);
        let (usages, unstored, line) = (Mutex::default(), Mutex::default(), Mutex::new(line));
        Self(Arc::new(Shared { ports, bounds, usages, due, line, refusals, unstored }))
    }

    /// Starts what writes in batches.
    pub fn start(&self) -> TallyTask {
        let (stop, stopped) = watch::channel(false);
        TallyTask { task: tokio::spawn(self.clone().run(stopped)), stop }
    }

    /// Where the uses of this key by this caller are counted.
    pub fn usage(&self, principal: &Principal, key: &TokenKey) -> Arc<Usage> {
        let (principal, target) = (principal.clone(), key.target.clone());
        let used = Used { principal, identity: key.identity, target };
        let mut usages = locked(&self.0.usages);
        if let Some(known) = usages.get(&used) {
            return Arc::clone(known);
        }
        let directory = self.0.ports.directory.load();
        let workload = directory.workload_of(&used.principal);
        let workload = workload.map(|w| AuditResource::new(w.name.as_str(), Some(w.uid)));
        let now = self.0.ports.clock.now().wall;
        let made = Arc::new(Usage::new(used.clone(), workload, Arc::clone(&self.0.due), now));
        // One that has no place here is counted all the same: it gets into the line by itself.
        if usages.len() < self.0.bounds.most_uses {
            usages.insert(used, Arc::clone(&made));
        }
        made
    }

    /// Whether tokens may be handed out, as far as the trail is concerned.
    pub fn has_room(&self) -> bool {
        self.0.ports.trail.has_room()
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

    /// Writes down everything that was counted, if the trail takes it; what it does not take goes on being counted.
    pub fn gather(&self) {
        if self.has_room() {
            self.write_all();
        }
    }

    fn write_all(&self) {
        let line = locked(&self.0.line);
        // Before the line is read: what comes behind it is seen there.
        let all = self.0.due.overflow.swap(false, Relaxed);
        let before = std::mem::take(&mut *locked(&self.0.due.before));
        before.into_iter().for_each(|(usage, window)| self.write(&usage, window));
        let take = |usage: &Usage| usage.take().into_iter().for_each(|window| self.write(usage, window));
        while let Ok(usage) = line.try_recv() {
            take(&usage);
        }
        if all {
            let usages: Vec<_> = locked(&self.0.usages).values().cloned().collect();
            usages.iter().for_each(|usage| take(usage));
        }
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
        self.write_all();
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
mod tests {
    use jeton_core::{Target, TokenHash, TokenType, audit::testing::MemoryTrail};
    use jeton_testkit::ManualClock;

    use super::*;
    use crate::testing::MemoryUseStore;

    struct World {
        trail: MemoryTrail,
        store: MemoryUseStore,
        clock: ManualClock,
        tally: Tally,
    }

    fn world(most_uses: usize) -> World {
        let (trail, store, clock) =
            (MemoryTrail::default(), MemoryUseStore::default(), ManualClock::default());
        let ports = TallyPorts {
            trail: Arc::new(trail.clone()),
            store: Arc::new(store.clone()),
            clock: Arc::new(clock.clone()),
            directory: SharedDirectory::default(),
        };
        let bounds = TallyBounds { batch: Duration::from_secs(1), refusals_per_minute: 10, most_uses };
        World { trail, store, clock, tally: Tally::new(ports, bounds) }
    }

    fn key(n: u8) -> TokenKey {
        TokenKey {
            identity: Uid::new(Wall::from_secs(1), [n; 10]),
            authority: Uid::LEAST,
            profile_version: 1,
            target: Target::from_canonical("resource:https://a.example").unwrap(),
            claims: None,
            token_type: TokenType::Bearer,
            cnf: None,
        }
    }

    fn token(n: u8) -> TokenHash {
        TokenHash::new(&[n; 32])
    }

    fn counts(trail: &MemoryTrail) -> Vec<(Option<TokenHash>, Option<u64>)> {
        trail.events().iter().map(|e| (e.token, e.count)).collect()
    }

    #[test]
    fn many_uses_are_one_event_for_each_token_with_their_count_and_times() {
        let world = world(100);
        let usage = world.tally.usage(&Principal::loopback_dev(), &key(1));
        let at = Wall::from_secs;
        (10..15).for_each(|s| usage.served(token(1), at(s)));
        (15..17).for_each(|s| usage.served(token(2), at(s)));
        world.tally.gather();
        world.tally.gather();
        usage.served(token(2), at(20));
        world.tally.gather();
        let of = |n| Some(token(n));
        assert_eq!(counts(&world.trail), [(of(1), Some(5)), (of(2), Some(2)), (of(2), Some(1))]);
        let times: Vec<_> =
            world.trail.events().iter().map(|e| (e.first.unwrap(), e.last.unwrap())).collect();
        assert_eq!(times, [(at(10), at(14)), (at(15), at(16)), (at(20), at(20))]);
    }

    #[test]
    fn what_threads_count_at_once_is_one_event_and_they_count_apart_only_within_a_millisecond() {
        let world = world(100);
        let usage = world.tally.usage(&Principal::loopback_dev(), &key(1));
        let served =
            |millis: &[i64]| millis.iter().for_each(|m| usage.served(token(1), Wall::from_millis(*m)));
        let by_another = |millis: &[i64]| {
            std::thread::scope(|scope| scope.spawn(|| served(millis)).join().unwrap());
        };
        served(&[1, 2, 3]);
        by_another(&[4, 5]);
        assert!(!usage.is_apart());
        by_another(&[5, 6, 7]);
        assert!(usage.is_apart());
        served(&[7, 8]);
        assert_eq!(usage.last(), Wall::from_millis(8));
        world.tally.gather();
        assert_eq!(counts(&world.trail), [(Some(token(1)), Some(10))]);
        let event = world.trail.events().remove(0);
        assert_eq!((event.first, event.last), (Some(Wall::from_millis(1)), Some(Wall::from_millis(8))));
        by_another(&[9]);
        world.tally.gather();
        assert_eq!(counts(&world.trail).len(), 2, "what is counted apart begins anew too");
    }

    #[test]
    fn no_use_is_lost_where_threads_count_while_it_is_gathered() {
        let world = world(100);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let usage = world.tally.usage(&Principal::loopback_dev(), &key(1));
                scope.spawn(move || {
                    (0..20_000).for_each(|n| usage.served(token(n as u8 / 100), Wall::from_millis(n / 1_000)))
                });
            }
            (0..50).for_each(|_| world.tally.gather());
        });
        world.tally.gather();
        let all: u64 = world.trail.events().iter().filter_map(|e| e.count).sum();
        assert_eq!(all, 80_000);
    }

    #[test]
    fn what_has_no_place_in_the_line_or_in_memory_is_counted_all_the_same() {
        let world = world(1);
        let usage = |n| world.tally.usage(&Principal::loopback_dev(), &key(n));
        let (kept, other) = (usage(1), usage(2));
        other.served(token(1), Wall::from_secs(1));
        world.tally.gather();
        assert_eq!(counts(&world.trail).len(), 1, "it stood in the line, though not in memory");
        (0..LINE).for_each(|_| world.tally.0.due.line.try_send(Arc::clone(&other)).unwrap());
        kept.served(token(1), Wall::from_secs(1));
        world.tally.gather();
        assert_eq!(counts(&world.trail).len(), 2, "it is in memory, though the line was full");
    }

    #[tokio::test(start_paused = true)]
    async fn first_and_last_use_survive_a_restart_and_are_told_before_they_are_stored() {
        let before = world(100);
        let task = before.tally.start();
        let usage = before.tally.usage(&Principal::loopback_dev(), &key(1));
        usage.served(token(1), before.clock.now().wall);
        let told = before.tally.uses_of(key(1).identity).await.unwrap();
        assert_eq!((told.len(), told[0].first), (1, before.clock.now().wall));
        task.shutdown().await;
        let mut after = world(100);
        let ports = TallyPorts {
            trail: Arc::new(after.trail.clone()),
            store: Arc::new(before.store.clone()),
            clock: Arc::new(before.clock.clone()),
            directory: SharedDirectory::default(),
        };
        after.tally = Tally::new(ports, before.tally.0.bounds);
        let task = after.tally.start();
        before.clock.advance(Duration::from_secs(3_600)).await;
        let usage = after.tally.usage(&Principal::loopback_dev(), &key(1));
        usage.served(token(1), before.clock.now().wall);
        before.clock.advance(Duration::from_secs(11)).await;
        let told = after.tally.uses_of(key(1).identity).await.unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].last.saturating_since(told[0].first), Duration::from_secs(3_600));
        assert!(after.tally.uses_of(key(2).identity).await.unwrap().is_empty());
        before.clock.advance(IDLE).await;
        assert!(locked(&after.tally.0.usages).is_empty(), "what is idle is not kept in memory");
        task.shutdown().await;
    }
}
