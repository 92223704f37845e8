//! Every assertion and proof that is handed out to be sent is on the trail: each is a use of an identity's key.

use std::{sync::Arc, time::Duration};

use jeton_core::{
    Assertion, AssertionError, AssertionRequest, Assertions, AuditEvent, AuditKind, AuditOutcome,
    AuditResource, AuditTrail, BoxFuture, ProofRequest, SharedDirectory, Uid,
};
use secrecy::SecretString;

/// Assertions whose use is written down.
pub struct Audited {
    inner: Arc<dyn Assertions>,
    trail: Arc<dyn AuditTrail>,
    directory: SharedDirectory,
}

impl std::fmt::Debug for Audited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audited").finish_non_exhaustive()
    }
}

impl Audited {
    /// Hands out what `inner` does. The directory tells what owners are called.
    pub fn new(inner: Arc<dyn Assertions>, trail: Arc<dyn AuditTrail>, directory: SharedDirectory) -> Self {
        Self { inner, trail, directory }
    }

    fn note(&self, what: &str, owner: Uid, credential: Uid, error: Option<&AssertionError>) {
        let outcome = if error.is_some() { AuditOutcome::Failed } else { AuditOutcome::Ok };
        let mut event = AuditEvent::new(AuditKind::AssertionSent, outcome);
        event.method = Some(what.into());
        let directory = self.directory.load();
        let identity = directory.identity(owner).map(|i| i.name.as_str());
        let name = identity.or_else(|| directory.authority(owner).map(|a| a.name.as_str()));
        event.resources = vec![AuditResource::new(name.unwrap_or_default(), Some(owner))];
        event.credential = Some(credential);
        event.reason = error.map(|error| {
            let reason = match error {
                AssertionError::Key { .. } => "key",
                AssertionError::Algorithm { .. } => "algorithm",
                AssertionError::Busy => "busy",
                _ => "other",
            };
            reason.into()
        });
        self.trail.note(event);
    }
}

impl Assertions for Audited {
    fn prepare(&self, request: &AssertionRequest, ahead: Duration) {
        self.inner.prepare(request, ahead);
    }

    fn take(&self, request: AssertionRequest) -> BoxFuture<'_, Result<Assertion, AssertionError>> {
        Box::pin(async move {
            let (owner, credential) = (request.owner, request.credential);
            let taken = self.inner.take(request).await;
            self.note("assertion", owner, credential, taken.as_ref().err());
            taken
        })
    }

    fn proof(&self, request: ProofRequest) -> BoxFuture<'_, Result<SecretString, AssertionError>> {
        Box::pin(async move {
            let (owner, credential) = (request.owner, request.credential);
            let made = self.inner.proof(request).await;
            self.note("proof", owner, credential, made.as_ref().err());
            made
        })
    }

    fn discard(&self, credential: Uid) {
        self.inner.discard(credential);
    }
}

#[cfg(test)]
mod tests {
    use jeton_core::{Wall, audit::testing::MemoryTrail};
    use secrecy::ExposeSecret;

    use super::*;

    /// Signs for one credential and for no other.
    struct One(Uid);

    impl Assertions for One {
        fn prepare(&self, _: &AssertionRequest, _: Duration) {}

        fn take(&self, _: AssertionRequest) -> BoxFuture<'_, Result<Assertion, AssertionError>> {
            Box::pin(async { Err(AssertionError::Busy) })
        }

        fn proof(&self, request: ProofRequest) -> BoxFuture<'_, Result<SecretString, AssertionError>> {
            let known = request.credential == self.0;
            Box::pin(
                async move { if known { Ok("canary".to_owned().into()) } else { Err(AssertionError::Busy) } },
            )
        }

        fn discard(&self, _: Uid) {}
    }

    #[tokio::test]
    async fn what_is_handed_out_is_written_down_with_its_key_and_not_itself() {
        let uid = |n| Uid::new(Wall::from_secs(1), [n; 10]);
        let trail = MemoryTrail::default();
        let audited =
            Audited::new(Arc::new(One(uid(2))), Arc::new(trail.clone()), SharedDirectory::default());
        let none: Arc<str> = "".into();
        let references =
            jeton_core::KeyReferences { x5t: none.clone(), x5t_s256: none.clone(), kid: none.clone() };
        for credential in [uid(2), uid(3)] {
            let (references, issuer, audience) = (references.clone(), none.clone(), none.clone());
            let request =
                ProofRequest { owner: uid(1), credential, references, issuer, audience, skew_millis: 0 };
            let made = audited.proof(request).await;
            assert_eq!(made.is_ok_and(|jwt| jwt.expose_secret() == "canary"), credential == uid(2));
        }
        let events = trail.events();
        let outcomes: Vec<_> =
            events.iter().map(|e| (e.outcome, e.credential, e.reason.as_deref())).collect();
        let (ok, failed) = (AuditOutcome::Ok, AuditOutcome::Failed);
        assert_eq!(outcomes, [(ok, Some(uid(2)), None), (failed, Some(uid(3)), Some("busy"))]);
        assert!(!serde_json::to_string(&events).unwrap().contains("canary"));
    }
}
