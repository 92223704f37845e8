//! What the engine counts of itself, and a census of its slots, for whoever reports.

use std::{collections::HashMap, time::Duration};

use jeton_core::{
    Freshness, Now, Uid,
    metrics::{Buckets, Counter, Histogram, LONG_MICROS, PerKey},
};

use crate::{
    Engine, IssueErrorClass, SlotState, TokenError,
    slot::{Cached, Slot},
};

/// Authorities that are told apart; the others are counted together.
const MOST_AUTHORITIES: usize = 1_000;
/// The limit that is no caller's own.
const BROKER: &str = "broker";

/// How a request for a token ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Issued,
    Failed(IssueErrorClass),
    /// Not sent: a Retry-After is not over.
    Held,
    /// Not sent: the budget is used up.
    OverBudget,
}

impl Ended {
    const NAMES: [&str; 8] =
        ["issued", "transient", "throttled", "permanent", "credential", "denied", "held", "over_budget"];

    pub(crate) const fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }

    const fn index(self) -> usize {
        match self {
            Self::Issued => 0,
            Self::Failed(IssueErrorClass::Transient) => 1,
            Self::Failed(IssueErrorClass::Throttled) => 2,
            Self::Failed(IssueErrorClass::Permanent) => 3,
            Self::Failed(IssueErrorClass::Credential) => 4,
            Self::Failed(IssueErrorClass::Denied) => 5,
            Self::Held => 6,
            Self::OverBudget => 7,
        }
    }
}

/// Counts since the start.
#[derive(Debug)]
pub(crate) struct Counts {
    fresh: Counter,
    stale: Counter,
    pub(crate) missed: Counter,
    authorities: PerKey<Uid, OfAuthority>,
    limits: PerKey<&'static str, Counter>,
}

/// Of one authority.
#[derive(Debug)]
struct OfAuthority {
    /// By who wanted the token, a caller or the plan, and how that ended.
    ended: [[Counter; Ended::NAMES.len()]; 2],
    delay: Histogram,
}

impl OfAuthority {
    fn new() -> Self {
        Self { ended: Default::default(), delay: Histogram::new(LONG_MICROS) }
    }
}

impl Default for Counts {
    fn default() -> Self {
        let limits = PerKey::new(16, Counter::default);
        let known = [
            "misses_per_second",
            "forced_refreshes_per_minute",
            "max_watches_per_caller",
            "max_waiting_per_caller",
            BROKER,
        ];
        known.iter().for_each(|limit| drop(limits.of(limit)));
        Self {
            fresh: Counter::default(),
            stale: Counter::default(),
            missed: Counter::default(),
            authorities: PerKey::new(MOST_AUTHORITIES, OfAuthority::new),
            limits,
        }
    }
}

impl Counts {
    pub(crate) fn hit(&self, state: Freshness) {
        if state == Freshness::Fresh { &self.fresh } else { &self.stale }.add();
    }

    /// `plan`: nobody waited for it.
    pub(crate) fn ended(&self, authority: Uid, plan: bool, how: Ended) {
        self.authorities.of(&authority).ended[usize::from(plan)][how.index()].add();
    }

    /// A refresh was begun so much later than planned.
    pub(crate) fn delayed(&self, authority: Uid, by: Duration) {
        self.authorities.of(&authority).delay.record(by);
    }

    /// A caller was refused for a limit, if it was.
    pub(crate) fn refused<T>(&self, answer: Result<T, TokenError>) -> Result<T, TokenError> {
        match &answer {
            Err(TokenError::OverLimit { limit, .. }) => self.limits.of(limit).add(),
            Err(TokenError::Overloaded { .. }) => self.limits.of(&BROKER).add(),
            _ => {}
        }
        answer
    }
}

/// Numbers of what happened since the start.
#[derive(Debug, Clone, Default)]
pub struct EngineCounts {
    /// Tokens from memory, before their refresh.
    pub fresh: u64,
    /// Tokens from memory, past it.
    pub stale: u64,
    /// Tokens that had to be asked for.
    pub missed: u64,
    /// Callers that wait for an authority, now.
    pub waiting: u32,
    /// Tokens that are watched, now.
    pub watches: u32,
    /// Callers over each limit.
    pub limits: Vec<(&'static str, u64)>,
    /// By authority; none: those beyond the first thousand.
    pub authorities: Vec<(Option<Uid>, RefreshCounts)>,
}

/// Of one authority.
#[derive(Debug, Clone)]
pub struct RefreshCounts {
    /// Who wanted tokens (`caller`, `plan`), how requests for them ended, and how often.
    pub ended: Vec<(&'static str, &'static str, u64)>,
    /// How much later than planned refreshes were begun.
    pub delay: Buckets,
}

/// What is in the slots.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// Slots in each state.
    pub states: HashMap<SlotState, u64>,
    /// Slots whose last request failed, by authority.
    pub failing: HashMap<Uid, u64>,
    /// The least time that is left to serve one of their tokens, by authority; a slot that never had one is not among them.
    pub starving: HashMap<Uid, Duration>,
    /// The same by identity.
    pub starving_identities: HashMap<Uid, Duration>,
}

impl Engine {
    /// Tokens that were handed out by their places. Those that are asked for in another way are counted there.
    pub fn count_served(&self, fresh: u64, stale: u64) {
        let counts = &self.shared.counts;
        if fresh > 0 {
            counts.fresh.add_many(fresh);
        }
        if stale > 0 {
            counts.stale.add_many(stale);
        }
    }

    /// What happened since the start.
    pub fn counts(&self) -> EngineCounts {
        let counts = &self.shared.counts;
        let of = |of: &OfAuthority| {
            let ended = ["caller", "plan"].into_iter().zip(&of.ended).flat_map(|(cause, ended)| {
                Ended::NAMES.iter().zip(ended).map(move |(how, count)| (cause, *how, count.get()))
            });
            RefreshCounts { ended: ended.collect(), delay: of.delay.read() }
        };
        let (waiting, watches) = self.shared.lasting();
        EngineCounts {
            fresh: counts.fresh.get(),
            stale: counts.stale.get(),
            missed: counts.missed.get(),
            waiting,
            watches,
            limits: counts.limits.all().into_iter().filter_map(|(key, n)| Some((key?, n.get()))).collect(),
            authorities: counts.authorities.all().iter().map(|(key, value)| (*key, of(value))).collect(),
        }
    }

    /// Looks at every slot. With a million of them it takes a part of a second: not for a thread that serves.
    pub fn census(&self) -> Census {
        let now = self.shared.clock.now();
        let mut census = Census::default();
        for slot in self.shared.index.all() {
            let cached = slot.token.load_full();
            *census.states.entry(SlotState::of(cached.as_deref(), now)).or_default() += 1;
            if slot.state().failures > 0 {
                census.fails(&slot, cached.as_deref(), now);
            }
        }
        census
    }
}

impl Census {
    fn fails(&mut self, slot: &Slot, cached: Option<&Cached>, now: Now) {
        *self.failing.entry(slot.key.authority).or_default() += 1;
        let Some(token) = cached.map(|cached| &cached.token) else { return };
        let left = token.served_for(now);
        for (by, key) in
            [(&mut self.starving, slot.key.authority), (&mut self.starving_identities, slot.key.identity)]
        {
            let least = by.entry(key).or_insert(left);
            *least = left.min(*least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_end_is_counted_under_its_name() {
        let counts = Counts::default();
        let ways = [
            Ended::Issued,
            Ended::Failed(IssueErrorClass::Transient),
            Ended::Failed(IssueErrorClass::Throttled),
            Ended::Failed(IssueErrorClass::Permanent),
            Ended::Failed(IssueErrorClass::Credential),
            Ended::Failed(IssueErrorClass::Denied),
            Ended::Held,
            Ended::OverBudget,
        ];
        for (n, how) in ways.into_iter().enumerate() {
            assert_eq!(how.index(), n);
            counts.ended(Uid::LEAST, true, how);
        }
        let of = counts.authorities.of(&Uid::LEAST);
        assert!(of.ended[1].iter().all(|count| count.get() == 1));
        assert!(of.ended[0].iter().all(|count| count.get() == 0));
    }
}
