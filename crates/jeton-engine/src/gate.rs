//! What stands between a miss and an authority: the authority's budget, each caller's part of it, and Retry-After.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jeton_core::{
    Budget, Mono, Now, Principal, Priority, SharedDirectory, TokenKey, Uid, profile::AuthorityLimits,
    retry_after::MAX_RETRY_AFTER,
};

use crate::Hold;

/// Callers told apart at one authority. Those beyond share its budget as they come.
const MAX_PARTS: usize = 10_000;
const SWEEP: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Gate {
    directory: SharedDirectory,
    purses: Mutex<HashMap<Uid, Purse>>,
    holds: Mutex<HashMap<(Uid, Uid), Mono>>,
}

/// The budget of one authority, and who had how much of it of late.
#[derive(Debug)]
struct Purse {
    budget: Budget,
    parts: HashMap<Principal, Part>,
    swept_at: Mono,
}

/// What one caller may still take before it is in excess.
#[derive(Debug, Clone, Copy)]
struct Part {
    level: f64,
    at: Mono,
    in_flight: u32,
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
    /// The part of the bucket that is used up, from 0 to 1.
    pub used: f64,
    /// Requests under way.
    pub in_flight: u32,
    /// Identities that must not ask before their Retry-After ends.
    pub held_identities: u32,
    /// What is left of the longest Retry-After.
    pub retry_after: Duration,
}

impl Gate {
    pub(crate) fn new(directory: SharedDirectory) -> Self {
        Self { directory, purses: Mutex::default(), holds: Mutex::default() }
    }

    /// A permit for one request to the key's authority. None is given inside a Retry-After. A caller that had more than its part of late
    /// comes after the others.
    pub(crate) fn permit(
        &self,
        key: &TokenKey,
        priority: Priority,
        caller: Option<&Principal>,
        now: Now,
    ) -> Permit {
        if let Some(left) = self.held(key, now) {
            return Permit::Held(left);
        }
        let mut purses = locked(&self.purses);
        let purse = purses.entry(key.authority).or_insert_with(|| Purse {
            budget: Budget::new(&self.limits(key.authority), now.mono),
            parts: HashMap::new(),
            swept_at: now.mono,
        });
        if purse.take(priority, caller, now.mono) { Permit::Granted } else { Permit::Busy }
    }

    /// Gives a permit back.
    pub(crate) fn done(&self, key: &TokenKey, caller: Option<&Principal>, throttled: bool, now: Now) {
        if let Some(purse) = locked(&self.purses).get_mut(&key.authority) {
            purse.budget.done(throttled, now.mono);
            if let Some(part) = caller.and_then(|caller| purse.parts.get_mut(caller)) {
                part.in_flight = part.in_flight.saturating_sub(1);
            }
        }
    }

    /// The authority's profile changed, or it is gone. A Retry-After holds all the same.
    pub(crate) fn authority_changed(&self, authority: Uid, now: Now) {
        if let Some(purse) = locked(&self.purses).get_mut(&authority) {
            purse.budget.adjust(&self.limits(authority), now.mono);
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
        let held = |authority| {
            let left = holds.iter().filter(move |((a, _), _)| *a == authority);
            let left = left.map(|(_, end)| end.saturating_since(now.boot)).filter(|left| !left.is_zero());
            left.fold((0, Duration::ZERO), |(count, most), left| (count + 1, most.max(left)))
        };
        let info = |(authority, purse): (&Uid, &Purse)| {
            let (held_identities, retry_after) = held(*authority);
            BudgetInfo {
                authority: *authority,
                requests_per_second: purse.budget.rate(),
                used: purse.budget.used(now.mono),
                in_flight: purse.budget.in_flight(),
                held_identities,
                retry_after,
            }
        };
        locked(&self.purses).iter().map(info).collect()
    }

    /// What people call the identity and the authority of a key, for the log; their uids where they have no name any more.
    pub(crate) fn names(&self, key: &TokenKey) -> (String, String) {
        let directory = self.directory.load();
        let identity = directory.identity(key.identity).map(|found| found.name.to_string());
        let authority = directory.authority(key.authority).map(|found| found.name.to_string());
        (
            identity.unwrap_or_else(|| key.identity.to_string()),
            authority.unwrap_or_else(|| key.authority.to_string()),
        )
    }

    fn limits(&self, authority: Uid) -> AuthorityLimits {
        self.directory.load().authority(authority).map(|a| a.profile.limits).unwrap_or_default()
    }
}

impl Purse {
    fn take(&mut self, priority: Priority, caller: Option<&Principal>, now: Mono) -> bool {
        self.sweep(now);
        let known = |caller: &&Principal| self.parts.len() < MAX_PARTS || self.parts.contains_key(*caller);
        let Some(caller) = caller.filter(known) else { return self.budget.take(priority, now) };
        let new = !self.parts.contains_key(caller);
        let (rate, burst, concurrent) = self.budget.part(self.parts.len() + usize::from(new));
        let fresh = Part { level: burst, at: now, in_flight: 0 };
        let mut part = self.parts.get(caller).map_or(fresh, |part| part.filled(rate, burst, now));
        let excess = part.level < 1.0 || part.in_flight >= concurrent;
        let taken = self.budget.take(if excess { Priority::Excess } else { priority }, now);
        if taken {
            part.level = (part.level - 1.0).max(0.0);
            part.in_flight += 1;
        }
        if taken || !new {
            self.parts.insert(caller.clone(), part);
        }
        taken
    }

    /// Once a second, whoever has its whole part again is forgotten: it is not among those who share.
    fn sweep(&mut self, now: Mono) {
        if now.saturating_since(self.swept_at) < SWEEP || self.parts.is_empty() {
            return;
        }
        self.swept_at = now;
        let (rate, burst, _) = self.budget.part(self.parts.len());
        self.parts.retain(|_, part| part.in_flight > 0 || part.filled(rate, burst, now).level < burst);
    }
}

impl Part {
    fn filled(self, rate: f64, burst: f64, now: Mono) -> Self {
        let level = self.level + now.saturating_since(self.at).as_secs_f64() * rate;
        Self { level: level.min(burst), at: now, ..self }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jeton_core::{Directory, Identity, IdentityKind, IdentityState, Wall};

    use super::*;

    fn identity(uid: Uid, authority: Uid) -> Identity {
        Identity {
            uid,
            name: "identities/billing".parse().unwrap(),
            display_name: String::new(),
            labels: Default::default(),
            kind: IdentityKind::Attached,
            workload: None,
            authority,
            state: IdentityState::Active,
            client_id: None,
            registration: None,
            credentials: vec![],
            operation: None,
            created_at: Wall::from_secs(1),
            updated_at: Wall::from_secs(1),
            version: 1,
        }
    }

    #[test]
    fn who_has_a_name_is_logged_by_it_and_who_is_gone_by_the_uid() {
        let [billing, gone, a] = [1, 2, 3].map(|n| Uid::new(Wall::from_secs(1), [n; 10]));
        let mut directory = Directory::default();
        directory.put_authority(Arc::new(jeton_lifecycle::testing::authority("a", a, true)));
        directory.put_identity(Arc::new(identity(billing, a)));
        let gate = Gate::new(SharedDirectory::new(directory));
        let key = |identity| TokenKey { identity, authority: a, ..crate::testing::key(1, "s") };
        assert_eq!(gate.names(&key(billing)), ("identities/billing".to_owned(), "authorities/a".to_owned()));
        assert_eq!(gate.names(&key(gone)).0, gone.to_string());
    }
}
