//! Taking tokens back: out of memory at once, out of the store for good, and revoked where they were issued (RFC 7009).
//!
//! A slot stays where it is, and with it the wish to have it fresh; its token goes, its watches end, and whatever a flight asked for
//! before is not put in it. So there is one flight for a key before and after.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use jeton_core::{Now, Priority, Uid, Wall};
use tokio::sync::{Semaphore, mpsc};

use crate::{
    Engine, IssueError, IssueErrorClass, Scope, TokenStoreError,
    engine::Shared,
    flight::Wish,
    gate::Permit,
    slot::{Cached, Slot},
    writer::Pending,
};

/// Requests of one revocation under way at once.
const MAX_CONCURRENT: usize = 16;
/// How long the answer waits for authorities; what is left goes on behind it.
const PATIENCE: Duration = Duration::from_secs(25);
/// Longer than any source may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(35);

/// What a revocation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Revocation {
    /// Tokens that were dropped here.
    pub dropped: u64,
    /// Of those: how many their authorities revoked.
    pub revoked: u64,
    /// Of those: how many they did not, or not in time.
    pub not_revoked: u64,
    /// Until when tokens that were handed out may be valid although they were taken back; none: no known one is.
    pub valid_until: Option<Wall>,
}

/// Collects what leaves the slots of an identity in another way, as long as this lives: an identity that is disabled loses its tokens at
/// once, and they are to be revoked all the same.
pub struct Leaving(Arc<Pile>);

type Pile = Mutex<Vec<Taken>>;

impl fmt::Debug for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaving").finish_non_exhaustive()
    }
}

/// Who collects.
#[derive(Default)]
pub(crate) struct Leavings(Mutex<Vec<(Uid, Weak<Pile>)>>);

/// A token that was taken out of its slot.
#[derive(Clone)]
struct Taken {
    slot: Arc<Slot>,
    cached: Arc<Cached>,
}

impl Leavings {
    /// Takes a token out of its slot for an eviction. Under the lock, as `left` takes what has come together: what an eviction has in hand
    /// is never in neither place.
    pub(crate) fn empty(&self, slot: &Arc<Slot>) {
        let collecting = locked(&self.0);
        let Some(cached) = slot.token.swap(None) else { return };
        let concerned = collecting.iter().filter(|(identity, _)| *identity == slot.key.identity);
        for taken in concerned.filter_map(|(_, taken)| taken.upgrade()) {
            locked(&taken).push(Taken { slot: Arc::clone(slot), cached: Arc::clone(&cached) });
        }
    }

    fn left(&self, leaving: &Leaving) -> Vec<Taken> {
        let _no_eviction_is_between = locked(&self.0);
        std::mem::take(&mut *locked(&leaving.0))
    }
}

impl Engine {
    /// Takes back every token of a scope. When this returns none of them is served, and none comes back after a crash. An error says that
    /// the store does not hold that yet.
    pub async fn revoke(
        &self,
        scope: Scope,
        leaving: Option<Leaving>,
    ) -> Result<Revocation, TokenStoreError> {
        let shared = &self.shared;
        let now = shared.clock.now();
        let slots = match scope {
            Scope::Identity(uid) => shared.index.of(uid),
            _ => shared.index.all().into_iter().filter(|slot| scope.covers(&slot.key)).collect(),
        };
        let mut taken: Vec<_> = slots.iter().filter_map(|slot| shared.take_back(slot, now)).collect();
        taken.extend(leaving.iter().flat_map(|leaving| shared.leavings.left(leaving)));
        let lives = |until: &Wall| *until > now.wall;
        taken.retain(|taken| lives(&taken.cached.token.expires_at));
        let earlier = slots.iter().chain(taken.iter().map(|taken| &taken.slot));
        let earlier = earlier.filter_map(|slot| slot.earlier_until()).filter(lives).max();
        let dropped = taken.len() as u64;
        let (stored, left) = tokio::join!(shared.writer.revoke(scope), shared.revoke_all(taken));
        for taken in &left {
            taken.slot.note_earlier(taken.cached.token.expires_at);
        }
        let not_revoked = left.len() as u64;
        let valid_until = left.iter().map(|taken| taken.cached.token.expires_at).chain(earlier).max();
        let revocation = Revocation { dropped, revoked: dropped - not_revoked, not_revoked, valid_until };
        tracing::info!(?scope, ?revocation, stored = stored.is_ok(), "tokens were taken back");
        stored.map(|()| revocation)
    }

    /// From now on what an eviction takes from this identity is collected for a revocation that is about to come.
    pub fn leaving(&self, identity: Uid) -> Leaving {
        let taken = Arc::default();
        let mut collecting = locked(&self.shared.leavings.0);
        collecting.retain(|(_, taken)| taken.strong_count() > 0);
        collecting.push((identity, Arc::downgrade(&taken)));
        Leaving(taken)
    }
}

impl Shared {
    fn take_back(&self, slot: &Arc<Slot>, now: Now) -> Option<Taken> {
        let cached = {
            let mut state = slot.state();
            state.revocations += 1;
            // Whatever was wrong with the token before: the next caller tries at once.
            state.failures = 0;
            state.last_error = None;
            state.retry_at = None;
            state.forced_at = None;
            let cached = slot.token.swap(None);
            slot.tell(|seen| {
                seen.token = None;
                seen.error = None;
                seen.revocations += 1;
            });
            cached
        };
        self.index.weigh(slot, now);
        // What is pinned is fetched anew, what nobody wants goes.
        self.queue.push(slot, now.boot);
        let cached = cached?;
        cached.revoked.store(true, Relaxed);
        Some(Taken { slot: Arc::clone(slot), cached })
    }

    /// Has tokens revoked where they were issued. The answer are those that were not, or not in time.
    async fn revoke_all(self: &Arc<Self>, taken: Vec<Taken>) -> Vec<Taken> {
        let (tell, mut told) = mpsc::unbounded_channel();
        let (shared, all) = (Arc::clone(self), taken.clone());
        // Not the caller's: it goes on when the answer does not wait any longer.
        let under = jeton_trace::current();
        self.flights.spawn(async move {
            let room = Arc::new(Semaphore::new(MAX_CONCURRENT));
            for (place, taken) in all.into_iter().enumerate() {
                let Some(call) = shared.source.revoke(&taken.slot.key, Arc::clone(&taken.cached.token))
                else {
                    continue;
                };
                let Ok(room) = Arc::clone(&room).acquire_owned().await else { return };
                let (shared, tell) = (Arc::clone(&shared), tell.clone());
                let tracked = shared.flights.clone();
                let under = under.clone();
                tracked.spawn(async move {
                    if under.within(shared.revoke_one(&taken.slot, call)).await.is_ok() {
                        // Nobody listens any more when it took too long.
                        let _ = tell.send(place);
                    }
                    drop(room);
                });
            }
        });
        let mut left: Vec<_> = taken.into_iter().map(Some).collect();
        let done = async {
            while let Some(place) = told.recv().await {
                left[place] = None;
            }
        };
        // What is not revoked by then counts as not revoked.
        let _ = tokio::time::timeout(PATIENCE, done).await;
        left.into_iter().flatten().collect()
    }

    async fn revoke_one(
        &self,
        slot: &Slot,
        call: jeton_core::BoxFuture<'static, Result<(), IssueError>>,
    ) -> Result<(), ()> {
        // Ahead of what is due, and from the part of the budget that callers of cold tokens cannot use up.
        let permit = self.await_permit(slot, &Wish::ours(Priority::Expiring)).await;
        if !matches!(permit, Ok(Permit::Granted)) {
            return Err(());
        }
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(CALL_TIMEOUT, call) => outcome.unwrap_or_else(|_| Err(crate::flight::died())),
            () = self.stop.cancelled() => Err(crate::flight::died()),
        };
        let now = self.clock.now();
        let throttled = outcome.as_ref().err().is_some_and(|e| e.class == IssueErrorClass::Throttled);
        self.gate.done(&slot.key, None, throttled, now);
        outcome.map_err(|error| {
            if let Some(delay) = error.retry_after {
                self.writer.put(Pending::Hold(self.gate.hold(&slot.key, delay, now)));
            }
            let (identity, authority) = self.gate.names(&slot.key);
            tracing::warn!(identity, authority, identity_uid = %slot.key.identity, target = %slot.key.target, error = %error.message,
                code = error.code.as_deref().unwrap_or_default(), "a token could not be revoked at its authority: it is not served any more, and is valid there until it ends; revoke again once the authority answers");
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
