//! The place in the cache for one token key.
//!
//! The token is swapped whole and read without a lock. Everything else that changes is behind one short mutex that the hit path
//! never takes.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use jeton_core::{Freshness, Mono, Now, Phases, Principal, Token, TokenKey, Wall, refresh::UNUSED_REFRESHES};
use jeton_trace::{Context, Span};
use tokio::sync::{SetOnce, watch};

use crate::{Encoded, Hit, IssueError};

/// The time of use is written down when the one before is this old: a slot that all threads read should not be written by each.
const USED_MILLIS: u64 = 1_000;

const NEVER: u64 = u64::MAX;

/// A token with its wire bytes. A hit reads the phases and the bytes, and nothing behind the reference.
#[derive(Debug)]
pub(crate) struct Cached {
    pub(crate) phases: Phases,
    pub(crate) encoded: Encoded,
    pub(crate) token: Arc<Token>,
    /// Whoever waited for it and has not got it yet gets another one.
    pub(crate) revoked: AtomicBool,
}

/// What watchers see; the latest wins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) token: Option<Arc<Cached>>,
    /// Counts tokens.
    pub(crate) generation: u64,
    pub(crate) error: Option<IssueError>,
    /// Counts failures, so that the same error again is news.
    pub(crate) failures: u64,
    /// Counts revocations: each ends the watches that began before it.
    pub(crate) revocations: u64,
    pub(crate) ended: bool,
}

/// A flight under way, for whoever joins it.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    landing: Landing,
    /// Of its span, if it is recorded.
    context: Option<Arc<Context>>,
}

/// How a flight ended, for everybody who waits for it.
pub(crate) type Landing = Arc<SetOnce<Result<Arc<Cached>, crate::TokenError>>>;

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) key: TokenKey,
    pub(crate) owner: Principal,
    pub(crate) token: ArcSwapOption<Cached>,
    /// Until when it is kept fresh although nobody asks, in wall milliseconds.
    pinned: AtomicI64,
    /// Until when tokens may be valid that were handed out from here and replaced, in wall milliseconds.
    earlier: AtomicI64,
    /// When the queue brings it up, on the boot-time clock; [`NEVER`]: it stands in no line. Written under the queue's lock.
    due: AtomicU64,
    /// Which of the queue's entries stands for it. Written with that.
    entry: AtomicU64,
    /// Its place in a line of its authority; [`NEVER`]: none. Written under the lock of the lines.
    place: AtomicU64,
    /// Its place in the order of recency; [`NEVER`]: none. Written under the lock of that.
    rank: AtomicU64,
    pub(crate) weight: AtomicU64,
    /// Taken over from before a restart, and not asked for since.
    pub(crate) restored: AtomicBool,
    /// Made for the first who watches: most slots are never watched, and it is as large as the rest of the slot.
    seen: OnceLock<watch::Sender<Seen>>,
    used_wall: AtomicU64,
    /// On the monotonic clock: while the machine sleeps, nobody can use anything.
    used_mono: AtomicU64,
    /// Refreshes since somebody used it.
    unused: AtomicU32,
    /// When its use was last told to the measure of recency, on the monotonic clock.
    told: AtomicU64,
    state: Mutex<State>,
}

/// What only flights and the queue look at.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) flight: Option<Flight>,
    /// Failed tries in a row.
    pub(crate) failures: u32,
    pub(crate) last_error: Option<IssueError>,
    /// No try before, on the boot-time clock.
    pub(crate) retry_at: Option<Mono>,
    /// When a report forced a refresh last.
    pub(crate) forced_at: Option<Mono>,
    /// Whether an assertion was asked for ahead of the coming refresh.
    pub(crate) prepared: bool,
    /// Whether the flight, or the last one, was started by the queue, and not by a caller.
    pub(crate) by_itself: bool,
    /// Counts revocations: what a flight asked for before the latest is nobody's.
    pub(crate) revocations: u64,
    /// Whether the slot has left the index.
    pub(crate) gone: bool,
}

impl Flight {
    pub(crate) fn new(landing: Landing, span: &Span) -> Self {
        Self { landing, context: span.context().cloned().map(Arc::new) }
    }

    /// For whoever waits from now on: what it does meanwhile is linked to the flight.
    pub(crate) fn join(&self) -> Landing {
        jeton_trace::current().link(self.context.as_deref());
        Arc::clone(&self.landing)
    }
}

impl Slot {
    pub(crate) fn new(key: TokenKey, owner: Principal, now: Now) -> Self {
        let slot = Self {
            key,
            owner,
            token: ArcSwapOption::empty(),
            pinned: AtomicI64::new(i64::MIN),
            earlier: AtomicI64::new(i64::MIN),
            due: AtomicU64::new(NEVER),
            entry: AtomicU64::new(NEVER),
            place: AtomicU64::new(NEVER),
            rank: AtomicU64::new(NEVER),
            weight: AtomicU64::new(0),
            restored: AtomicBool::new(false),
            seen: OnceLock::new(),
            used_wall: AtomicU64::new(0),
            used_mono: AtomicU64::new(now.mono.as_millis()),
            unused: AtomicU32::new(0),
            told: AtomicU64::new(now.mono.as_millis()),
            state: Mutex::default(),
        };
        slot.used_wall.store(u64::try_from(now.wall.as_millis()).unwrap_or(0), Relaxed);
        slot
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether neither the queue nor a flight looks after the slot. A hit does not wait to know it for sure.
    pub(crate) fn forgotten(&self) -> bool {
        self.due().is_none()
            && self.place().is_none()
            && self.state.try_lock().is_ok_and(|state| state.flight.is_none())
    }

    pub(crate) fn due(&self) -> Option<Mono> {
        Some(self.due.load(Relaxed)).filter(|due| *due != NEVER).map(Mono::from_millis)
    }

    pub(crate) fn entry(&self) -> Option<u64> {
        Some(self.entry.load(Relaxed)).filter(|entry| *entry != NEVER)
    }

    pub(crate) fn set_due(&self, due: Option<(Mono, u64)>) {
        self.due.store(due.map_or(NEVER, |(due, _)| due.as_millis()), Relaxed);
        self.entry.store(due.map_or(NEVER, |(_, entry)| entry), Relaxed);
    }

    pub(crate) fn place(&self) -> Option<u64> {
        Some(self.place.load(Relaxed)).filter(|place| *place != NEVER)
    }

    pub(crate) fn set_place(&self, place: Option<u64>) {
        self.place.store(place.unwrap_or(NEVER), Relaxed);
    }

    pub(crate) fn rank(&self) -> Option<u64> {
        Some(self.rank.load(Relaxed)).filter(|rank| *rank != NEVER)
    }

    pub(crate) fn set_rank(&self, rank: Option<u64>) {
        self.rank.store(rank.unwrap_or(NEVER), Relaxed);
    }

    /// Somebody uses it. The answer is whether nobody was expected to.
    pub(crate) fn mark_used(&self, now: Now) -> bool {
        let restored = self.restored.load(Relaxed);
        if restored {
            self.restored.store(false, Relaxed);
        }
        let left_alone = self.unused.load(Relaxed);
        if left_alone > 0 {
            self.unused.store(0, Relaxed);
        }
        if now.mono.as_millis().saturating_sub(self.used_mono.load(Relaxed)) >= USED_MILLIS {
            self.used_mono.store(now.mono.as_millis(), Relaxed);
            self.used_wall.store(u64::try_from(now.wall.as_millis()).unwrap_or(0), Relaxed);
        }
        restored || left_alone >= UNUSED_REFRESHES
    }

    /// Whether it was used since this was asked last.
    pub(crate) fn used_since_told(&self, now: Now) -> bool {
        self.told.swap(now.mono.as_millis(), Relaxed) < self.used_mono.load(Relaxed)
    }

    /// It was refreshed, and not because somebody asked.
    pub(crate) fn mark_refreshed(&self) {
        self.unused.fetch_add(1, Relaxed);
    }

    /// Taken over from before a restart.
    pub(crate) fn restore_used(&self, wall: Wall, lifetime: Duration, now: Now) {
        let age = now.wall.saturating_since(wall);
        let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.used_mono.store(now.mono.as_millis().saturating_sub(millis), Relaxed);
        self.used_wall.store(u64::try_from(wall.as_millis()).unwrap_or(0), Relaxed);
        self.unused.store(if age < lifetime * 2 { 0 } else { UNUSED_REFRESHES }, Relaxed);
        self.restored.store(true, Relaxed);
    }

    /// When it was used last.
    pub(crate) fn last_used_wall(&self) -> Wall {
        Wall::from_millis(i64::try_from(self.used_wall.load(Relaxed)).unwrap_or(0))
    }

    /// How long ago that was, by the monotonic clock.
    pub(crate) fn idle(&self, now: Now) -> Duration {
        now.mono.saturating_since(Mono::from_millis(self.used_mono.load(Relaxed)))
    }

    /// What may be served now, shown to `serve`.
    pub(crate) fn serve<R>(
        &self,
        now: Now,
        serve: impl FnOnce(&Cached, Freshness) -> R,
    ) -> Option<(R, Freshness)> {
        let cached = self.token.load();
        let cached = cached.as_ref()?;
        match cached.phases.at(now) {
            Freshness::Expired => None,
            state => Some((serve(cached, state), state)),
        }
    }

    /// What may be served now.
    pub(crate) fn hit(&self, now: Now) -> Option<Hit> {
        self.serve(now, Hit::of).map(|(hit, _)| hit)
    }

    /// Follows the slot from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Seen> {
        // Under the lock, as tokens are swapped and slots leave: what is not told is in what it begins with.
        let state = self.state();
        let begin = || {
            let token = self.token.load_full();
            watch::Sender::new(Seen { token, generation: 1, ended: state.gone, ..Seen::default() })
        };
        self.seen.get_or_init(begin).subscribe()
    }

    /// Shows a change to the watchers, if there ever were any.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = self.seen.get() {
            seen.send_modify(change);
        }
    }

    /// Shows a failure to the watchers.
    pub(crate) fn tell_failure(&self, error: &IssueError) {
        self.tell(|seen| {
            seen.error = Some(error.clone());
            seen.failures += 1;
        });
    }

    /// A token that was handed out from here is valid until then, and is not here any more.
    pub(crate) fn note_earlier(&self, until: Wall) {
        self.earlier.fetch_max(until.as_millis(), Relaxed);
    }

    /// Until when such tokens may be valid, if there were any.
    pub(crate) fn earlier_until(&self) -> Option<Wall> {
        Some(self.earlier.load(Relaxed)).filter(|until| *until != i64::MIN).map(Wall::from_millis)
    }

    pub(crate) fn watched(&self) -> bool {
        self.seen.get().is_some_and(|seen| seen.receiver_count() > 0)
    }

    /// Keeps it fresh at least until then.
    pub(crate) fn pin(&self, until: Wall) {
        self.pinned.fetch_max(until.as_millis(), Relaxed);
    }

    pub(crate) fn unpin(&self) {
        self.pinned.store(i64::MIN, Relaxed);
    }

    pub(crate) fn is_pinned(&self, now: Now) -> bool {
        now.wall.as_millis() < self.pinned.load(Relaxed) || self.watched()
    }

    /// Whether it may be dropped to make room.
    pub(crate) fn evictable(&self, now: Now) -> bool {
        !self.is_pinned(now) && self.state().flight.is_none()
    }

    /// Whether a refresh is worth its call: somebody used it since the last but one, or it is pinned. Without a token that can be served
    /// it must have been used in two lifetimes.
    pub(crate) fn wanted(&self, cached: &Cached, now: Now) -> bool {
        let unused = self.unused.load(Relaxed) >= UNUSED_REFRESHES;
        let expired =
            || cached.phases.at(now) == Freshness::Expired && self.idle(now) >= cached.token.lifetime() * 2;
        self.is_pinned(now) || !(unused || expired())
    }

    /// Bytes of the key and the token, and of everything that is kept beside them: what a slot costs the process, as `tests/memory.rs`
    /// measures it.
    pub(crate) fn bytes(&self) -> u64 {
        let key = self.key.target.as_str().len() * 2
            + self.key.claims.as_ref().map_or(0, |c| c.as_str().len())
            + 3_100;
        let token = self.token.load().as_ref().map_or(0, |c| c.encoded.bytes.len() + 360);
        (key + token) as u64
    }
}
