//! What the lifecycle counts of its steps, for whoever reports.

use std::time::Duration;

use jeton_core::{
    Step,
    metrics::{Buckets, Counter, Histogram, LONG_MICROS},
};

use crate::Lifecycle;

const STEPS: [Step; 6] =
    [Step::KeyMade, Step::Registered, Step::Verified, Step::Switched, Step::Overlapped, Step::Removed];

/// How a try of a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepEnd {
    Done,
    /// What the authority said, in one word.
    Failed(&'static str),
    /// It was taken, and could not be written down.
    NotWrittenDown,
    /// It was not taken: its intent could not be written down.
    AuditUnavailable,
}

const ENDS: [&str; 9] = [
    "done",
    "transient",
    "unknown",
    "permanent",
    "unauthorized",
    "unmanageable",
    "inside",
    "not_written_down",
    "audit_unavailable",
];

impl StepEnd {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed(class) => class,
            Self::NotWrittenDown => "not_written_down",
            Self::AuditUnavailable => "audit_unavailable",
        }
    }
}

/// Since the start.
#[derive(Debug)]
pub(crate) struct Counts([OfStep; STEPS.len()]);

#[derive(Debug)]
struct OfStep {
    ended: [Counter; ENDS.len()],
    took: Histogram,
}

/// Tries of one step since the start.
#[derive(Debug, Clone)]
pub struct StepCounts {
    /// Which step.
    pub step: Step,
    /// How they ended, and how many.
    pub ended: Vec<(&'static str, u64)>,
    /// How long they took.
    pub took: Buckets,
}

impl Default for Counts {
    fn default() -> Self {
        let one = |_| OfStep { ended: Default::default(), took: Histogram::new(LONG_MICROS) };
        Self(std::array::from_fn(one))
    }
}

impl Counts {
    pub(crate) fn ended(&self, step: Step, how: StepEnd, took: Duration) {
        let of = &self.0[step as usize];
        of.took.record(took);
        if let Some(count) = ENDS.iter().position(|end| *end == how.as_str()).and_then(|n| of.ended.get(n)) {
            count.add();
        }
    }
}

impl Lifecycle {
    /// Steps that were tried since the start.
    pub fn step_counts(&self) -> Vec<StepCounts> {
        let of = |(step, of): (Step, &OfStep)| StepCounts {
            step,
            ended: ENDS.into_iter().zip(&of.ended).map(|(end, count)| (end, count.get())).collect(),
            took: of.took.read(),
        };
        STEPS.into_iter().zip(&self.shared.counts.0).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_and_every_end_has_its_place() {
        let counts = Counts::default();
        for (n, step) in STEPS.into_iter().enumerate() {
            assert_eq!(step as usize, n);
        }
        for end in ENDS {
            counts.ended(Step::Switched, StepEnd::Failed(end), Duration::from_millis(1));
        }
        assert!(counts.0[3].ended.iter().all(|count| count.get() == 1));
        assert_eq!(counts.0[3].took.read().counts.iter().sum::<u64>(), ENDS.len() as u64);
    }
}
