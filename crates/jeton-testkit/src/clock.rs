//! A clock that stands still until a test moves it.
//!
//! Under tokio's paused time, [`ManualClock::advance`] moves the three clocks and the runtime's timers by the same amount in one
//! call. The other methods take the clocks apart, as suspend and a stepped wall clock do.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jeton_core::{Clock, Mono, Now, Wall};

/// A cloneable handle; all clones tell the same time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Now>>);

/// Where every manual clock starts: 2026-01-01T00:00:00Z.
pub const START: Wall = Wall::from_secs(1_767_225_600);

impl Default for ManualClock {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Now {
            wall: START,
            mono: Mono::from_millis(1_000_000),
            boot: Mono::from_millis(5_000_000),
        })))
    }
}

impl ManualClock {
    /// Moves all three clocks and tokio's timers, in small steps, so that every timer fires at its own time and sees it.
    ///
    /// Needs a current-thread runtime with paused time.
    pub async fn advance(&self, by: Duration) {
        self.advance_in_steps(by, Duration::from_millis(50)).await;
    }

    /// The same in longer steps, for hours and days: timers still fire in their order, each at most one step late.
    pub async fn advance_in_steps(&self, by: Duration, longest: Duration) {
        let mut left = by;
        while !left.is_zero() {
            let step = left.min(longest);
            self.change(|now| {
                now.wall = now.wall + step;
                now.mono = now.mono + step;
                now.boot = now.boot + step;
            });
            tokio::time::advance(step).await;
            // Lets every task that the step woke run before the next step. While this one yields, the runtime polls 61 others.
            let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            for _ in 0..8 + alive / 16 {
                tokio::task::yield_now().await;
            }
            left -= step;
        }
    }

    /// Steps the wall clock alone, in either direction, as an administrator or NTP may.
    pub fn step_wall(&self, millis: i64) {
        self.change(|now| now.wall = now.wall.shifted(millis));
    }

    /// The machine was suspended: wall and boot time went on, monotonic time and timers did not.
    pub fn suspend(&self, by: Duration) {
        self.change(|now| {
            now.wall = now.wall + by;
            now.boot = now.boot + by;
        });
    }

    fn change(&self, how: impl FnOnce(&mut Now)) {
        how(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
