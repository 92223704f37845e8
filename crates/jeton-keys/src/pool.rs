//! Assertions that were signed ahead. Each is handed out once; those that no longer fit are dropped.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jeton_core::{Assertion, AssertionRequest, Uid, Wall};

/// A change of the learned clock skew beyond this makes prepared assertions useless.
const SKEW_TOLERANCE_MILLIS: i64 = 2_000;

#[derive(Default)]
pub(crate) struct Pool(Mutex<State>);

#[derive(Default)]
struct State {
    /// None is empty: there are never more than there are assertions, ready or coming.
    entries: HashMap<Uid, Entry>,
    depth: Depth,
}

struct Entry {
    request: AssertionRequest,
    ready: Vec<Assertion>,
    /// Being signed.
    coming: usize,
}

/// What the pool holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) ready: usize,
    /// Being signed; those that will be dropped when they come are among them.
    pub(crate) coming: usize,
    pub(crate) expired: u64,
}

impl Pool {
    /// Takes the oldest assertion that still has enough life, if there is one.
    pub(crate) fn take(&self, request: &AssertionRequest, now: Wall) -> Option<Assertion> {
        let mut state = self.locked();
        state.fit(request, now);
        let entry = state.entries.get_mut(&request.credential).filter(|entry| !entry.ready.is_empty())?;
        let taken = entry.ready.remove(0);
        state.depth.ready -= 1;
        state.forget_if_empty(request.credential);
        Some(taken)
    }

    /// Whether one more is to be signed: its credential has fewer than `up_to`, the pool fewer than `most`. If so, it counts as
    /// coming until [`Pool::put`] or [`Pool::failed`].
    pub(crate) fn reserve(&self, request: &AssertionRequest, up_to: usize, most: usize, now: Wall) -> bool {
        let mut state = self.locked();
        state.fit(request, now);
        if state.held() >= most {
            state.purge(now);
        }
        let here = state.entries.get(&request.credential).map_or(0, |e| e.ready.len() + e.coming);
        if state.held() >= most || here >= up_to {
            return false;
        }
        let fresh = || Entry { request: request.clone(), ready: vec![], coming: 0 };
        state.entries.entry(request.credential).or_insert_with(fresh).coming += 1;
        state.depth.coming += 1;
        true
    }

    /// Puts in what was reserved, unless it no longer fits.
    pub(crate) fn put(&self, request: &AssertionRequest, assertion: Assertion) {
        self.came(request, Some(assertion));
    }

    /// What was reserved will not come.
    pub(crate) fn failed(&self, request: &AssertionRequest) {
        self.came(request, None);
    }

    fn came(&self, request: &AssertionRequest, assertion: Option<Assertion>) {
        let mut state = self.locked();
        state.depth.coming -= 1;
        let entry = state.entries.get_mut(&request.credential);
        let Some(entry) = entry.filter(|entry| same(&entry.request, request)) else { return };
        entry.coming = entry.coming.saturating_sub(1);
        let arrived = usize::from(assertion.is_some());
        entry.ready.extend(assertion);
        state.depth.ready += arrived;
        state.forget_if_empty(request.credential);
    }

    pub(crate) fn discard(&self, credential: Uid) {
        self.locked().remove(credential);
    }

    pub(crate) fn depth(&self) -> Depth {
        self.locked().depth
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn held(&self) -> usize {
        self.depth.ready + self.depth.coming
    }

    fn remove(&mut self, credential: Uid) {
        if let Some(entry) = self.entries.remove(&credential) {
            self.depth.ready -= entry.ready.len();
        }
    }

    fn forget_if_empty(&mut self, credential: Uid) {
        if self.entries.get(&credential).is_some_and(Entry::is_empty) {
            self.entries.remove(&credential);
        }
    }

    /// Drops what was made for another profile, client or skew, and what has too little life left.
    fn fit(&mut self, request: &AssertionRequest, now: Wall) {
        let Some(entry) = self.entries.get_mut(&request.credential) else { return };
        if !same(&entry.request, request) {
            self.remove(request.credential);
            return;
        }
        let dropped = entry.drop_old(now);
        self.depth.ready -= dropped;
        self.depth.expired += dropped as u64;
        self.forget_if_empty(request.credential);
    }

    /// Drops everything that is too old.
    fn purge(&mut self, now: Wall) {
        let dropped: usize = self.entries.values_mut().map(|entry| entry.drop_old(now)).sum();
        self.entries.retain(|_, entry| !entry.is_empty());
        self.depth.ready -= dropped;
        self.depth.expired += dropped as u64;
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.coming == 0
    }

    fn drop_old(&mut self, now: Wall) -> usize {
        let before = self.ready.len();
        let request = &self.request;
        self.ready.retain(|assertion| sendable(assertion.expires_at, request, now));
        before - self.ready.len()
    }
}

/// Whether what expires then may be sent now: two minutes are left, or a third of a shorter life.
pub(crate) fn sendable(expires_at: Wall, request: &AssertionRequest, now: Wall) -> bool {
    let life = i64::from(request.profile.lifetime_seconds) * 1_000;
    let least = 120_000.min(life / 3);
    expires_at.as_millis() - now.as_millis() >= least
}

fn same(a: &AssertionRequest, b: &AssertionRequest) -> bool {
    a.client_id == b.client_id
        && a.profile == b.profile
        && a.references == b.references
        && (a.skew_millis - b.skew_millis).abs() <= SKEW_TOLERANCE_MILLIS
}
