//! The place in the cache for one token key.
//!
//! The token is swapped whole and read without a lock. Everything else that changes is behind one short mutex that the hit path
//! never takes.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use jeton_core::{Freshness, Mono, Now, Phases, Principal, Token, TokenKey, Wall};
use tokio::sync::watch;

use crate::{Hit, IssueError};

/// The time of use is written down when the one before is this old: a slot that all threads read should not be written by each.
const USED_MILLIS: u64 = 1_000;

const NEVER: u64 = u64::MAX;

/// A token with its wire bytes. A hit reads the phases and the bytes, and nothing behind the reference.
#[derive(Debug)]
pub(crate) struct Cached {
    pub(crate) phases: Phases,
    pub(crate) encoded: Bytes,
    pub(crate) token: Arc<Token>,
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
    pub(crate) ended: bool,
}

/// How a flight ended, for everybody who waits for it.
pub(crate) type Landing = watch::Receiver<Option<Result<Arc<Cached>, crate::TokenError>>>;

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) key: TokenKey,
    pub(crate) owner: Principal,
    pub(crate) token: ArcSwapOption<Cached>,
    pub(crate) pinned: AtomicBool,
    /// When the queue brings it up, on the boot-time clock; [`NEVER`]: it stands in no line. Written under the queue's lock.
    due: AtomicU64,
    pub(crate) weight: AtomicU64,
    /// Taken over from before a restart, and not asked for since.
    pub(crate) restored: AtomicBool,
    pub(crate) seen: watch::Sender<Seen>,
    used_wall: AtomicU64,
    used_boot: AtomicU64,
    /// When the measure of recency heard of it last, on the boot-time clock.
    pub(crate) told: AtomicU64,
    state: Mutex<State>,
}

/// What only flights and the queue look at.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) flight: Option<Landing>,
    /// Failed tries in a row.
    pub(crate) failures: u32,
    pub(crate) last_error: Option<IssueError>,
    /// No try before, on the boot-time clock.
    pub(crate) retry_at: Option<Mono>,
    /// When a report forced a refresh last.
    pub(crate) forced_at: Option<Mono>,
    /// Whether an assertion was asked for ahead of the coming refresh.
    pub(crate) prepared: bool,
    /// Whether the slot has left the index.
    pub(crate) gone: bool,
}

impl Slot {
    pub(crate) fn new(key: TokenKey, owner: Principal, now: Now) -> Self {
        let slot = Self {
            key,
            owner,
            token: ArcSwapOption::empty(),
            pinned: AtomicBool::new(false),
            due: AtomicU64::new(NEVER),
            weight: AtomicU64::new(0),
            restored: AtomicBool::new(false),
            seen: watch::Sender::new(Seen::default()),
            used_wall: AtomicU64::new(0),
            used_boot: AtomicU64::new(now.boot.as_millis()),
            told: AtomicU64::new(now.boot.as_millis()),
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
        self.due().is_none() && self.state.try_lock().is_ok_and(|state| state.flight.is_none())
    }

    pub(crate) fn due(&self) -> Option<Mono> {
        Some(self.due.load(Relaxed)).filter(|due| *due != NEVER).map(Mono::from_millis)
    }

    pub(crate) fn set_due(&self, due: Option<Mono>) {
        self.due.store(due.map_or(NEVER, Mono::as_millis), Relaxed);
    }

    pub(crate) fn mark_used(&self, now: Now) {
        if self.restored.load(Relaxed) {
            self.restored.store(false, Relaxed);
        }
        if now.boot.as_millis().saturating_sub(self.used_boot.load(Relaxed)) < USED_MILLIS {
            return;
        }
        self.used_boot.store(now.boot.as_millis(), Relaxed);
        self.used_wall.store(u64::try_from(now.wall.as_millis()).unwrap_or(0), Relaxed);
    }

    pub(crate) fn restore_used(&self, wall: Wall, now: Now) {
        let age = now.wall.saturating_since(wall);
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.used_boot.store(now.boot.as_millis().saturating_sub(age), Relaxed);
        self.used_wall.store(u64::try_from(wall.as_millis()).unwrap_or(0), Relaxed);
        self.restored.store(true, Relaxed);
    }

    pub(crate) fn last_used(&self) -> (Wall, Mono) {
        let wall = i64::try_from(self.used_wall.load(Relaxed)).unwrap_or(0);
        (Wall::from_millis(wall), Mono::from_millis(self.used_boot.load(Relaxed)))
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

    pub(crate) fn watched(&self) -> bool {
        self.seen.receiver_count() > 0
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned.load(Relaxed) || self.watched()
    }

    /// Whether it may be dropped to make room.
    pub(crate) fn evictable(&self) -> bool {
        !self.is_pinned() && self.state().flight.is_none()
    }

    /// Whether a refresh is worth its call: used in the last two lifetimes, or pinned.
    pub(crate) fn wanted(&self, token: &Token, now: Now) -> bool {
        let (wall, boot) = self.last_used();
        let last = Now { wall, mono: now.mono, boot };
        jeton_core::refresh::wanted(token, last, now, self.is_pinned())
    }

    /// Bytes of the key and the token, roughly.
    pub(crate) fn bytes(&self) -> u64 {
        let key = self.key.target.as_str().len() * 2
            + self.key.claims.as_ref().map_or(0, |c| c.as_str().len())
            + 640;
        let token = self.token.load().as_ref().map_or(0, |c| c.encoded.len() * 2 + 320);
        (key + token) as u64
    }
}
