//! Where events come from: what stands around the ports by which the crates ask and write down, so that none of them knows of events.

use std::sync::Arc;

use jeton_core::{
    AuditEvent, AuditKind, AuditOutcome, AuditProblem, AuditTrail, AuditUnavailable, BoxFuture, Clock,
    IdentityName, IssuedToken, OperationKind, Permission, SharedDirectory, Step, Token, TokenKey,
};
use jeton_engine::{IssueError, IssueErrorClass, TokenSource};
use jeton_lifecycle::StepTried;
use jeton_server::{Event, EventKind, Events, Severity};

/// Records what it is told.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) events: Events,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) directory: SharedDirectory,
}

/// A source of tokens: what it brings is an event.
pub(crate) struct HeardSource(pub(crate) Arc<dyn TokenSource>, pub(crate) Recorder);

/// The trail behind the admin plane: what was changed there, or was to be, is an event.
pub(crate) struct HeardTrail(pub(crate) Arc<dyn AuditTrail>, pub(crate) Recorder);

impl TokenSource for HeardSource {
    fn prepare(&self, key: &TokenKey, ahead: std::time::Duration) {
        self.0.prepare(key, ahead);
    }

    fn issue(&self, key: TokenKey) -> BoxFuture<'static, Result<IssuedToken, IssueError>> {
        let (issued, recorder) = (self.0.issue(key.clone()), self.1.clone());
        Box::pin(async move {
            let outcome = issued.await;
            recorder.issued(&key, outcome.as_ref().err());
            outcome
        })
    }

    fn revoke(
        &self,
        key: &TokenKey,
        token: Arc<Token>,
    ) -> Option<BoxFuture<'static, Result<(), IssueError>>> {
        self.0.revoke(key, token)
    }
}

impl AuditTrail for HeardTrail {
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<(), AuditUnavailable>> {
        self.1.changed(&event);
        self.0.record(event)
    }

    fn note(&self, event: AuditEvent) {
        self.1.changed(&event);
        self.0.note(event);
    }

    fn has_room(&self) -> bool {
        self.0.has_room()
    }

    fn problems(&self) -> Vec<AuditProblem> {
        self.0.problems()
    }
}

impl Recorder {
    /// A request for a token came back.
    fn issued(&self, key: &TokenKey, error: Option<&IssueError>) {
        let (kind, severity, message) = match error {
            None => (EventKind::Refreshed, Severity::Info, format!("a token for {}", key.target)),
            Some(error) => {
                let needs_somebody =
                    matches!(error.class, IssueErrorClass::Permanent | IssueErrorClass::Credential);
                let severity = if needs_somebody { Severity::Error } else { Severity::Warning };
                (
                    EventKind::RefreshFailed,
                    severity,
                    format!("no token for {}: {}", key.target, error.message),
                )
            }
        };
        let directory = self.directory.load();
        let mut event = self.event(kind, severity, message);
        event.identity = directory.identity(key.identity).map(|it| (it.uid, it.name.as_str().into()));
        event.authority = directory.authority(key.authority).map(|it| it.name.as_str().into());
        self.events.record(event);
    }

    /// A step of an identity's life was tried.
    pub(crate) fn step(&self, tried: &StepTried<'_>) {
        let done = match (tried.kind, tried.step) {
            (_, Step::KeyMade) => (EventKind::KeyMade, "a key and its certificate were made"),
            (_, Step::Registered) => (EventKind::Registered, "the authority knows the key"),
            (_, Step::Verified) => (EventKind::Verified, "a real grant succeeded with the credential"),
            (OperationKind::Rotate, Step::Switched) => (EventKind::Rotated, "the new credential is in use"),
            (_, Step::Switched) => (EventKind::Switched, "the credential is in use"),
            (_, Step::Overlapped) => {
                (EventKind::Overlapped, "the overlap with the credential before is over")
            }
            (OperationKind::Delete, Step::Removed) => {
                (EventKind::Removed, "the client is gone at the authority")
            }
            (_, Step::Removed) => (EventKind::Removed, "the credential before is gone at the authority"),
        };
        let mut event = match tried.failure {
            None => self.event(done.0, Severity::Info, done.1),
            Some(failure) => {
                let text = format!("the step {} failed: {failure}", tried.step.as_str());
                self.event(EventKind::StepFailed, Severity::Error, text)
            }
        };
        event.identity = Some((tried.identity.uid, tried.identity.name.as_str().into()));
        event.authority = Some(tried.authority.name.as_str().into());
        self.events.record(event);
    }

    /// A change that somebody asked for on the admin plane is over.
    fn changed(&self, told: &AuditEvent) {
        if told.kind != AuditKind::AdminChange || told.outcome == AuditOutcome::Intent {
            return;
        }
        let method = told.method.as_deref().unwrap_or_default().trim_start_matches("jeton.v1.");
        let (kind, words) = change(method);
        let by = told.principal.as_ref().map_or_else(String::new, |principal| format!(" by {principal}"));
        let (kind, severity, mut message) = match told.outcome {
            AuditOutcome::Ok => (kind, Severity::Info, format!("{words}{by}")),
            _ => {
                let reason = told.reason.as_deref().unwrap_or("it failed");
                (EventKind::Refused, Severity::Warning, format!("{method}{by}: {reason}"))
            }
        };
        let named = |it: &&jeton_core::AuditResource| it.name.parse::<IdentityName>().is_ok();
        let identity = told.resources.iter().find(named);
        let others: Vec<_> = told.resources.iter().filter(|it| !named(it)).map(|it| &*it.name).collect();
        if !others.is_empty() {
            message = format!("{message} ({})", others.join(", "));
        }
        let mut event = self.event(kind, severity, message);
        event.identity = identity.and_then(|it| Some((it.uid?, (&*it.name).into())));
        event.correlation_id.clone_from(&told.correlation_id);
        event.needs = match method.split_once('/') {
            _ if kind == EventKind::Revoked => Permission::ReadIdentities,
            Some(("AccessService", _)) => Permission::ReadAssignments,
            Some(("WorkloadService", _)) => Permission::ReadWorkloads,
            _ => Permission::ReadIdentities,
        };
        self.events.record(event);
    }

    pub(crate) fn event(&self, kind: EventKind, severity: Severity, message: impl Into<Box<str>>) -> Event {
        Event::new(self.clock.now().wall, kind, severity, message)
    }
}

/// What a method of the admin plane changes, in a word and in words.
fn change(method: &str) -> (EventKind, &str) {
    match method {
        "IdentityService/CreateIdentity" => (EventKind::Created, "created"),
        "IdentityService/AttachIdentity" => (EventKind::Attached, "attached"),
        "IdentityService/UpdateIdentity" => {
            (EventKind::Updated, "its display name or its labels were changed")
        }
        "IdentityService/DeleteIdentity" => (EventKind::Deleted, "its deletion was asked for"),
        "IdentityService/RotateCredential" => (EventKind::RotationAsked, "a rotation was asked for"),
        "IdentityService/DisableIdentity" => (EventKind::Disabled, "disabled"),
        "IdentityService/EnableIdentity" => (EventKind::Enabled, "enabled"),
        "IdentityService/RefreshTokens" => (EventKind::RefreshAsked, "a refresh of its tokens was asked for"),
        "AccessService/RevokeTokens" => (EventKind::Revoked, "tokens were taken back"),
        other => (EventKind::Changed, other),
    }
}

#[cfg(test)]
mod tests {
    use jeton_server::grpc::METHODS;

    use super::*;

    #[test]
    fn every_change_of_an_identity_has_a_kind_of_its_own() {
        let reads = ["Get", "List"];
        let changes = METHODS.iter().filter_map(|method| method.name.strip_prefix("IdentityService/"));
        let changes = changes.filter(|method| !reads.iter().any(|read| method.starts_with(read)));
        let kinds: Vec<_> = changes.map(|method| change(&format!("IdentityService/{method}")).0).collect();
        assert_eq!(kinds.len(), 8);
        assert!(!kinds.contains(&EventKind::Changed), "{kinds:?}");
        assert!(kinds.iter().enumerate().all(|(n, kind)| !kinds[..n].contains(kind)), "{kinds:?}");
        assert_eq!(
            change("WorkloadService/UpdateWorkload"),
            (EventKind::Changed, "WorkloadService/UpdateWorkload")
        );
    }
}
