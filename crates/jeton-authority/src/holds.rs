//! Who must not be asked for before when: an authority's Retry-After (RFC 9110 section 10.2.3) holds for every request that is made
//! for the same client, whatever it asks for.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jeton_core::{Mono, Now, Uid};

/// By identity, or by authority for its registrar. By boot time: a clock that is set moves no hold.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<HashMap<Uid, Mono>>);

impl Holds {
    /// An answer told to wait.
    pub(crate) fn hold(&self, owner: Uid, delay: Duration, now: Now) {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|_, until| *until > now.boot);
        let until = holds.entry(owner).or_default();
        *until = (*until).max(now.boot + delay);
    }

    /// All waits that are not over: whose, and how long each still is.
    pub(crate) fn all(&self, now: Now) -> Vec<(Uid, Duration)> {
        let holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = holds.iter().map(|(owner, until)| (*owner, until.saturating_since(now.boot)));
        left.filter(|(_, left)| !left.is_zero()).collect()
    }

    /// How long the wait still is, if there is one.
    pub(crate) fn left(&self, owner: Uid, now: Now) -> Option<Duration> {
        let holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = holds.get(&owner).filter(|until| **until > now.boot)?;
        Some(until.saturating_since(now.boot))
    }
}

#[cfg(test)]
mod tests {
    use jeton_core::{Clock, Wall};
    use jeton_testkit::ManualClock;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_wait_that_was_told_holds_for_its_owner_alone() {
        let (clock, holds) = (ManualClock::default(), Holds::default());
        let [one, other] = [1, 2].map(|n| Uid::new(Wall::from_secs(1), [n; 10]));
        holds.hold(one, Duration::from_secs(30), clock.now());
        holds.hold(one, Duration::from_secs(5), clock.now());
        assert_eq!(holds.left(other, clock.now()), None);
        clock.advance(Duration::from_secs(10)).await;
        assert_eq!(holds.left(one, clock.now()), Some(Duration::from_secs(20)));
        assert_eq!(holds.all(clock.now()), [(one, Duration::from_secs(20))]);
        clock.step_wall(3_600_000);
        assert_eq!(holds.left(one, clock.now()), Some(Duration::from_secs(20)));
        clock.advance(Duration::from_secs(20)).await;
        assert_eq!(holds.left(one, clock.now()), None);
        assert_eq!(holds.all(clock.now()), []);
    }
}
