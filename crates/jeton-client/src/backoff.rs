//! How long to wait before the next try.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
/// What a broker did while it was away is seen this soon after it is back.
const LONGEST: Duration = Duration::from_secs(1);

/// Doubles from one try to the next; each wait is drawn from its upper half, so that callers who lost a broker together come back apart.
#[derive(Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    pub(crate) fn next(&mut self) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.0.min(16)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        longest.mul_f64(rand::random_range(0.5..=1.0))
    }

    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }
}

/// A little more, so that many do not come at once.
pub(crate) fn spread(delay: Duration) -> Duration {
    delay.mul_f64(rand::random_range(1.0..=1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_the_first_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::default();
        assert!(backoff.next() <= FIRST);
        for _ in 0..100 {
            assert!(backoff.next() <= LONGEST);
        }
        assert!(backoff.next() >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
