//! Assertions that were signed ahead. Each is handed out once; those that no longer fit are dropped.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jeton_core::{Assertion, AssertionRequest, Uid, Wall};

/// One for the refresh that comes up, and one in reserve.
const MOST_PER_CREDENTIAL: usize = 2;
/// A change of the learned clock skew beyond this makes prepared assertions useless.
const SKEW_TOLERANCE_MILLIS: i64 = 2_000;

#[derive(Default)]
pub(crate) struct Pool(Mutex<State>);

#[derive(Default)]
struct State {
    entries: HashMap<Uid, Entry>,
    ready: usize,
    expired: u64,
}

struct Entry {
    request: AssertionRequest,
    ready: Vec<Assertion>,
    /// Being signed.
    coming: usize,
    /// How many to have ready: 1, or 2 for a credential that missed lately.
    wanted: usize,
}

/// What the pool holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) ready: usize,
    pub(crate) expired: u64,
}

impl Pool {
    /// Takes an assertion that still has enough life, if there is one. A miss raises the number to have ready.
    pub(crate) fn take(&self, request: &AssertionRequest, now: Wall) -> Option<Assertion> {
        let mut state = self.locked();
        state.fit(request, now);
        let entry = state.entries.get_mut(&request.credential)?;
        let taken = if entry.ready.is_empty() { None } else { Some(entry.ready.remove(0)) };
        entry.wanted = if taken.is_some() { 1 } else { MOST_PER_CREDENTIAL };
        state.ready -= usize::from(taken.is_some());
        taken
    }

    /// Whether one more is to be signed; if so, it counts as coming until [`Pool::put`] or [`Pool::failed`].
    pub(crate) fn reserve(&self, request: &AssertionRequest, most: usize, now: Wall) -> bool {
        let mut state = self.locked();
        state.fit(request, now);
        if state.ready >= most {
            state.purge(now);
        }
        let room = state.ready < most;
        let fresh = || Entry { request: request.clone(), ready: vec![], coming: 0, wanted: 1 };
        let entry = state.entries.entry(request.credential).or_insert_with(fresh);
        let reserve = room && entry.ready.len() + entry.coming < entry.wanted;
        entry.coming += usize::from(reserve);
        reserve
    }

    /// Puts in what was reserved, unless it no longer fits.
    pub(crate) fn put(&self, request: &AssertionRequest, assertion: Assertion) {
        let mut state = self.locked();
        let Some(entry) = state.entries.get_mut(&request.credential) else { return };
        if same(&entry.request, request) {
            entry.coming = entry.coming.saturating_sub(1);
            entry.ready.push(assertion);
            state.ready += 1;
        }
    }

    /// What was reserved will not come.
    pub(crate) fn failed(&self, request: &AssertionRequest) {
        if let Some(entry) = self.locked().entries.get_mut(&request.credential)
            && same(&entry.request, request)
        {
            entry.coming = entry.coming.saturating_sub(1);
        }
    }

    pub(crate) fn discard(&self, credential: Uid) {
        let mut state = self.locked();
        if let Some(entry) = state.entries.remove(&credential) {
            state.ready -= entry.ready.len();
        }
    }

    pub(crate) fn depth(&self) -> Depth {
        let state = self.locked();
        Depth { ready: state.ready, expired: state.expired }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Drops what was made for another profile, client or skew, and what has too little life left.
    fn fit(&mut self, request: &AssertionRequest, now: Wall) {
        let Some(entry) = self.entries.get_mut(&request.credential) else { return };
        if !same(&entry.request, request) {
            self.ready -= entry.ready.len();
            self.entries.remove(&request.credential);
            return;
        }
        let before = entry.ready.len();
        entry.ready.retain(|assertion| sendable(assertion, request, now));
        let dropped = before - entry.ready.len();
        self.ready -= dropped;
        self.expired += dropped as u64;
    }

    /// Drops everything that is too old, and entries that hold nothing.
    fn purge(&mut self, now: Wall) {
        let (mut left, mut expired) = (0, 0);
        self.entries.retain(|_, entry| {
            let before = entry.ready.len();
            let request = &entry.request;
            entry.ready.retain(|assertion| sendable(assertion, request, now));
            expired += (before - entry.ready.len()) as u64;
            left += entry.ready.len();
            !entry.ready.is_empty() || entry.coming > 0
        });
        self.ready = left;
        self.expired += expired;
    }
}

/// Two minutes left, or a third of a shorter life.
fn sendable(assertion: &Assertion, request: &AssertionRequest, now: Wall) -> bool {
    let life = i64::from(request.profile.lifetime_seconds) * 1_000;
    let least = 120_000.min(life / 3);
    assertion.expires_at.as_millis() - now.as_millis() >= least
}

fn same(a: &AssertionRequest, b: &AssertionRequest) -> bool {
    a.client_id == b.client_id
        && a.profile == b.profile
        && a.references == b.references
        && (a.skew_millis - b.skew_millis).abs() <= SKEW_TOLERANCE_MILLIS
}
