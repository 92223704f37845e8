//! What a step that was taken means for the record. Nothing here is waited for.

use std::sync::Arc;

use jeton_core::{CredentialState, Identity, IdentityState, Operation, OperationKind, Registration};
use secrecy::ExposeSecret;

use crate::{
    LifecycleEvent, Orphan, Registered, SecretId, SecretKind, Write, registry::Shared, take::Outcome,
};

impl Shared {
    pub(crate) fn apply(
        &self,
        identity: &mut Identity,
        operation: &mut Operation,
        outcome: Outcome,
        writes: &mut Vec<Write>,
    ) {
        match outcome {
            Outcome::Key(credential, secret) => {
                operation.credential = Some(credential.uid);
                identity.credentials.push(*credential);
                writes.push(secret);
            }
            Outcome::Registered(registered, cleared) => {
                writes.extend(cleared);
                self.remember(identity, &registered, writes);
                let remote_id = registered.remote_key_id;
                if let Some(credential) =
                    identity.credentials.iter_mut().find(|c| Some(c.uid) == operation.credential)
                    && credential.state == CredentialState::Pending
                {
                    credential.remote_id = remote_id.or(credential.remote_id.take());
                }
            }
            // The old key stays with a client that nobody manages any more; another rotation takes its place.
            Outcome::Lost => operation.again = operation.kind == OperationKind::Rotate,
            Outcome::Done => {}
        }
    }

    /// What a registration left behind, onto the record.
    pub(crate) fn remember(&self, identity: &mut Identity, registered: &Registered, writes: &mut Vec<Write>) {
        if let Some(new) = &registered.registration {
            let old = identity.registration.take().unwrap_or_default();
            identity.registration = Some(Registration {
                object_id: new.object_id.clone().or(old.object_id),
                service_principal_id: new.service_principal_id.clone().or(old.service_principal_id),
                client_uri: new.client_uri.clone().or(old.client_uri),
                ..old
            });
        }
        if let Some(registration) = &mut identity.registration {
            registration.in_doubt = false;
        }
        match &registered.client_id {
            Some(new) if identity.client_id.is_none() => identity.client_id = Some(Arc::clone(new)),
            // The one in use goes on proving the identity until the new one has proved itself.
            Some(new) if identity.client_id.as_ref() != Some(new) => {
                let registration = identity.registration.get_or_insert_default();
                if let Some(unused) = registration.successor.replace(Arc::clone(new)) {
                    writes.push(self.orphan(identity, unused));
                }
            }
            _ => {}
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

    /// The pending credential proves the identity from now on, and with it the client that took over, if one did.
    pub(crate) fn switch(
        &self,
        identity: &mut Identity,
        operation: &Operation,
        writes: &mut Vec<Write>,
        events: &mut Vec<LifecycleEvent>,
    ) {
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
        if let Some(successor) = identity.registration.as_mut().and_then(|r| r.successor.take())
            && let Some(before) = identity.client_id.replace(successor)
        {
            writes.push(self.orphan(identity, before));
        }
        if identity.state == IdentityState::Provisioning {
            identity.state = IdentityState::Active;
            events.push(LifecycleEvent::Activated(identity.uid));
        }
        events.extend(old.map(|old| LifecycleEvent::Switched { identity: identity.uid, old }));
    }

    /// The clients that stay at the authority when the record goes. `lost`: the managed one could not be removed.
    pub(crate) fn left_behind(&self, identity: &Identity, lost: bool, writes: &mut Vec<Write>) {
        let managed = identity.registered_client();
        let unmanaged = identity.client_id.as_ref().filter(|client| Some(*client) != managed);
        let stay = unmanaged.into_iter().chain(managed.filter(|_| lost));
        writes.extend(stay.map(|client| self.orphan(identity, Arc::clone(client))));
    }

    /// A client that is known and that nobody manages any more.
    fn orphan(&self, identity: &Identity, client_id: Arc<str>) -> Write {
        Write::Orphan(Orphan { client_id: Some(client_id), ..self.suspect(identity) })
    }

    /// A client that may be there.
    pub(crate) fn suspect(&self, identity: &Identity) -> Orphan {
        Orphan {
            uid: self.new_uid(),
            authority: identity.authority,
            identity: identity.uid,
            client_name: format!("jeton-{}", identity.uid),
            client_id: None,
            repeated: 0,
            at: self.now(),
        }
    }
}

pub(crate) fn drop_overlap(
    identity: &mut Identity,
    writes: &mut Vec<Write>,
    events: &mut Vec<LifecycleEvent>,
) {
    drop_in_state(identity, CredentialState::Overlap, writes, events);
}

/// The new key is not in use anywhere: the next try begins with another one. The old key stays.
pub(crate) fn abandon_pending(identity: &mut Identity, writes: &mut Vec<Write>) {
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
