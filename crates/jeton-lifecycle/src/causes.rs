//! By whose doing operations are under way, where that is recorded. A step comes after the call that asked for it, so it is no part of
//! the call: it is in a trace of its own, with a link.

use std::{collections::HashMap, time::Duration};

use jeton_core::{Authority, Identity, Operation, Step, Uid, Wall};
use jeton_trace::{Context, Span};

use crate::{
    audited::kind,
    counts::StepEnd,
    registry::{Shared, locked},
};

/// Of identities with an operation; not kept over a restart.
#[derive(Default)]
pub(crate) struct Causes(HashMap<Uid, Cause>);

struct Cause {
    /// Which operation of the identity.
    started_at: Wall,
    context: Context,
}

impl Causes {
    /// An identity was written, by what the present task does. The first who did so with an operation is its cause.
    pub(crate) fn note(&mut self, identity: &Identity) {
        let Some(operation) = &identity.operation else { return self.forget(identity.uid) };
        if self.of(identity).is_none() {
            self.forget(identity.uid);
            if let Some(context) = jeton_trace::current().context() {
                let cause = Cause { started_at: operation.started_at, context: context.clone() };
                self.0.insert(identity.uid, cause);
            }
        }
    }

    /// There is no operation any more.
    pub(crate) fn forget(&mut self, uid: Uid) {
        self.0.remove(&uid);
    }

    /// The cause of an identity's operation, if it is recorded.
    pub(crate) fn of(&self, identity: &Identity) -> Option<&Context> {
        let cause = self.0.get(&identity.uid)?;
        let same = identity.operation.as_ref().is_some_and(|o| o.started_at == cause.started_at);
        same.then_some(&cause.context)
    }
}

impl Shared {
    /// Of a step: in a trace of its own, as whoever asked for it does not wait.
    pub(crate) fn span(
        &self,
        authority: &Authority,
        identity: &Identity,
        operation: &Operation,
        step: Step,
    ) -> Span {
        let cause = locked(&self.causes).of(identity).cloned();
        let (kind, step) = (kind(operation.kind), step.as_str());
        let span = self.ports.tracer.following(cause.as_ref(), || format!("{kind}/{step}").into());
        span.text("jeton.identity", &identity.name);
        span.text("jeton.authority", &authority.name);
        span.text("jeton.operation", kind);
        span.text("jeton.lifecycle.step", step);
        span
    }

    /// Counts how a step ended, and says so in its span.
    pub(crate) fn ended(&self, step: Step, how: StepEnd, took: Duration) {
        self.counts.ended(step, how, took);
        let span = jeton_trace::current();
        span.text("jeton.lifecycle.outcome", how.as_str());
        if !matches!(how, StepEnd::Done) {
            span.fail(how.as_str());
        }
    }
}
