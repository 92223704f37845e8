//! When a token is refreshed, and what a try's outcome means. Pure: time and randomness are arguments.
//!
//! A valid token beats an error: nothing an authority answers removes a token that still lives. Jitter is drawn once, when a
//! token is put in its slot; drawn at each look it would always fire early.

use std::time::Duration;

use crate::serve_floor;

/// Back-off between failed tries of one key while the cause may pass by itself.
pub const TRANSIENT_CAP: Duration = Duration::from_secs(30);
/// Back-off between failed tries of one key that the authority refuses for good.
pub const PERMANENT_CAP: Duration = Duration::from_secs(600);

/// A refresh is due in this part of a life.
const DUE: std::ops::Range<f64> = 0.40..0.60;
/// The longest `min_validity` that can be asked for, as a part of the life: what is left of every token until its refresh.
pub const LONGEST_MIN_VALIDITY: f64 = 1.0 - DUE.end;

/// How long after the start of its request a token's refresh is due.
///
/// At `refresh_in` where the authority says so, else evenly between 40 and 60 % of the life, by `unit` in `0.0..1.0`; never so late
/// that the token could reach its floor first. Half as wide a spread leaves keys that came together together for six cycles.
pub fn refresh_after(lifetime: Duration, refresh_in: Option<Duration>, unit: f64) -> Duration {
    let latest = lifetime.saturating_sub(serve_floor(lifetime)).mul_f64(0.9);
    let due = refresh_in
        .unwrap_or_else(|| lifetime.mul_f64(DUE.start + (DUE.end - DUE.start) * unit.clamp(0.0, 1.0)));
    due.min(latest)
}

/// How a try ended, as far as the plan must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// A token came.
    Issued,
    /// It may work later.
    Transient {
        /// The authority's Retry-After.
        retry_after: Option<Duration>,
    },
    /// The authority refuses.
    Permanent {
        /// The authority's Retry-After.
        retry_after: Option<Duration>,
    },
    /// We ourselves refuse: disabled, deleted, revoked.
    Denied,
}

/// What to do with a slot after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshPlan {
    /// Put the new token in.
    Swap,
    /// Keep what is there and try again after this delay; until then callers without a valid token get the error at once.
    Keep {
        /// From now.
        retry_in: Duration,
    },
    /// Remove the slot and its token.
    Evict,
}

impl RefreshPlan {
    /// The plan after an outcome. `failures` counts the failed tries in a row, this one included; `unit` is in `0.0..1.0`.
    pub fn after(outcome: RefreshOutcome, failures: u32, unit: f64) -> Self {
        match outcome {
            RefreshOutcome::Issued => Self::Swap,
            RefreshOutcome::Denied => Self::Evict,
            RefreshOutcome::Transient { retry_after } => {
                Self::Keep { retry_in: delay(failures, 2, TRANSIENT_CAP, retry_after, unit) }
            }
            RefreshOutcome::Permanent { retry_after } => {
                Self::Keep { retry_in: delay(failures, 5, PERMANENT_CAP, retry_after, unit) }
            }
        }
    }
}

/// 1 s, growing by `factor`, spread by up to a fifth on top; never before Retry-After ends.
fn delay(failures: u32, factor: u32, cap: Duration, retry_after: Option<Duration>, unit: f64) -> Duration {
    let grown = Duration::from_secs(u64::from(factor.saturating_pow(failures.saturating_sub(1)))).min(cap);
    let spread = 1.0 + 0.2 * unit.clamp(0.0, 1.0);
    grown.mul_f64(spread).max(retry_after.unwrap_or_default())
}

/// After this many refreshes that nobody used, a token is left alone.
pub const UNUSED_REFRESHES: u32 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_valid_token_survives_every_answer_of_an_authority() {
        for outcome in [
            RefreshOutcome::Transient { retry_after: None },
            RefreshOutcome::Permanent { retry_after: Some(S(5)) },
        ] {
            assert!(matches!(RefreshPlan::after(outcome, 1, 0.5), RefreshPlan::Keep { .. }));
        }
    }

    #[test]
    fn only_our_own_refusal_evicts() {
        assert_eq!(RefreshPlan::after(RefreshOutcome::Denied, 1, 0.0), RefreshPlan::Evict);
    }

    #[test]
    fn a_refused_key_asks_at_most_every_ten_minutes_after_five_tries() {
        let plan = RefreshPlan::after(RefreshOutcome::Permanent { retry_after: None }, 5, 0.0);
        assert_eq!(plan, RefreshPlan::Keep { retry_in: S(600) });
    }

    #[test]
    fn an_authority_that_comes_back_is_asked_within_a_minute() {
        for failures in 1..100 {
            let RefreshPlan::Keep { retry_in } =
                RefreshPlan::after(RefreshOutcome::Transient { retry_after: None }, failures, 1.0)
            else {
                panic!("a transient failure keeps the slot");
            };
            assert!(retry_in <= S(60), "{failures}: {retry_in:?}");
        }
    }

    proptest! {
        #[test]
        fn the_refresh_is_due_around_half_of_life_and_before_the_floor(secs in 1u64..100_000, unit in 0.0f64..1.0) {
            let life = S(secs);
            let due = refresh_after(life, None, unit);
            prop_assert!(due >= life.mul_f64(0.399) && due <= life.mul_f64(0.601));
            prop_assert!(due < life - serve_floor(life));
        }

        #[test]
        fn refresh_in_is_obeyed_but_never_past_the_floor(secs in 1u64..100_000, hint in 0u64..200_000) {
            let due = refresh_after(S(secs), Some(S(hint)), 0.5);
            prop_assert!(due <= S(hint) && due < S(secs) - serve_floor(S(secs)));
        }

        #[test]
        fn no_retry_comes_before_retry_after_ends(failures in 1u32..50, wait in 0u64..3600, unit in 0.0f64..1.0, permanent: bool) {
            let retry_after = Some(S(wait));
            let outcome =
                if permanent { RefreshOutcome::Permanent { retry_after } } else { RefreshOutcome::Transient { retry_after } };
            let RefreshPlan::Keep { retry_in } = RefreshPlan::after(outcome, failures, unit) else { panic!("kept") };
            prop_assert!(retry_in >= S(wait));
        }
    }
}
