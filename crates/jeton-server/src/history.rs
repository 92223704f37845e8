//! How much there was to do in the last minutes: what was counted, looked at every few seconds.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jeton_core::{Now, Wall};

/// What was counted since the start of the process, and what there is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tokens from memory, before their refresh.
    pub fresh: u64,
    /// Tokens from memory, past it.
    pub stale: u64,
    /// Tokens that had to be asked for.
    pub missed: u64,
    /// Tokens that were denied.
    pub denied: u64,
    /// Tokens that authorities issued.
    pub refreshed: u64,
    /// Requests for tokens that brought none.
    pub failed: u64,
    /// Requests to authorities.
    pub calls: u64,
    /// Callers that wait, now.
    pub waiting: u32,
    /// Open connections, now.
    pub connections: u64,
}

/// How much there was to do in a stretch of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// How long it is.
    pub over: Duration,
    /// What was counted in it.
    pub counted: Totals,
}

/// A cloneable handle on the last minutes.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<VecDeque<(Now, Totals)>>>);

impl History {
    /// How often it is looked.
    pub const INTERVAL: Duration = Duration::from_secs(5);
    /// Stretches that are remembered.
    pub const POINTS: usize = 180;
    /// Over how long rates are told.
    pub const MINUTE: Duration = Duration::from_secs(60);

    /// What there is now.
    pub fn push(&self, now: Now, totals: Totals) {
        let mut kept = self.lock();
        if kept.len() > Self::POINTS {
            kept.pop_front();
        }
        kept.push_back((now, totals));
    }

    /// Over the last minute, or since the start; none: it was looked only once.
    pub fn rates(&self) -> Option<Rates> {
        let kept = self.lock();
        let (last, earlier) = (kept.back()?, kept.iter().rev().skip(1));
        let within = |it: &&(Now, Totals)| last.0.mono.saturating_since(it.0.mono) <= Self::MINUTE;
        Some(between(earlier.take_while(within).last()?, last))
    }

    /// All stretches, the oldest first, with their ends.
    pub fn points(&self) -> Vec<(Wall, Rates)> {
        let kept = self.lock();
        kept.iter().zip(kept.iter().skip(1)).map(|(from, to)| (to.0.wall, between(from, to))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Now, Totals)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn between((began, from): &(Now, Totals), (ended, to): &(Now, Totals)) -> Rates {
    let counted = Totals {
        fresh: to.fresh.saturating_sub(from.fresh),
        stale: to.stale.saturating_sub(from.stale),
        missed: to.missed.saturating_sub(from.missed),
        denied: to.denied.saturating_sub(from.denied),
        refreshed: to.refreshed.saturating_sub(from.refreshed),
        failed: to.failed.saturating_sub(from.failed),
        calls: to.calls.saturating_sub(from.calls),
        waiting: to.waiting,
        connections: to.connections,
    };
    Rates { over: ended.mono.saturating_since(began.mono), counted }
}

impl Rates {
    /// So many a second.
    pub fn per_second(&self, count: u64) -> f64 {
        let seconds = self.over.as_secs_f64();
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }

    /// Requests for tokens.
    pub fn lookups(&self) -> u64 {
        self.allowed() + self.counted.denied
    }

    /// The part of those that were allowed that got a fresh token from memory.
    pub fn fresh_ratio(&self) -> Option<f64> {
        (self.allowed() > 0).then(|| self.counted.fresh as f64 / self.allowed() as f64)
    }

    fn allowed(&self) -> u64 {
        self.counted.fresh + self.counted.stale + self.counted.missed
    }
}

#[cfg(test)]
mod tests {
    use jeton_core::Mono;

    use super::*;

    fn at(seconds: u64) -> Now {
        let boot = Mono::from_millis(seconds * 1_000);
        Now { wall: Wall::from_secs(1_000 + seconds as i64), mono: boot, boot }
    }

    #[test]
    fn rates_are_those_of_the_last_minute_and_points_those_of_each_stretch() {
        let history = History::default();
        assert_eq!(history.rates(), None);
        for n in 0..=30_u64 {
            let fresh = if n < 18 { 0 } else { (n - 18) * 50 };
            history.push(at(n * 5), Totals { fresh, denied: n, waiting: n as u32, ..Totals::default() });
        }
        let rates = history.rates().unwrap();
        assert_eq!((rates.over, rates.counted.fresh, rates.counted.waiting), (History::MINUTE, 600, 30));
        assert_eq!((rates.per_second(rates.lookups()), rates.fresh_ratio()), (10.2, Some(1.0)));
        let points = history.points();
        assert_eq!((points.len(), points[0].0, points[29].1.counted.fresh), (30, Wall::from_secs(1_005), 50));
        assert_eq!(points[0].1.fresh_ratio(), None, "nobody asked");
    }

    #[test]
    fn it_is_bounded_and_a_machine_that_slept_gives_no_wrong_rates() {
        let history = History::default();
        for n in 0..1_000 {
            history.push(at(n * 5), Totals::default());
        }
        assert_eq!(history.points().len(), History::POINTS);
        history.push(at(100_000), Totals { fresh: 9, ..Totals::default() });
        assert_eq!(history.rates(), None, "the minute before is not known");
    }
}
