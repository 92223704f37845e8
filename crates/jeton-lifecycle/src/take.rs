//! Taking one step of an operation. The work outside happens first and unlocked; what it led to is then written onto the record as
//! it is by then, if the operation is still the same one.

use std::{sync::Arc, time::Duration};

use jeton_core::{
    Authority, Credential, CredentialKind, CredentialState, Identity, IdentityKind, IdentityState, Operation,
    OperationKind, Registration, Step, Uid, profile::RegistrationStyle,
};
use secrecy::ExposeSecret;

use crate::{
    KeyRequest, LifecycleError, LifecycleEvent, Orphan, Registered, RegistryError, RegistryErrorClass,
    SecretId, SecretKind, Write, registry::Shared,
};

/// After an error that no retry helps, a rotation or deletion is still tried again: somebody may have mended the cause.
const PERMANENT_RETRY: Duration = Duration::from_secs(3600);
const MAX_BACKOFF_SECONDS: u64 = 60;
/// A certificate is valid from a little before now, for clocks that are behind.
const CLOCK_MARGIN: Duration = Duration::from_secs(300);

/// What a step did outside, to be written down.
enum Outcome {
    Key(Box<Credential>, Write),
    Registered(Registered, Option<Uid>),
    Done,
}

enum Failure {
    Outside(RegistryError),
    Inside(LifecycleError),
}

impl Shared {
    /// Takes the step in hand of one identity's operation.
    pub(crate) async fn take_step(self: &Arc<Self>, uid: Uid) {
        let directory = self.ports.directory.snapshot();
        let Some(identity) = directory.identity(uid).cloned() else { return };
        let Some(operation) = identity.operation.clone() else { return };
        let Some(step) = operation.step() else { return };
        let Some(authority) = directory.authority(identity.authority).cloned() else { return };
        let outcome = self.outside(&authority, &identity, &operation, step).await;
        let _held = self.change.lock().await;
        // Deleted, disabled or changed meanwhile: the operation may be another one by now.
        let Some(fresh) = self.ports.directory.load().identity(uid).cloned() else { return };
        let same = fresh.operation.as_ref().is_some_and(|o| {
            (o.kind, o.done, o.credential, o.started_at)
                == (operation.kind, operation.done, operation.credential, operation.started_at)
        });
        let written = match outcome {
            Ok(outcome) if same => self.write_down(fresh.as_ref().clone(), step, outcome).await,
            Ok(outcome) => self.salvage(fresh.as_ref().clone(), outcome).await,
            Err(failure) if same => self.write_failure(fresh.as_ref().clone(), step, failure).await,
            Err(_) => Ok(()),
        };
        if let Err(error) = written {
            // Nothing was acknowledged; the step is taken again at the next tick, slowed down by the store's own answer.
            tracing::warn!(identity = %fresh.name, step = step.as_str(), %error, "a lifecycle step could not be written down");
            tokio::time::sleep(Duration::from_secs(1)).await;
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
            (OperationKind::Rotate, Step::Registered) => {
                let added = registry.add_key(authority, identity, credential?).await;
                added.map(|r| Outcome::Registered(r, None)).map_err(Failure::Outside)
            }
            (_, Step::Registered) => self.register(authority, identity, credential?).await,
            (_, Step::Verified) => registry
                .verify(authority, identity, credential?)
                .await
                .map(|()| Outcome::Done)
                .map_err(Failure::Outside),
            (OperationKind::Delete, _) if identity.kind == IdentityKind::Attached => Ok(Outcome::Done),
            (OperationKind::Delete, _) => {
                registry.delete(authority, identity).await.map(|()| Outcome::Done).map_err(Failure::Outside)
            }
            (_, Step::Removed) => match identity.overlap() {
                Some(old) => {
                    let removed = registry.remove_key(authority, identity, old).await;
                    removed.map(|r| Outcome::Registered(r, None)).map_err(Failure::Outside)
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

    /// Where a registration cannot be looked up, it is written down as a suspected orphan before it is made.
    async fn register(
        &self,
        authority: &Authority,
        identity: &Identity,
        credential: &Credential,
    ) -> Result<Outcome, Failure> {
        let registry = &self.ports.registry;
        if !matches!(authority.profile.registration, RegistrationStyle::Dynamic { .. }) {
            let registered = registry.register(authority, identity, credential).await;
            return registered.map(|r| Outcome::Registered(r, None)).map_err(Failure::Outside);
        }
        let orphan = Orphan {
            uid: self.new_uid(),
            authority: authority.uid,
            identity: identity.uid,
            client_name: format!("jeton-{}", identity.uid),
            at: self.now(),
        };
        let uid = orphan.uid;
        self.commit_held(vec![Write::Orphan(orphan)]).await.map_err(Failure::Inside)?;
        match registry.register(authority, identity, credential).await {
            Ok(registered) => Ok(Outcome::Registered(registered, Some(uid))),
            Err(error) => {
                if error.class != RegistryErrorClass::Unknown {
                    self.commit_held(vec![Write::RemoveOrphan(uid)]).await.map_err(Failure::Inside)?;
                }
                Err(Failure::Outside(error))
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
        apply(&mut identity, &mut operation, outcome, &mut writes);
        match (operation.kind, step) {
            (OperationKind::Delete, Step::Removed) => {
                writes.push(Write::RemoveIdentity(uid));
                self.commit(writes).await?;
                identity
                    .credentials
                    .iter()
                    .for_each(|c| self.event(LifecycleEvent::CredentialRemoved(c.uid)));
                self.event(LifecycleEvent::Removed(uid));
                return Ok(());
            }
            (_, Step::Switched) => switch(&mut identity, &operation, &mut events),
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
        let Outcome::Registered(registered, orphan) = outcome else { return Ok(()) };
        let mut writes = orphan.map(Write::RemoveOrphan).into_iter().collect::<Vec<_>>();
        remember(&mut identity, &registered, &mut writes);
        self.touch(&mut identity);
        writes.insert(0, Write::Identity(Box::new(identity)));
        self.commit(writes).await
    }

    async fn write_failure(
        &self,
        mut identity: Identity,
        step: Step,
        failure: Failure,
    ) -> Result<(), LifecycleError> {
        let now = self.now();
        let Some(operation) = &mut identity.operation else { return Ok(()) };
        let (class, retry_after, message) = match failure {
            Failure::Outside(error) => (error.class, error.retry_after, error.message),
            Failure::Inside(error) => (RegistryErrorClass::Transient, None, error.to_string()),
        };
        operation.attempts += 1;
        operation.last_error = Some(message.clone());
        let permanent = class == RegistryErrorClass::Permanent;
        let delay = if permanent { PERMANENT_RETRY } else { self.backoff(operation.attempts) };
        operation.next_try_at = now + delay.max(retry_after.unwrap_or_default());
        tracing::warn!(identity = %identity.name, step = step.as_str(), attempts = operation.attempts, permanent, error = %message,
            "a lifecycle step failed");
        let kind = operation.kind;
        let mut writes = vec![];
        if permanent && matches!(kind, OperationKind::Provision | OperationKind::Attach) {
            identity.state = IdentityState::Failed;
        } else if permanent && kind == OperationKind::Rotate && step == Step::Registered {
            // The new key is not in use anywhere: the next try begins with another one. The old key stays.
            abandon_pending(&mut identity, &mut writes);
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

fn apply(identity: &mut Identity, operation: &mut Operation, outcome: Outcome, writes: &mut Vec<Write>) {
    match outcome {
        Outcome::Key(credential, secret) => {
            operation.credential = Some(credential.uid);
            identity.credentials.push(*credential);
            writes.push(secret);
        }
        Outcome::Registered(registered, orphan) => {
            writes.extend(orphan.map(Write::RemoveOrphan));
            remember(identity, &registered, writes);
            let remote_id = registered.remote_key_id;
            if let Some(credential) =
                identity.credentials.iter_mut().find(|c| Some(c.uid) == operation.credential)
                && credential.state == CredentialState::Pending
            {
                credential.remote_id = remote_id.or(credential.remote_id.take());
            }
        }
        Outcome::Done => {}
    }
}

/// What a registration left behind, onto the record.
fn remember(identity: &mut Identity, registered: &Registered, writes: &mut Vec<Write>) {
    if let Some(client_id) = &registered.client_id {
        identity.client_id = Some(Arc::clone(client_id));
    }
    if let Some(new) = &registered.registration {
        let old = identity.registration.take().unwrap_or_default();
        identity.registration = Some(Registration {
            object_id: new.object_id.clone().or(old.object_id),
            service_principal_id: new.service_principal_id.clone().or(old.service_principal_id),
            client_uri: new.client_uri.clone().or(old.client_uri),
        });
    }
    if let Some(token) = &registered.registration_access_token {
        let id = SecretId {
            owner: identity.uid,
            subject: identity.uid,
            kind: SecretKind::RegistrationAccessToken,
        };
        writes.push(Write::Secret(id, token.expose_secret().as_bytes().to_vec().into()));
    }
}

/// The pending credential proves the identity from now on.
fn switch(identity: &mut Identity, operation: &Operation, events: &mut Vec<LifecycleEvent>) {
    let old = identity.current().map(|c| c.uid);
    for credential in &mut identity.credentials {
        match credential.state {
            CredentialState::Current => credential.state = CredentialState::Overlap,
            CredentialState::Pending if Some(credential.uid) == operation.credential => {
                credential.state = CredentialState::Current
            }
            _ => {}
        }
    }
    if identity.state == IdentityState::Provisioning {
        identity.state = IdentityState::Active;
        events.push(LifecycleEvent::Activated(identity.uid));
    }
    events.extend(old.map(|old| LifecycleEvent::Switched { identity: identity.uid, old }));
}

fn drop_overlap(identity: &mut Identity, writes: &mut Vec<Write>, events: &mut Vec<LifecycleEvent>) {
    drop_in_state(identity, CredentialState::Overlap, writes, events);
}

fn abandon_pending(identity: &mut Identity, writes: &mut Vec<Write>) {
    drop_in_state(identity, CredentialState::Pending, writes, &mut vec![]);
    if let Some(operation) = &mut identity.operation {
        operation.done = None;
        operation.credential = None;
    }
}

fn drop_in_state(
    identity: &mut Identity,
    state: CredentialState,
    writes: &mut Vec<Write>,
    events: &mut Vec<LifecycleEvent>,
) {
    let owner = identity.uid;
    for credential in identity.credentials.iter().filter(|c| c.state == state) {
        writes.push(Write::RemoveSecret(SecretId {
            owner,
            subject: credential.uid,
            kind: SecretKind::PrivateKey,
        }));
        events.push(LifecycleEvent::CredentialRemoved(credential.uid));
    }
    identity.credentials.retain(|c| c.state != state);
}
