//! How many token requests an authority gets. Pure: time is an argument.
//!
//! One bucket for each authority. Its rate halves when the authority throttles and grows back by a twentieth of the full rate each
//! second. Callers that wait come first, then what is about to expire, then what is due, then what is only being warmed up; a lower
//! priority must leave a part of the bucket for the higher ones, and warm-up has a slower bucket of its own besides. A quarter of the
//! rate is kept for what is about to expire: callers of cold tokens, however many, must not let warm ones die.

use std::time::Duration;

use crate::{Mono, profile::AuthorityLimits};

/// Who asks for a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A start that fills the cache.
    WarmUp,
    /// Somebody waits who had more than its part of late. Half of everything is kept from all such callers together, so whoever comes
    /// beside them finds room at once.
    Excess,
    /// A refresh that has time.
    Due,
    /// A refresh whose token is about to reach its floor.
    Expiring,
    /// Somebody waits for the answer.
    Waiting,
}

/// Seconds of the rate that the bucket holds.
const BURST_SECONDS: f64 = 2.0;
/// The part of the rate that is kept for what is about to expire.
const RESERVE: f64 = 0.25;
/// Lowest rate after throttling, a second.
const FLOOR: f64 = 1.0;

/// The bucket of one authority.
#[derive(Debug, Clone)]
pub struct Budget {
    full: f64,
    rate: f64,
    level: f64,
    reserve: f64,
    warm_up: f64,
    warm_up_level: f64,
    max_concurrent: u32,
    in_flight: u32,
    halved_at: Option<Mono>,
    at: Mono,
}

impl Budget {
    /// A full bucket.
    pub fn new(limits: &AuthorityLimits, now: Mono) -> Self {
        let (full, warm_up) =
            (f64::from(limits.requests_per_second.max(1)), f64::from(limits.warm_up_per_second.max(1)));
        Self {
            full,
            rate: full,
            level: full * BURST_SECONDS * (1.0 - RESERVE),
            reserve: full * BURST_SECONDS * RESERVE,
            warm_up,
            warm_up_level: warm_up * BURST_SECONDS,
            max_concurrent: limits.max_concurrent.max(1),
            in_flight: 0,
            halved_at: None,
            at: now,
        }
    }

    /// Takes a permit if there is one; each must be given back with [`Budget::done`].
    pub fn take(&mut self, priority: Priority, now: Mono) -> bool {
        self.refill(now);
        let burst = self.rate * BURST_SECONDS * (1.0 - RESERVE);
        let (keep, share) = match priority {
            Priority::Waiting => (0.0, 1.0),
            Priority::Expiring => (burst * 0.1, 0.9),
            Priority::Due => (burst * 0.3, 0.75),
            Priority::Excess | Priority::WarmUp => (burst * 0.5, 0.5),
        };
        let slots = (f64::from(self.max_concurrent) * share).ceil().max(1.0);
        let warm = priority != Priority::WarmUp || self.warm_up_level >= 1.0;
        let reserved = priority == Priority::Expiring && self.reserve >= 1.0;
        let free = f64::from(self.in_flight) < slots
            && (reserved || self.level - 1.0 >= keep.min(burst - 1.0).max(0.0))
            && warm;
        if free {
            if reserved {
                self.reserve -= 1.0;
            } else {
                self.level -= 1.0;
            }
            self.in_flight += 1;
            if priority == Priority::WarmUp {
                self.warm_up_level -= 1.0;
            }
        }
        free
    }

    /// The request that a permit was for has ended.
    pub fn done(&mut self, throttled: bool, now: Mono) {
        self.refill(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        // One answer of many that were under way together halves; the others say the same thing.
        let again = self.halved_at.is_none_or(|at| now.saturating_since(at) >= Duration::from_secs(1));
        if throttled && again {
            self.rate = (self.rate / 2.0).max(FLOOR);
            self.level = self.level.min(self.rate * (1.0 - RESERVE));
            self.reserve = self.reserve.min(self.rate * RESERVE);
            self.halved_at = Some(now);
        }
    }

    /// The authority's limits changed; what is under way goes on.
    pub fn adjust(&mut self, limits: &AuthorityLimits, now: Mono) {
        *self = Self { in_flight: self.in_flight, ..Self::new(limits, now) };
    }

    /// Requests a second, now.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The part of the bucket, or of what may be under way, that is used up by now; the larger of the two.
    pub fn used(&self, now: Mono) -> f64 {
        let mut filled = self.clone();
        filled.refill(now);
        let burst = (filled.rate * BURST_SECONDS * (1.0 - RESERVE)).max(1.0);
        let under_way = f64::from(self.in_flight) / f64::from(self.max_concurrent);
        (1.0 - filled.level / burst).max(under_way).clamp(0.0, 1.0)
    }

    /// The part of one caller among so many, and one more that may come: requests a second, requests at once after a pause, and requests
    /// under way.
    pub fn part(&self, callers: usize) -> (f64, f64, u32) {
        let parts = callers.saturating_add(1);
        let rate = self.rate * (1.0 - RESERVE) / parts as f64;
        let concurrent = self.max_concurrent / u32::try_from(parts).unwrap_or(u32::MAX);
        (rate, (rate * BURST_SECONDS).max(1.0), concurrent.max(1))
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn refill(&mut self, now: Mono) {
        let seconds = now.saturating_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.rate = (self.rate + self.full / 20.0 * seconds).min(self.full);
        // What the reserve has no room for is everybody's.
        let (all, most) = (self.rate * seconds, self.rate * BURST_SECONDS);
        let kept = (all * RESERVE).min(most * RESERVE - self.reserve).max(0.0);
        self.reserve = (self.reserve + kept).min((most * RESERVE).max(1.0));
        self.level = (self.level + all - kept).min((most * (1.0 - RESERVE)).max(1.0));
        self.warm_up_level = (self.warm_up_level + self.warm_up * seconds).min(self.warm_up * BURST_SECONDS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    fn granted(budget: &mut Budget, priority: Priority, now: Mono, tries: u32) -> u32 {
        let granted = (0..tries).filter(|_| budget.take(priority, now)).count() as u32;
        (0..granted).for_each(|_| budget.done(false, now));
        granted
    }

    fn limits() -> AuthorityLimits {
        AuthorityLimits { max_concurrent: 1_000_000, ..AuthorityLimits::default() }
    }

    #[test]
    fn a_steady_stream_gets_the_rate_and_no_more() {
        let mut budget = Budget::new(&limits(), at(0));
        let total: u32 =
            (0..60_000).step_by(100).map(|ms| granted(&mut budget, Priority::Waiting, at(ms), 1_000)).sum();
        assert!((12_000..=12_400).contains(&total), "{total}");
    }

    #[test]
    fn what_is_used_up_comes_back_with_time() {
        let mut budget = Budget::new(&limits(), at(0));
        assert!(budget.used(at(0)) < 1e-9);
        while budget.take(Priority::Waiting, at(0)) {}
        assert!(budget.used(at(0)) > 0.99);
        assert!(budget.used(at(10_000)) < 0.01, "{}", budget.used(at(10_000)));
        let one = AuthorityLimits { max_concurrent: 2, ..AuthorityLimits::default() };
        let mut budget = Budget::new(&one, at(0));
        assert!(budget.take(Priority::Waiting, at(0)));
        assert!((budget.used(at(10_000)) - 0.5).abs() < 1e-9, "one of two is under way");
    }

    #[test]
    fn warm_up_is_slower_than_the_rest() {
        let mut budget = Budget::new(&limits(), at(0));
        let total: u32 =
            (0..60_000).step_by(100).map(|ms| granted(&mut budget, Priority::WarmUp, at(ms), 1_000)).sum();
        assert!((1_190..=1_240).contains(&total), "{total}");
    }

    #[test]
    fn a_flood_of_due_refreshes_leaves_room_for_a_caller() {
        let mut budget = Budget::new(&AuthorityLimits::default(), at(0));
        while budget.take(Priority::Due, at(0)) {}
        assert!(budget.take(Priority::Expiring, at(0)));
        while budget.take(Priority::Expiring, at(0)) {}
        assert!(budget.take(Priority::Waiting, at(0)));
    }

    #[test]
    fn a_flood_of_waiting_callers_leaves_a_quarter_for_what_is_about_to_expire() {
        let mut budget = Budget::new(&limits(), at(0));
        let (mut waiting, mut expiring) = (0, 0);
        for ms in (0..60_000).step_by(100) {
            waiting += granted(&mut budget, Priority::Waiting, at(ms), 1_000);
            expiring += granted(&mut budget, Priority::Expiring, at(ms), 10);
        }
        assert!((2_900..=3_200).contains(&expiring), "{expiring}");
        assert!((12_000..=12_500).contains(&(waiting + expiring)), "{waiting} and {expiring}");
    }

    #[test]
    fn callers_in_excess_leave_half_of_the_bucket_and_of_the_slots_to_whoever_comes() {
        let mut budget = Budget::new(&AuthorityLimits::default(), at(0));
        while budget.take(Priority::Excess, at(0)) {}
        assert_eq!(budget.in_flight(), 32);
        let room = (0..1_000).filter(|_| budget.take(Priority::Waiting, at(0))).count();
        assert_eq!(room, 32);
        let mut budget = Budget::new(&limits(), at(0));
        while budget.take(Priority::Excess, at(0)) {}
        let room = (0..1_000).filter(|_| budget.take(Priority::Waiting, at(0))).count();
        assert_eq!(room, 150, "of 300 at once");
    }

    #[test]
    fn throttling_halves_the_rate_once_a_second_and_it_grows_back() {
        let mut budget = Budget::new(&limits(), at(0));
        for _ in 0..50 {
            assert!(budget.take(Priority::Waiting, at(0)));
            budget.done(true, at(0));
        }
        assert!((budget.rate() - 100.0).abs() < 1e-6);
        for second in 1..20 {
            budget.done(true, at(second * 1_000));
        }
        assert!(budget.rate() <= 20.0 && budget.rate() >= FLOOR, "{}", budget.rate());
        budget.take(Priority::Waiting, at(60_000));
        assert!((budget.rate() - 200.0).abs() < 1e-6);
    }

    #[test]
    fn even_the_lowest_rate_lets_every_priority_through_in_time() {
        let limits =
            AuthorityLimits { requests_per_second: 1, warm_up_per_second: 1, max_concurrent: 1, ..limits() };
        for priority in
            [Priority::WarmUp, Priority::Excess, Priority::Due, Priority::Expiring, Priority::Waiting]
        {
            let mut budget = Budget::new(&limits, at(0));
            let total: u32 =
                (0..10_000).step_by(250).map(|ms| granted(&mut budget, priority, at(ms), 1)).sum();
            assert!(total >= 9, "{priority:?}: {total}");
        }
    }
}
