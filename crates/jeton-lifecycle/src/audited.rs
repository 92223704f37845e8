//! What a step does to keys is on the audit trail before it is done, and so is what became of it.

use jeton_core::{
    AuditEvent, AuditKind, AuditOutcome, AuditResource, AuditUnavailable, Authority, Identity, Operation,
    OperationKind, Step, Uid,
};

use crate::registry::Shared;

impl Shared {
    /// Writes down that a step is about to be taken. None: it changes nothing about a key.
    pub(crate) async fn intend(
        &self,
        authority: &Authority,
        identity: &Identity,
        operation: &Operation,
        step: Step,
    ) -> Result<Option<AuditEvent>, AuditUnavailable> {
        if matches!(step, Step::Verified | Step::Overlapped) {
            return Ok(None);
        }
        let mut event = AuditEvent::new(AuditKind::KeyStep, AuditOutcome::Intent);
        event.method = Some(format!("{}/{}", kind(operation.kind), step.as_str()).into());
        event.resources = vec![
            AuditResource::new(identity.name.as_str(), Some(identity.uid)),
            AuditResource::new(authority.name.as_str(), Some(authority.uid)),
        ];
        event.credential = match (operation.kind, step) {
            (OperationKind::Delete, _) => identity.current().map(|c| c.uid),
            (_, Step::Removed) => identity.overlap().map(|c| c.uid),
            _ => operation.credential,
        };
        event.correlation_id = Some(self.new_uid().to_string().into());
        self.ports.trail.record(event.clone()).await?;
        Ok(Some(event))
    }

    /// Writes down what became of it. `made`: the credential, where the step made one.
    pub(crate) fn conclude(&self, intended: Option<AuditEvent>, made: Option<Uid>, failure: Option<&str>) {
        let Some(mut event) = intended else { return };
        event.credential = made.or(event.credential);
        let outcome = if failure.is_some() { AuditOutcome::Failed } else { AuditOutcome::Ok };
        self.ports.trail.note(event.with_outcome(outcome, failure));
    }
}

pub(crate) const fn kind(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Provision => "provision",
        OperationKind::Attach => "attach",
        OperationKind::Rotate => "rotate",
        OperationKind::Verify => "verify",
        OperationKind::Delete => "delete",
    }
}
