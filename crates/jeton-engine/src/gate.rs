//! What stands between a miss and an authority: the caller's own bucket, the authority's budget, and Retry-After.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jeton_core::{
    Budget, Mono, Now, Principal, Priority, SharedDirectory, TokenKey, Uid, profile::AuthorityLimits,
    retry_after::MAX_RETRY_AFTER,
};

use crate::{EngineSettings, Hold};

/// Callers whose buckets are remembered; a full bucket says nothing and is forgotten first.
const MAX_CALLERS: usize = 100_000;

#[derive(Debug)]
pub(crate) struct Gate {
    directory: SharedDirectory,
    per_second: f64,
    burst: f64,
    callers: Mutex<HashMap<Principal, Bucket>>,
    budgets: Mutex<HashMap<Uid, Budget>>,
    holds: Mutex<HashMap<(Uid, Uid), Mono>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: f64,
    at: Mono,
}

/// Whether a request may go out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permit {
    Granted,
    /// The budget is used up for now.
    Busy,
    /// The authority asked for a pause, of which this much is left.
    Held(Duration),
}

/// What an authority's budget allows now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetInfo {
    /// The authority.
    pub authority: Uid,
    /// Requests a second.
    pub requests_per_second: f64,
    /// Requests under way.
    pub in_flight: u32,
    /// Identities that must not ask before their Retry-After ends.
    pub held_identities: u32,
}

impl Gate {
    pub(crate) fn new(settings: &EngineSettings, directory: SharedDirectory) -> Self {
        Self {
            directory,
            per_second: f64::from(settings.misses_per_second),
            burst: f64::from(settings.miss_burst),
            callers: Mutex::default(),
            budgets: Mutex::default(),
            holds: Mutex::default(),
        }
    }

    /// Charges a caller for a miss or a new key; over its limit the error says when to come again.
    pub(crate) fn charge(&self, caller: &Principal, now: Now) -> Result<(), Duration> {
        let mut callers = locked(&self.callers);
        if callers.len() >= MAX_CALLERS && !callers.contains_key(caller) {
            let (per_second, burst) = (self.per_second, self.burst);
            callers
                .retain(|_, b| b.level + now.mono.saturating_since(b.at).as_secs_f64() * per_second < burst);
            if callers.len() >= MAX_CALLERS {
                return Err(Duration::from_secs(1));
            }
        }
        let bucket = callers.entry(caller.clone()).or_insert(Bucket { level: self.burst, at: now.mono });
        let passed = now.mono.saturating_since(bucket.at).as_secs_f64();
        bucket.level = (bucket.level + passed * self.per_second).min(self.burst);
        bucket.at = now.mono;
        if bucket.level >= 1.0 {
            bucket.level -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - bucket.level) / self.per_second).max(Duration::from_millis(1)))
    }

    /// A permit for one request to the key's authority. None is given inside a Retry-After.
    pub(crate) fn permit(&self, key: &TokenKey, priority: Priority, now: Now) -> Permit {
        if let Some(left) = self.held(key, now) {
            return Permit::Held(left);
        }
        let mut budgets = locked(&self.budgets);
        let budget = budgets
            .entry(key.authority)
            .or_insert_with(|| Budget::new(&self.limits(key.authority), now.mono));
        if budget.take(priority, now.mono) { Permit::Granted } else { Permit::Busy }
    }

    /// Gives a permit back.
    pub(crate) fn done(&self, key: &TokenKey, throttled: bool, now: Now) {
        if let Some(budget) = locked(&self.budgets).get_mut(&key.authority) {
            budget.done(throttled, now.mono);
        }
    }

    /// The authority's profile changed, or it is gone. A Retry-After holds all the same.
    pub(crate) fn authority_changed(&self, authority: Uid, now: Now) {
        if let Some(budget) = locked(&self.budgets).get_mut(&authority) {
            budget.adjust(&self.limits(authority), now.mono);
        }
    }

    /// Obeys a Retry-After.
    pub(crate) fn hold(&self, key: &TokenKey, delay: Duration, now: Now) -> Hold {
        let until = now.boot + delay;
        let mut holds = locked(&self.holds);
        holds.retain(|_, end| *end > now.boot);
        let end = holds.entry((key.authority, key.identity)).or_insert(until);
        *end = until.max(*end);
        let left = end.saturating_since(now.boot);
        Hold { authority: key.authority, identity: key.identity, until: now.wall + left }
    }

    /// Takes over a hold that was in force before a restart.
    pub(crate) fn restore(&self, hold: Hold, now: Now) {
        // A wall clock that was set back must not make it longer than the longest there is.
        let left = hold.until.saturating_since(now.wall).min(MAX_RETRY_AFTER);
        if !left.is_zero() {
            locked(&self.holds).insert((hold.authority, hold.identity), now.boot + left);
        }
    }

    /// What is left of a Retry-After.
    pub(crate) fn held(&self, key: &TokenKey, now: Now) -> Option<Duration> {
        let end = *locked(&self.holds).get(&(key.authority, key.identity))?;
        Some(end.saturating_since(now.boot)).filter(|left| !left.is_zero())
    }

    pub(crate) fn budgets(&self, now: Now) -> Vec<BudgetInfo> {
        let holds = locked(&self.holds);
        let held =
            |authority| holds.iter().filter(|((a, _), end)| *a == authority && **end > now.boot).count();
        let info = |(authority, budget): (&Uid, &Budget)| BudgetInfo {
            authority: *authority,
            requests_per_second: budget.rate(),
            in_flight: budget.in_flight(),
            held_identities: u32::try_from(held(*authority)).unwrap_or(u32::MAX),
        };
        locked(&self.budgets).iter().map(info).collect()
    }

    fn limits(&self, authority: Uid) -> AuthorityLimits {
        self.directory.load().authority(authority).map(|a| a.profile.limits).unwrap_or_default()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
