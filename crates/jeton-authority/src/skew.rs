//! How far an authority's clock is from ours, learned from the `Date` of its answers.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::UNIX_EPOCH,
};

use jeton_core::{Now, Uid};

use crate::Answer;

/// `Date` has whole seconds, and an answer takes its time: less than this says nothing, and an answer that took longer says only
/// between what bounds their clock is.
const NOISE_MILLIS: i64 = 2_000;

#[derive(Debug, Default)]
pub(crate) struct Skews(Mutex<HashMap<Uid, i64>>);

impl Skews {
    /// Their clock minus ours, in milliseconds.
    pub(crate) fn of(&self, authority: Uid) -> i64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&authority).copied().unwrap_or(0)
    }

    /// Learns from an answer to a request that started and ended at these times.
    pub(crate) fn learn(&self, authority: Uid, answer: &Answer, started: Now, ended: Now) {
        let Some(theirs) = answer.header("date").and_then(|date| httpdate::parse_http_date(date).ok()) else {
            return;
        };
        let Ok(theirs) = theirs.duration_since(UNIX_EPOCH) else { return };
        let Ok(theirs) = i64::try_from(theirs.as_millis()) else { return };
        let mut skews = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = skews.entry(authority).or_default();
        *known = learned(*known, theirs, started.wall.as_millis(), ended.wall.as_millis());
    }
}

/// The skew after an answer whose `Date` is `theirs`, in milliseconds. When in its time the answer was dated nobody tells.
fn learned(known: i64, theirs: i64, started: i64, ended: i64) -> i64 {
    let ended = ended.max(started);
    let (least, most) = (theirs - ended, theirs + 999 - started);
    let skew = if ended - started <= NOISE_MILLIS { least.midpoint(most) } else { known.clamp(least, most) };
    if skew.abs() <= NOISE_MILLIS { 0 } else { skew }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_767_268_800_000;

    #[test]
    fn a_prompt_answer_tells_how_far_their_clock_is() {
        assert_eq!(learned(0, NOON + 60_000, NOON, NOON + 100), 60_449);
        assert_eq!(
            learned(60_000, NOON, NOON + 300, NOON + 400),
            0,
            "a difference that is over is forgotten"
        );
    }

    #[test]
    fn a_slow_answer_is_no_skew_and_teaches_none() {
        for seconds in [3, 9, 26] {
            let (started, ended) = (NOON, NOON + seconds * 1_000);
            for dated in [started, NOON + seconds * 500, ended] {
                assert_eq!(learned(0, dated, started, ended), 0, "{seconds} s, dated {}", dated - started);
                assert_eq!(learned(-60_000, dated - 60_000, started, ended), -60_000, "what is known stays");
            }
        }
        assert_eq!(
            learned(0, NOON + 120_000, NOON, NOON + 9_000),
            111_000,
            "beyond every doubt it is learned"
        );
    }
}
