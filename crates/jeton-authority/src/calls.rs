//! How long calls to each authority took, by what they were for and how they ended.

use std::time::{Duration, Instant};

use jeton_core::{
    Uid,
    metrics::{Buckets, CALL_MICROS, Histogram, PerKey},
};

use crate::{Answer, AuthorityClient, HttpError};

/// Authorities that are told apart; the others are counted together.
const MOST_AUTHORITIES: usize = 1_000;
const CLASSES: [&str; 5] = ["none", "2xx", "3xx", "4xx", "5xx"];

/// What a call is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    Token,
    Revocation,
    Registration,
}

impl Operation {
    const NAMES: [&str; 3] = ["token", "revocation", "registration"];
}

/// Calls of one authority, by operation and class of status.
type OfAuthority = [[Histogram; CLASSES.len()]; Operation::NAMES.len()];

#[derive(Debug)]
pub(crate) struct Calls(PerKey<Uid, OfAuthority>);

/// Calls to one authority that were for the same and ended alike.
#[derive(Debug, Clone)]
pub struct CallsEnded {
    /// None: of those beyond the first thousand.
    pub authority: Option<Uid>,
    /// `token`, `revocation` or `registration`.
    pub operation: &'static str,
    /// Such as `2xx`; `none`: there was no answer.
    pub class: &'static str,
    /// How long they took.
    pub took: Buckets,
}

impl Default for Calls {
    fn default() -> Self {
        let one = || std::array::from_fn(|_| std::array::from_fn(|_| Histogram::new(CALL_MICROS)));
        Self(PerKey::new(MOST_AUTHORITIES, one))
    }
}

impl Calls {
    /// A call that began then has ended so.
    pub(crate) fn ended(
        &self,
        authority: Uid,
        operation: Operation,
        began: Instant,
        answer: &Result<Answer, HttpError>,
    ) {
        let class = answer.as_ref().map_or(0, |answer| usize::from(answer.status / 100).saturating_sub(1));
        let class = if class < CLASSES.len() { class } else { 0 };
        self.0.of(&authority)[operation as usize][class].record(began.elapsed());
    }
}

impl AuthorityClient {
    /// Retry-Afters in force: of which identity, or of which authority's registrar, and how long each still is.
    pub fn held(&self) -> Vec<(Uid, Duration)> {
        self.0.holds.all(self.0.clock.now())
    }

    /// Calls since the start, those that were made.
    pub fn calls(&self) -> Vec<CallsEnded> {
        let mut all = vec![];
        for (authority, of) in self.0.calls.0.all() {
            for (operation, classes) in Operation::NAMES.into_iter().zip(of.iter()) {
                let read = CLASSES.into_iter().zip(classes).map(|(class, calls)| (class, calls.read()));
                let made = read.filter(|(_, took)| took.counts.iter().any(|count| *count > 0));
                all.extend(made.map(|(class, took)| CallsEnded { authority, operation, class, took }));
            }
        }
        all
    }
}
