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
/// How often a stop looks for room in the trail.
const STOP_PAUSE: Duration = Duration::from_millis(10);

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
        let written = self.write_all(&mut waiting);
        if !written {
            self.0.due.put_back(waiting);
        }
        written
    }

    fn write_all(&self, waiting: &mut Waiting) -> bool {
        let trail = &self.0.ports.trail;
        while trail.has_room() {
            let Some((usage, window)) = waiting.windows.pop_front() else { break };
            self.write(&usage, window);
        }
        while waiting.windows.is_empty() && trail.has_room() {
            let Some(usage) = waiting.usages.pop_front() else { return true };
            usage.take().into_iter().for_each(|window| self.write(&usage, window));
        }
        waiting.windows.is_empty() && waiting.usages.is_empty()
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
        // Within the bound of a stop.
        while !self.gather() {
            tokio::time::sleep(STOP_PAUSE).await;
        }
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
    use jeton_core::{Claims, Target, TokenHash, TokenType, audit::testing::MemoryTrail};
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
        for (threads, uses_of_a_token) in [(1, 20_000), (4, 20_000), (4, 100)] {
            let world = world(100);
            let counting = std::sync::atomic::AtomicUsize::new(threads);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    let usage = world.tally.usage(&Principal::loopback_dev(), &key(1));
                    let counting = &counting;
                    scope.spawn(move || {
                        for n in 0..20_000_u32 {
                            usage.served(
                                token((n / uses_of_a_token) as u8),
                                Wall::from_millis((n / 1_000).into()),
                            );
                        }
                        counting.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    });
                }
                while counting.load(std::sync::atomic::Ordering::SeqCst) > 0 {
                    world.tally.gather();
                }
            });
            world.tally.gather();
            let mut all = HashMap::new();
            for (token, count) in counts(&world.trail) {
                *all.entry(token.unwrap()).or_insert(0) += count.unwrap();
            }
            let each = u64::from(uses_of_a_token) * threads as u64;
            assert!(all.values().all(|count| *count == each), "{all:?}");
            assert_eq!(all.len() as u32, 20_000 / uses_of_a_token);
        }
    }

    #[test]
    fn tokens_of_one_target_by_other_claims_that_take_turns_are_an_event_each() {
        let world = world(100);
        let claims = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#;
        let other = TokenKey { claims: Claims::parse(claims).unwrap(), ..key(1) };
        for _ in 0..100 {
            world.tally.usage(&Principal::loopback_dev(), &key(1)).served(token(1), Wall::from_secs(1));
            world.tally.usage(&Principal::loopback_dev(), &other).served(token(2), Wall::from_secs(1));
        }
        world.tally.gather();
        assert_eq!(counts(&world.trail), [(Some(token(1)), Some(100)), (Some(token(2)), Some(100))]);
    }

    #[test]
    fn what_the_trail_has_no_room_for_waits_and_so_does_what_has_no_place_in_memory() {
        let world = world(1);
        let usage = |n| world.tally.usage(&Principal::loopback_dev(), &key(n));
        let (kept, other) = (usage(1), usage(2));
        world.trail.set_broken(true);
        for used in [&kept, &other] {
            used.served(token(1), Wall::from_secs(1));
            used.served(token(2), Wall::from_secs(2));
            assert!(!world.tally.gather());
        }
        assert!(counts(&world.trail).is_empty());
        world.trail.set_broken(false);
        assert!(world.tally.gather());
        let once = |n| (Some(token(n)), Some(1));
        assert_eq!(counts(&world.trail), [once(1), once(1), once(2), once(2)]);
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
