//! How far an authority's clock is from ours, learned from the `Date` of its answers.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::UNIX_EPOCH,
};

use jeton_core::{Now, Uid};

use crate::Answer;

/// `Date` has whole seconds, and an answer takes its time: less than this says nothing.
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
        let middle = started.wall.as_millis().midpoint(ended.wall.as_millis());
        // The middle of the second that the header names.
        let skew = i64::try_from(theirs.as_millis()).unwrap_or(middle) + 500 - middle;
        let skew = if skew.abs() <= NOISE_MILLIS { 0 } else { skew };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(authority, skew);
    }
}
