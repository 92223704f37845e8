//! The named steps of an identity's life, and which follows which.
//!
//! Every step is written down before it is taken, is idempotent, and can be resumed after a crash. This file only says the order;
//! taking a step is the lifecycle's business.

use serde::{Deserialize, Serialize};

use crate::{Uid, Wall};

/// Work under way on one identity. Stored with the record, so that a restart resumes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What is being done.
    pub kind: OperationKind,
    /// The step that was completed last; none: nothing yet.
    pub done: Option<Step>,
    /// The credential being introduced, once made.
    pub credential: Option<Uid>,
    /// When it was asked for.
    pub started_at: Wall,
    /// When the step in hand was entered.
    pub step_since: Wall,
    /// Failed tries of the step in hand.
    pub attempts: u32,
    /// Not tried again before.
    pub next_try_at: Wall,
    /// The last failure, in words for an administrator, without secrets.
    pub last_error: Option<String>,
    /// Whether the last failure is one that no retry helps until somebody changes something.
    #[serde(default)]
    pub permanent: bool,
    /// A rotation: begin another one as soon as this one is complete.
    #[serde(default)]
    pub again: bool,
}

/// What is being done to an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    /// Make, register and verify the first credential.
    Provision,
    /// Verify a credential that was brought along.
    Attach,
    /// Replace the credential with overlap.
    Rotate,
    /// Prove the credential in use by a grant: it comes from a backup, and the authority may know another one by now.
    Verify,
    /// Remove the client at the authority, then the record.
    Delete,
}

/// A step that has been completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A key and its certificate exist, sealed.
    KeyMade,
    /// The authority knows the key.
    Registered,
    /// A real grant succeeded with it.
    Verified,
    /// It is the current one.
    Switched,
    /// The overlap with its predecessor is over.
    Overlapped,
    /// The predecessor is gone at the authority.
    Removed,
}

impl Step {
    /// The name used in logs, the API and tests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeyMade => "key_made",
            Self::Registered => "registered",
            Self::Verified => "verified",
            Self::Switched => "switched",
            Self::Overlapped => "overlapped",
            Self::Removed => "removed",
        }
    }
}

impl OperationKind {
    /// The steps of the operation, in order.
    pub const fn steps(self) -> &'static [Step] {
        match self {
            Self::Provision => &[Step::KeyMade, Step::Registered, Step::Verified, Step::Switched],
            Self::Attach => &[Step::Verified, Step::Switched],
            Self::Rotate => &[
                Step::KeyMade,
                Step::Registered,
                Step::Verified,
                Step::Switched,
                Step::Overlapped,
                Step::Removed,
            ],
            Self::Verify => &[Step::Verified],
            Self::Delete => &[Step::Removed],
        }
    }

    /// The step after `done`; none when the operation is complete.
    pub fn next(self, done: Option<Step>) -> Option<Step> {
        let steps = self.steps();
        match done {
            None => steps.first().copied(),
            Some(done) => steps.iter().copied().skip_while(|s| *s != done).nth(1),
        }
    }
}

impl Operation {
    /// A new operation, due at once.
    pub fn new(kind: OperationKind, now: Wall) -> Self {
        Self {
            kind,
            done: None,
            credential: None,
            started_at: now,
            step_since: now,
            attempts: 0,
            next_try_at: now,
            last_error: None,
            permanent: false,
            again: false,
        }
    }

    /// The step in hand.
    pub fn step(&self) -> Option<Step> {
        self.kind.next(self.done)
    }

    /// Marks the step in hand as completed. The next is due at once, and keeps its place in line: who was asked for first is done first,
    /// however many others are asked for meanwhile.
    pub fn complete(&mut self, step: Step, now: Wall) {
        self.done = Some(step);
        self.step_since = now;
        self.attempts = 0;
        self.next_try_at = self.started_at;
        self.last_error = None;
        self.permanent = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_walks_its_steps_in_order_and_ends() {
        for kind in [
            OperationKind::Provision,
            OperationKind::Attach,
            OperationKind::Rotate,
            OperationKind::Verify,
            OperationKind::Delete,
        ] {
            let mut operation = Operation::new(kind, Wall::from_secs(1));
            let mut taken = vec![];
            while let Some(step) = operation.step() {
                taken.push(step);
                operation.complete(step, Wall::from_secs(2));
                assert!(taken.len() <= 6);
            }
            assert_eq!(taken, kind.steps());
        }
    }

    #[test]
    fn no_step_switches_to_a_key_before_a_real_grant_verified_it() {
        for kind in [OperationKind::Provision, OperationKind::Attach, OperationKind::Rotate] {
            let at = |step| kind.steps().iter().position(|s| *s == step);
            assert!(at(Step::Verified) < at(Step::Switched));
        }
    }
}
