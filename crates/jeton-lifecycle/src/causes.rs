//! By whose doing operations are under way, where that is recorded. A step comes after the call that asked for it, so it is no part of
//! the call: it is in a trace of its own, with a link.

use std::collections::HashMap;

use jeton_core::{Identity, Uid, Wall};
use jeton_trace::Context;

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
