//! The handle: hits, misses, watches.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use jeton_core::{Clock, Freshness, Now, Principal, Token, TokenKey, Wall, refresh::LONGEST_MIN_VALIDITY};
use jeton_trace::Tracer;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Account, Encoded, EngineSettings, IssueError, TokenError, TokenSource, Watch,
    callers::{Callers, Lasting},
    counts::Counts,
    flight::Wish,
    gate::Gate,
    index::Index,
    line::Lines,
    queue::Queue,
    revoke::Leavings,
    slot::{Cached, Flight, Landing, Slot},
    start::{Draw, Encoder},
    writer::Writer,
};

/// A token for a caller.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The token.
    pub token: Arc<Token>,
    /// What is handed out of it, made once for all callers.
    pub encoded: Encoded,
    /// Fresh or stale.
    pub state: Freshness,
}

impl Hit {
    pub(crate) fn of(cached: &Cached, state: Freshness) -> Self {
        Self { token: Arc::clone(&cached.token), encoded: cached.encoded.clone(), state }
    }
}

/// The place of a key, for whoever asks for it again and again: spares the look-up. It never keeps a slot in the cache; when the
/// slot has left it, there is nothing to be had here any more.
#[derive(Clone)]
pub struct Seat(Arc<Slot>);

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seat").field(&self.0.key).finish()
    }
}

/// Who asks, and how long for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Who: what is counted and limited.
    pub caller: Account,
    /// The caller's own deadline, from now; none: the engine's longest wait.
    pub wait: Option<Duration>,
    /// The least life that the token must have left.
    pub min_validity: Option<Duration>,
}

/// A cloneable handle on the one engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) settings: EngineSettings,
    pub(crate) index: Index,
    pub(crate) gate: Gate,
    pub(crate) callers: Callers,
    pub(crate) queue: Queue,
    pub(crate) lines: Lines,
    pub(crate) writer: Writer,
    pub(crate) source: Arc<dyn TokenSource>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) encoder: Encoder,
    pub(crate) draw: Draw,
    pub(crate) flights: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) leavings: Leavings,
    pub(crate) counts: Counts,
    pub(crate) tracer: Tracer,
    waiters: AtomicU32,
    watches: Arc<AtomicU32>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("slots", &self.shared.index.len()).finish_non_exhaustive()
    }
}

impl Shared {
    #[allow(clippy::too_many_arguments, reason = "called once, by start")]
    pub(crate) fn new(
        settings: EngineSettings,
        gate: Gate,
        writer: Writer,
        source: Arc<dyn TokenSource>,
        clock: Arc<dyn Clock>,
        encoder: Encoder,
        draw: Draw,
        tracer: Tracer,
    ) -> Self {
        Self {
            index: Index::new(&settings, writer.clone()),
            gate,
            callers: Callers::new(&settings),
            queue: Queue::default(),
            lines: Lines::default(),
            writer,
            source,
            clock,
            encoder,
            draw,
            flights: TaskTracker::new(),
            stop: CancellationToken::new(),
            leavings: Leavings::default(),
            counts: Counts::default(),
            tracer,
            waiters: AtomicU32::new(0),
            watches: Arc::default(),
            settings,
        }
    }

    /// Callers that wait, and watches.
    pub(crate) fn lasting(&self) -> (u32, u32) {
        (self.waiters.load(Relaxed), self.watches.load(Relaxed))
    }
}

impl Engine {
    /// The token in memory, if it may be served. No lock, no wait.
    pub fn cached(&self, key: &TokenKey) -> Option<Hit> {
        let hit = self.in_memory(key)?;
        self.count_hit(hit.state);
        Some(hit)
    }

    fn count_hit(&self, state: Freshness) {
        self.shared.counts.hit(state);
        let result = if state == Freshness::Fresh { "fresh" } else { "stale" };
        jeton_trace::current().text("jeton.lookup.result", result);
    }

    fn in_memory(&self, key: &TokenKey) -> Option<Hit> {
        let slot = self.shared.index.find(key)?;
        self.hit(&slot, self.shared.clock.now(), Hit::of)
    }

    /// The key's place, if it has one.
    pub fn seat(&self, key: &TokenKey) -> Option<Seat> {
        self.shared.index.find(key).map(Seat)
    }

    /// The same as [`Engine::cached`] for a place that is known: shows what is handed out to `serve`, and counts no reference and no
    /// look-up ([`Engine::count_served`]).
    pub fn serve<R>(&self, seat: &Seat, now: Now, serve: impl FnOnce(&Encoded, Freshness) -> R) -> Option<R> {
        self.hit(&seat.0, now, |cached, state| serve(&cached.encoded, state))
    }

    fn hit<R>(&self, slot: &Arc<Slot>, now: Now, serve: impl FnOnce(&Cached, Freshness) -> R) -> Option<R> {
        let (served, state) = slot.serve(now, serve)?;
        let unexpected = slot.mark_used(now);
        // A slot that nobody used was left alone, or was only being warmed up; now somebody does.
        if unexpected || (state == Freshness::Stale && slot.forgotten()) {
            self.shared.queue.push(slot, now.boot);
        }
        Some(served)
    }

    /// A token: from memory, or from the authority within the caller's deadline.
    pub async fn token(&self, key: &TokenKey, ask: Ask) -> Result<Hit, TokenError> {
        if let Some(hit) = self.in_memory(key)
            && self.valid_long_enough(&hit, &ask)?
        {
            self.count_hit(hit.state);
            return Ok(hit);
        }
        self.shared.counts.missed.add();
        jeton_trace::current().text("jeton.lookup.result", "miss");
        self.shared.counts.refused(self.waited_for(key, ask).await)
    }

    async fn waited_for(&self, key: &TokenKey, ask: Ask) -> Result<Hit, TokenError> {
        let shared = &self.shared;
        if shared.stop.is_cancelled() {
            return Err(TokenError::ShuttingDown);
        }
        let _waiting =
            Counted::enter(&shared.waiters, shared.settings.max_waiters).ok_or(TokenError::Overloaded {
                what: "too many callers wait for authorities",
                retry_after: Duration::from_secs(1),
            })?;
        let _its_own = shared.callers.enter(&ask.caller, Lasting::Waiting, shared.clock.now())?;
        let wait = ask.wait.unwrap_or_else(|| shared.settings.max_wait()).min(shared.settings.max_wait());
        let landed = tokio::time::timeout(wait, self.landed(key, &ask.caller));
        let hit = landed.await.map_err(|_| TokenError::Deadline)??;
        let now = shared.clock.now();
        let state = hit.phases.at(now);
        let hit = Hit::of(&hit, state);
        if state == Freshness::Expired {
            return Err(TokenError::Deadline);
        }
        if self.valid_long_enough(&hit, &ask)? {
            Ok(hit)
        } else {
            let asked = ask.min_validity.unwrap_or_default();
            Err(TokenError::MinValidity { asked, lifetime: hit.token.lifetime() })
        }
    }

    /// What the key's flight brings; of one that was taken back between its landing and now, the next.
    async fn landed(&self, key: &TokenKey, caller: &Account) -> Result<Arc<Cached>, TokenError> {
        loop {
            let cached = landed(self.ask_for(key, caller)?).await?;
            if !cached.revoked.load(Relaxed) {
                return Ok(cached);
            }
        }
    }

    /// The token that may be served when the flight under way has landed, if there is one, or when so much time has passed.
    pub async fn settled(&self, key: &TokenKey, within: Duration) -> Option<Hit> {
        let flight =
            self.shared.index.find(key).and_then(|slot| slot.state().flight.as_ref().map(Flight::join));
        if let Some(landing) = flight {
            // However it ended: what counts is what is in memory.
            let _ = tokio::time::timeout(within, landed(landing)).await;
        }
        self.in_memory(key)
    }

    /// Follows a token. Watching counts as use.
    pub fn watch(&self, key: &TokenKey, caller: impl Into<Account>) -> Result<Watch, TokenError> {
        self.shared.counts.refused(self.watched(key, &caller.into()))
    }

    fn watched(&self, key: &TokenKey, caller: &Account) -> Result<Watch, TokenError> {
        let shared = &self.shared;
        let now = shared.clock.now();
        // What is in memory costs nobody anything.
        let known = shared.index.find(key).filter(|slot| slot.hit(now).is_some());
        let slot = match known {
            Some(slot) => slot,
            None => self.slot_for(key, caller)?,
        };
        let counted = WatchCount::enter(&shared.watches, shared.settings.max_watches).ok_or(
            TokenError::Overloaded {
                what: "too many tokens are watched",
                retry_after: Duration::from_secs(30),
            },
        )?;
        let its_own = shared.callers.enter(caller, Lasting::Watch, now)?;
        let seen = slot.watch();
        slot.mark_used(now);
        let (failures, revocations) = {
            let seen = seen.borrow();
            (seen.failures, seen.revocations)
        };
        let mut watch = Watch {
            seen,
            clock: Arc::clone(&shared.clock),
            shown: 0,
            failures,
            revocations,
            over: false,
            first: None,
            _counted: (counted, its_own),
        };
        if slot.hit(now).is_some() {
            shared.queue.push(&slot, now.boot);
        } else if let Some(error) = self.refusal(&slot) {
            // The watch goes on: the queue asks again when it may.
            shared.queue.push(&slot, now.boot + error.retry_after.unwrap_or_default());
            watch.first = Some(error);
        } else if shared.fly(&slot, Wish::of(&caller.principal), false, now).is_none() {
            return Err(MADE_ROOM);
        }
        Ok(watch)
    }

    /// Keeps the token of a key fresh until then, although nobody asks.
    pub fn pin(&self, key: &TokenKey, owner: &Principal, until: Wall) -> Result<(), TokenError> {
        let now = self.shared.clock.now();
        let slot = self.shared.index.ensure(key, owner, now).map_err(|_| FULL)?;
        slot.pin(until);
        self.shared.queue.push(&slot, now.boot);
        Ok(())
    }

    /// Stops doing so.
    pub fn unpin(&self, key: &TokenKey) {
        if let Some(slot) = self.shared.index.find(key) {
            slot.unpin();
        }
    }

    fn valid_long_enough(&self, hit: &Hit, ask: &Ask) -> Result<bool, TokenError> {
        let Some(asked) = ask.min_validity else { return Ok(true) };
        let lifetime = hit.token.lifetime();
        if asked > lifetime.mul_f64(LONGEST_MIN_VALIDITY) {
            return Err(TokenError::MinValidity { asked, lifetime });
        }
        Ok(hit.token.remaining(self.shared.clock.now()) >= asked)
    }

    /// The slot of a key that cannot be served from memory; charges the caller.
    fn slot_for(&self, key: &TokenKey, caller: &Account) -> Result<Arc<Slot>, TokenError> {
        let shared = &self.shared;
        let now = shared.clock.now();
        // Joining a flight that somebody else started costs nobody anything.
        if let Some(slot) = shared.index.find(key)
            && slot.state().flight.is_some()
        {
            slot.mark_used(now);
            return Ok(slot);
        }
        shared.callers.miss(caller, now)?;
        let slot = shared.index.ensure(key, &caller.principal, now).map_err(|_| FULL)?;
        slot.mark_used(now);
        Ok(slot)
    }

    /// The flight for a key: the one under way, or a new one.
    fn ask_for(&self, key: &TokenKey, caller: &Account) -> Result<Landing, TokenError> {
        let slot = self.slot_for(key, caller)?;
        if let Some(error) = self.refusal(&slot) {
            return Err(TokenError::Authority(error));
        }
        // Pushed out between being found and being used: there is hardly room, and a little later there may be.
        self.shared.fly(&slot, Wish::of(&caller.principal), false, self.shared.clock.now()).ok_or(MADE_ROOM)
    }

    /// What a caller gets at once while no try is allowed.
    fn refusal(&self, slot: &Slot) -> Option<IssueError> {
        let shared = &self.shared;
        let now = shared.clock.now();
        let state = slot.state();
        if state.flight.is_some() {
            return None;
        }
        let backing_off =
            state.retry_at.map(|at| at.saturating_since(now.boot)).filter(|left| !left.is_zero());
        let held = shared.gate.held(&slot.key, now);
        let left = backing_off.max(held)?;
        let error = state.last_error.clone().unwrap_or_else(|| crate::flight::held_back(left));
        Some(IssueError { retry_after: Some(left), ..error })
    }
}

const FULL: TokenError = TokenError::Overloaded {
    what: "the cache, or this caller's share of it, is full of tokens in use",
    retry_after: Duration::from_secs(10),
};
const MADE_ROOM: TokenError = TokenError::Overloaded {
    what: "the token's place in the cache went to another one",
    retry_after: Duration::from_millis(100),
};

async fn landed(landing: Landing) -> Result<Arc<Cached>, TokenError> {
    landing.wait().await.clone()
}

/// One of the bounded number of watches, given back on drop.
#[derive(Debug)]
pub(crate) struct WatchCount(Arc<AtomicU32>);

impl WatchCount {
    fn enter(counter: &Arc<AtomicU32>, most: u32) -> Option<Self> {
        let counted = Counted::enter(counter, most)?;
        std::mem::forget(counted);
        Some(Self(Arc::clone(counter)))
    }
}

impl Drop for WatchCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// One of a bounded number, given back on drop.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn enter(counter: &'a AtomicU32, most: u32) -> Option<Self> {
        if counter.fetch_add(1, Relaxed) < most {
            return Some(Self(counter));
        }
        counter.fetch_sub(1, Relaxed);
        None
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
