//! Taking one step of an operation. The work outside happens first and unlocked; what it led to is then written onto the record as
//! it is by then, if the operation is still the same one.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use jeton_core::{
    Authority, Credential, CredentialKind, CredentialState, Identity, IdentityKind, IdentityState, Operation,
    OperationKind, Step, Uid, profile::RegistrationStyle,
};

use crate::{
    KeyRequest, LifecycleError, LifecycleEvent, Orphan, Registered, RegistryError, RegistryErrorClass,
    SecretId, SecretKind, StepTried, StoreError, Write,
    counts::StepEnd,
    record::{abandon_pending, drop_overlap},
    registry::{Shared, locked},
};

/// After an error that no retry helps, a rotation or deletion is still tried again: somebody may have mended the cause.
const PERMANENT_RETRY: Duration = Duration::from_secs(3600);
const MAX_BACKOFF_SECONDS: u64 = 60;
/// A certificate is valid from a little before now, for clocks that are behind.
const CLOCK_MARGIN: Duration = Duration::from_secs(300);

/// How long a store that failed is left alone.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// What a step did outside, to be written down.
#[derive(Clone)]
pub(crate) enum Outcome {
    Key(Box<Credential>, Write),
    /// And what becomes of the orphan that was suspected meanwhile.
    Registered(Registered, Option<Write>),
    /// The client is out of our hands.
    Lost,
    Done,
}

#[derive(Clone)]
enum Failure {
    Outside(RegistryError),
    Inside(LifecycleError),
}

impl Failure {
    /// For the audit log, which has no room for an authority's words.
    fn class(&self) -> &'static str {
        match self {
            Self::Inside(_) => "inside",
            Self::Outside(error) => match error.class {
                RegistryErrorClass::Transient => "transient",
                RegistryErrorClass::Unknown => "unknown",
                RegistryErrorClass::Permanent => "permanent",
                RegistryErrorClass::Unauthorized => "unauthorized",
                RegistryErrorClass::Unmanageable => "unmanageable",
            },
        }
    }

    fn message(&self) -> Cow<'_, str> {
        match self {
            Self::Inside(error) => error.to_string().into(),
            Self::Outside(error) => (&*error.message).into(),
        }
    }
}

impl Shared {
    /// Takes the step in hand of one identity's operation.
    pub(crate) async fn take_step(self: &Arc<Self>, uid: Uid) {
        let directory = self.ports.directory.snapshot();
        let Some(identity) = directory.identity(uid).cloned() else { return };
        let Some(operation) = identity.operation.clone() else { return };
        let Some(step) = operation.step() else { return };
        let Some(authority) = directory.authority(identity.authority).cloned() else { return };
        let span = self.span(&authority, &identity, &operation, step);
        span.within(self.take(&authority, &identity, &operation, step)).await;
    }

    async fn take(&self, authority: &Authority, identity: &Identity, operation: &Operation, step: Step) {
        let began = Instant::now();
        let intended = match self.intend(authority, identity, operation, step).await {
            Ok(intended) => intended,
            Err(error) => {
                self.ended(step, StepEnd::AuditUnavailable, began.elapsed());
                // That the log cannot be written is said once, by the log.
                tracing::debug!(identity = %identity.name, step = step.as_str(), %error, "a lifecycle step waits for the audit log");
                return tokio::time::sleep(STORE_RETRY).await;
            }
        };
        if let Some(id) = intended.as_ref().and_then(|event| event.correlation_id.as_deref()) {
            jeton_trace::current().text("jeton.correlation_id", id);
        }
        let outcome = self.outside(authority, identity, operation, step).await;
        let took = began.elapsed();
        let made = match &outcome {
            Ok(Outcome::Key(credential, _)) => Some(credential.uid),
            _ => None,
        };
        loop {
            let written = self.write_outcome(identity, operation, step, outcome.clone()).await;
            let Err(error) = written else {
                let failed = outcome.as_ref().err().map(Failure::class);
                let failure = outcome.as_ref().err().map(Failure::message);
                (self.ports.on_step)(&StepTried {
                    identity,
                    authority,
                    kind: operation.kind,
                    step,
                    failure: failure.as_deref(),
                });
                self.ended(step, failed.map_or(StepEnd::Done, StepEnd::Failed), took);
                return self.conclude(intended, made, failed);
            };
            tracing::warn!(identity = %identity.name, step = step.as_str(), %error, "a lifecycle step could not be written down, and is taken again: see to the disk of the data directory if it goes on");
            tokio::time::sleep(STORE_RETRY).await;
            // What the authority handed out cannot be had again, so it is kept in hand. Any other step is taken again.
            let full = matches!(error, LifecycleError::Store(StoreError::Unavailable(_)));
            if !full || !matches!(outcome, Ok(Outcome::Registered(..))) {
                self.ended(step, StepEnd::NotWrittenDown, took);
                return self.conclude(intended, made, Some("not_written_down"));
            }
        }
    }

    /// Writes an outcome onto the record as it is now. Deleted, disabled or changed meanwhile, it may have another operation.
    async fn write_outcome(
        &self,
        identity: &Identity,
        operation: &Operation,
        step: Step,
        outcome: Result<Outcome, Failure>,
    ) -> Result<(), LifecycleError> {
        let _held = self.change.lock().await;
        let Some(fresh) = self.ports.directory.load().identity(identity.uid).cloned() else { return Ok(()) };
        let fresh = fresh.as_ref().clone();
        let same = fresh.operation.as_ref().is_some_and(|o| {
            (o.kind, o.done, o.credential, o.started_at)
                == (operation.kind, operation.done, operation.credential, operation.started_at)
        });
        match outcome {
            Ok(outcome) if same => self.write_down(fresh, step, outcome).await,
            Ok(outcome) => self.salvage(fresh, outcome).await,
            Err(failure) if same => self.write_failure(fresh, step, failure, identity.is_in_doubt()).await,
            Err(_) => Ok(()),
        }
    }

    async fn outside(
        &self,
        authority: &Authority,
        identity: &Identity,
        operation: &Operation,
        step: Step,
    ) -> Result<Outcome, Failure> {
        let registry = &self.ports.registry;
        let missing = || {
            Failure::Inside(LifecycleError::Precondition("the credential of the operation is gone".into()))
        };
        let credential = operation.credential.and_then(|uid| identity.credential(uid)).ok_or_else(missing);
        match (operation.kind, step) {
            (_, Step::KeyMade) => self.make_key(authority, identity).await.map_err(Failure::Inside),
            (OperationKind::Rotate, Step::Registered) => self.add_key(authority, identity, credential?).await,
            (_, Step::Registered) => self.register(authority, identity, credential?).await,
            (_, Step::Verified) => registry
                .verify(authority, identity, credential?)
                .await
                .map(|()| Outcome::Done)
                .map_err(Failure::Outside),
            (OperationKind::Delete, _) if identity.kind == IdentityKind::Attached => Ok(Outcome::Done),
            (OperationKind::Delete, _) => {
                or_lost(registry.delete(authority, identity).await.map(|()| Outcome::Done))
            }
            (_, Step::Removed) => match identity.overlap() {
                Some(old) => {
                    if is_dynamic(authority) {
                        self.mark_in_doubt(identity).await?;
                    }
                    let removed = registry.remove_key(authority, identity, old).await;
                    or_lost(removed.map(|r| Outcome::Registered(r, None)))
                }
                None => Ok(Outcome::Done),
            },
            (_, Step::Switched | Step::Overlapped) => Ok(Outcome::Done),
        }
    }

    async fn make_key(&self, authority: &Authority, identity: &Identity) -> Result<Outcome, LifecycleError> {
        let now = self.now();
        let made = self.ports.keys.make(KeyRequest {
            kind: authority.profile.key,
            subject: identity.name.to_string(),
            not_before: now - CLOCK_MARGIN,
            valid_for: self.settings.rotation.valid_for() + CLOCK_MARGIN,
        });
        let made = made.await?;
        let uid = self.new_uid();
        let kind = CredentialKind::Certificate(made.facts);
        let credential =
            Credential { uid, kind, state: CredentialState::Pending, remote_id: None, created_at: now };
        let id = SecretId { owner: identity.uid, subject: uid, kind: SecretKind::PrivateKey };
        Ok(Outcome::Key(Box::new(credential), Write::Secret(id, made.private)))
    }

    /// Registers the new key beside the one in use; where what manages the registration is lost, with a client of its own.
    async fn add_key(
        &self,
        authority: &Authority,
        identity: &Identity,
        credential: &Credential,
    ) -> Result<Outcome, Failure> {
        if is_dynamic(authority) {
            // What manages the registration is replaced by it (RFC 7592).
            self.mark_in_doubt(identity).await?;
        }
        match self.ports.registry.add_key(authority, identity, credential).await {
            Ok(registered) => Ok(Outcome::Registered(registered, None)),
            Err(error) if error.class == RegistryErrorClass::Unmanageable => {
                tracing::warn!(identity = %identity.name, %error, "the identity is registered anew");
                self.register(authority, identity, credential).await
            }
            Err(error) => Err(Failure::Outside(error)),
        }
    }

    /// The answer to what comes now may be lost: that is written down before.
    async fn mark_in_doubt(&self, identity: &Identity) -> Result<(), Failure> {
        if identity.is_in_doubt() {
            return Ok(());
        }
        let _held = self.change.lock().await;
        let Some(fresh) = self.ports.directory.load().identity(identity.uid).cloned() else { return Ok(()) };
        let mut fresh = fresh.as_ref().clone();
        fresh.registration.get_or_insert_default().in_doubt = true;
        self.touch(&mut fresh);
        self.commit(vec![Write::Identity(Box::new(fresh))]).await.map_err(Failure::Inside)
    }

    /// Where a registration cannot be looked up, it is written down as a suspected orphan before it is made.
    async fn register(
        &self,
        authority: &Authority,
        identity: &Identity,
        credential: &Credential,
    ) -> Result<Outcome, Failure> {
        let registry = &self.ports.registry;
        if !is_dynamic(authority) {
            self.mark_in_doubt(identity).await?;
            let registered = registry.register(authority, identity, credential).await;
            return registered.map(|r| Outcome::Registered(r, None)).map_err(Failure::Outside);
        }
        let (suspected, cleared) = self.suspected(identity);
        self.commit_held(vec![Write::Orphan(suspected)]).await.map_err(Failure::Inside)?;
        match registry.register(authority, identity, credential).await {
            Ok(registered) => Ok(Outcome::Registered(registered, Some(cleared))),
            Err(error) => {
                if error.class != RegistryErrorClass::Unknown {
                    self.commit_held(vec![cleared]).await.map_err(Failure::Inside)?;
                }
                Err(Failure::Outside(error))
            }
        }
    }

    /// The orphan that this identity's next registration may leave, and the write that makes it as it was.
    fn suspected(&self, identity: &Identity) -> (Orphan, Write) {
        let unknown = |o: &&Orphan| o.identity == identity.uid && o.client_id.is_none();
        match locked(&self.orphans).iter().find(unknown).cloned() {
            Some(known) => {
                let more = Orphan { repeated: known.repeated + 1, at: self.now(), ..known.clone() };
                (more, Write::Orphan(known))
            }
            None => {
                let new = self.suspect(identity);
                let none = Write::RemoveOrphan(new.uid);
                (new, none)
            }
        }
    }

    async fn commit_held(&self, writes: Vec<Write>) -> Result<(), LifecycleError> {
        let _held = self.change.lock().await;
        self.commit(writes).await
    }

    /// Writes down that a step is done.
    async fn write_down(
        &self,
        mut identity: Identity,
        step: Step,
        outcome: Outcome,
    ) -> Result<(), LifecycleError> {
        let (now, uid) = (self.now(), identity.uid);
        let Some(mut operation) = identity.operation.take() else { return Ok(()) };
        let (mut writes, mut events) = (vec![], vec![]);
        let lost = matches!(outcome, Outcome::Lost);
        self.apply(&mut identity, &mut operation, outcome, &mut writes);
        match (operation.kind, step) {
            (OperationKind::Delete, Step::Removed) => {
                self.left_behind(&identity, lost, &mut writes);
                writes.push(Write::RemoveIdentity(uid));
                self.commit(writes).await?;
                identity
                    .credentials
                    .iter()
                    .for_each(|c| self.event(LifecycleEvent::CredentialRemoved(c.uid)));
                self.event(LifecycleEvent::Removed(uid));
                return Ok(());
            }
            (_, Step::Switched) => self.switch(&mut identity, &operation, &mut writes, &mut events),
            (_, Step::Removed) => drop_overlap(&mut identity, &mut writes, &mut events),
            _ => {}
        }
        operation.complete(step, now);
        match operation.step() {
            Some(Step::Overlapped) => {
                operation.next_try_at =
                    if operation.again { now } else { now + self.settings.rotation.overlap() };
                identity.operation = Some(operation);
            }
            Some(_) => identity.operation = Some(operation),
            None if operation.again => identity.operation = Some(Operation::new(OperationKind::Rotate, now)),
            None => {}
        }
        tracing::info!(identity = %identity.name, step = step.as_str(), "lifecycle step done");
        self.touch(&mut identity);
        writes.insert(0, Write::Identity(Box::new(identity)));
        self.commit(writes).await?;
        events.into_iter().for_each(|event| self.event(event));
        Ok(())
    }

    /// The operation changed while a step was under way. What the authority made must still be written down, or it would be lost.
    async fn salvage(&self, mut identity: Identity, outcome: Outcome) -> Result<(), LifecycleError> {
        let Outcome::Registered(registered, cleared) = outcome else { return Ok(()) };
        let mut writes = cleared.into_iter().collect();
        self.remember(&mut identity, &registered, &mut writes);
        self.touch(&mut identity);
        writes.insert(0, Write::Identity(Box::new(identity)));
        self.commit(writes).await
    }

    async fn write_failure(
        &self,
        mut identity: Identity,
        step: Step,
        failure: Failure,
        in_doubt: bool,
    ) -> Result<(), LifecycleError> {
        let now = self.now();
        let Some(operation) = &mut identity.operation else { return Ok(()) };
        let message = failure.message().into_owned();
        let (class, retry_after) = match failure {
            Failure::Outside(error) => (error.class, error.retry_after),
            Failure::Inside(_) => (RegistryErrorClass::Transient, None),
        };
        let permanent = !matches!(class, RegistryErrorClass::Transient | RegistryErrorClass::Unknown);
        operation.attempts += 1;
        operation.last_error = Some(message.clone());
        operation.permanent = permanent;
        let delay = if permanent { PERMANENT_RETRY } else { self.backoff(operation.attempts) };
        operation.next_try_at = now + delay.max(retry_after.unwrap_or_default());
        tracing::warn!(identity = %identity.name, step = step.as_str(), attempts = operation.attempts, permanent, error = %message,
            "a lifecycle step failed: `jeton identity get` and `jeton status` show the operation; what is not permanent is tried again");
        let kind = operation.kind;
        let mut writes = vec![];
        // Nothing was done in this try. A first registration may have been done in part, whatever came back.
        let nothing_done = class == RegistryErrorClass::Unauthorized
            || (kind == OperationKind::Rotate && class != RegistryErrorClass::Unknown);
        if let Some(registration) = &mut identity.registration
            && nothing_done
        {
            registration.in_doubt = in_doubt;
        }
        if permanent && matches!(kind, OperationKind::Provision | OperationKind::Attach) {
            identity.state = IdentityState::Failed;
        } else if permanent && kind == OperationKind::Rotate && step == Step::Registered {
            abandon_pending(&mut identity, &mut writes);
        } else if permanent && kind == OperationKind::Verify && identity.kind == IdentityKind::Created {
            // What came from a backup is not what the authority knows: another key takes its place.
            identity.operation = Some(Operation::new(OperationKind::Rotate, now));
        }
        self.touch(&mut identity);
        writes.insert(0, Write::Identity(Box::new(identity)));
        self.commit(writes).await
    }

    fn backoff(&self, attempts: u32) -> Duration {
        let seconds = 2_u64.saturating_pow(attempts.saturating_sub(1)).min(MAX_BACKOFF_SECONDS);
        Duration::from_secs(seconds).mul_f64(1.0 + 0.2 * self.unit())
    }
}

/// Whether an answer that is lost cannot be had again.
pub(crate) fn is_dynamic(authority: &Authority) -> bool {
    matches!(authority.profile.registration, RegistrationStyle::Dynamic { .. })
}

/// What cannot be managed is given up, not tried for ever.
fn or_lost(outcome: Result<Outcome, RegistryError>) -> Result<Outcome, Failure> {
    match outcome {
        Err(error) if error.class == RegistryErrorClass::Unmanageable => {
            tracing::warn!(%error, "a client cannot be managed any more: `jeton status` names it");
            Ok(Outcome::Lost)
        }
        outcome => outcome.map_err(Failure::Outside),
    }
}
