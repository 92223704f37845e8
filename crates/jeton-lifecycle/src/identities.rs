//! Changes to identities that an administrator asks for.

use std::{collections::BTreeMap, sync::Arc};

use jeton_core::{
    Authority, AuthorityName, Identity, IdentityKind, IdentityName, IdentityState, Operation, OperationKind,
    Step, Uid, profile::RegistrationStyle,
};

use crate::{
    Lifecycle, LifecycleError, LifecycleEvent, Write,
    registry::{Repeated, Shared, fingerprint},
};

/// An identity to be registered.
#[derive(Debug, Clone)]
pub struct CreateIdentity {
    /// Its name.
    pub name: IdentityName,
    /// Where.
    pub authority: AuthorityName,
    /// For people.
    pub display_name: String,
    /// For people and filters.
    pub labels: BTreeMap<String, String>,
    /// For idempotency; empty: none.
    pub request_id: String,
}

/// What to change; absent: as it is.
#[derive(Debug, Clone, Default)]
pub struct IdentityPatch {
    /// The new display name.
    pub display_name: Option<String>,
    /// The new labels.
    pub labels: Option<BTreeMap<String, String>>,
}

type Changed = Result<Arc<Identity>, LifecycleError>;

impl Lifecycle {
    /// Registers a new client; answers when the intent is durable.
    pub async fn create_identity(&self, request: CreateIdentity) -> Changed {
        let shared = &self.shared;
        let _held = shared.change.lock().await;
        let uid = shared.new_uid();
        let print = fingerprint(
            "create",
            &[
                request.name.as_str(),
                request.authority.as_str(),
                &request.display_name,
                &format!("{:?}", request.labels),
            ],
        );
        let recorded = match shared.repeated(&request.request_id, print, uid).await? {
            Repeated::Yes(made) => return self.identity_by_uid(made),
            Repeated::No(recorded) => recorded,
        };
        let authority = self.registering_authority(&request.authority)?;
        let identity = shared.new_identity(
            uid,
            &request,
            &authority,
            IdentityKind::Created,
            OperationKind::Provision,
        )?;
        shared.commit([Write::Identity(Box::new(identity))].into_iter().chain(recorded).collect()).await?;
        self.identity_by_uid(uid)
    }

    /// Changes what is for people.
    pub async fn update_identity(
        &self,
        name: &IdentityName,
        patch: IdentityPatch,
        request_id: &str,
    ) -> Changed {
        let print = fingerprint("update", &[name.as_str(), &format!("{patch:?}")]);
        self.change_identity(name, request_id, print, move |_, identity| {
            check_people_parts(
                patch.display_name.as_deref().unwrap_or_default(),
                patch.labels.as_ref().unwrap_or(&BTreeMap::new()),
            )?;
            identity.display_name = patch.display_name.unwrap_or_else(|| identity.display_name.clone());
            identity.labels = patch.labels.unwrap_or_else(|| identity.labels.clone());
            Ok(None)
        })
        .await
    }

    /// Replaces the credential; joins a rotation under way. One that waits for its overlap ends it and begins anew.
    pub async fn rotate_credential(&self, name: &IdentityName, request_id: &str) -> Changed {
        let print = fingerprint("rotate", &[name.as_str()]);
        self.change_identity(name, request_id, print, |shared, identity| {
            may_rotate(identity)?;
            let now = shared.now();
            match &mut identity.operation {
                None | Some(Operation { kind: OperationKind::Verify, .. }) => {
                    identity.operation = Some(Operation::new(OperationKind::Rotate, now));
                }
                // The new key is in use already. Its rotation ends first, and another one begins when the old key is gone.
                Some(operation) if operation.done >= Some(Step::Switched) => {
                    operation.next_try_at = now;
                    operation.again = true;
                }
                Some(operation) => operation.next_try_at = now,
            }
            Ok(None)
        })
        .await
    }

    /// Stops issuing tokens.
    pub async fn disable_identity(&self, name: &IdentityName, request_id: &str) -> Changed {
        let print = fingerprint("disable", &[name.as_str()]);
        self.change_identity(name, request_id, print, |_, identity| match identity.state {
            IdentityState::Active => {
                identity.state = IdentityState::Disabled;
                Ok(Some(LifecycleEvent::Deactivated(identity.uid)))
            }
            IdentityState::Disabled => Ok(None),
            state => Err(LifecycleError::Precondition(format!(
                "{} is {state:?}; only an active identity can be disabled",
                identity.name
            ))),
        })
        .await
    }

    /// Takes a disabled identity into use again, or starts a failed one anew.
    pub async fn enable_identity(&self, name: &IdentityName, request_id: &str) -> Changed {
        let print = fingerprint("enable", &[name.as_str()]);
        self.change_identity(name, request_id, print, |shared, identity| match identity.state {
            IdentityState::Disabled => {
                identity.state = IdentityState::Active;
                Ok(Some(LifecycleEvent::Activated(identity.uid)))
            }
            IdentityState::Failed => {
                identity.state = IdentityState::Provisioning;
                if let Some(operation) = &mut identity.operation {
                    operation.attempts = 0;
                    operation.next_try_at = shared.now();
                }
                Ok(None)
            }
            IdentityState::Active | IdentityState::Provisioning => Ok(None),
            IdentityState::Deleting => {
                Err(LifecycleError::Precondition(format!("{} is being deleted", identity.name)))
            }
        })
        .await
    }

    /// Removes the client at its authority, if it was created here, and then the identity. None: an earlier request with this id
    /// did, and it is gone.
    pub async fn delete_identity(
        &self,
        name: &IdentityName,
        request_id: &str,
    ) -> Result<Option<Arc<Identity>>, LifecycleError> {
        let (shared, print) = (&self.shared, fingerprint("delete", &[name.as_str()]));
        if let Repeated::Yes(deleted) = shared.repeated(request_id, print.clone(), shared.new_uid()).await?
            && self.directory().identity(deleted).is_none()
        {
            return Ok(None);
        }
        if let Some(identity) = self.directory().identity_named(name)
            && let Some(workload) = identity.workload.and_then(|uid| self.directory().workload(uid).cloned())
            && workload.system_identity == Some(identity.uid)
        {
            let text = format!(
                "{name} belongs to {}: disable its system identity, or delete the workload",
                workload.name
            );
            return Err(LifecycleError::Precondition(text));
        }
        let changed = self.change_identity(name, request_id, print, |shared, identity| {
            Ok(begin_deletion(shared, identity))
        });
        changed.await.map(Some)
    }

    /// Reads, changes and commits one identity.
    async fn change_identity(
        &self,
        name: &IdentityName,
        request_id: &str,
        print: String,
        change: impl FnOnce(&Shared, &mut Identity) -> Result<Option<LifecycleEvent>, LifecycleError>,
    ) -> Changed {
        let shared = &self.shared;
        let _held = shared.change.lock().await;
        let found = self.directory().identity_named(name).cloned();
        let uid = found.as_ref().map_or_else(|| shared.new_uid(), |identity| identity.uid);
        let recorded = match shared.repeated(request_id, print, uid).await? {
            Repeated::Yes(changed) => return self.identity_by_uid(changed),
            Repeated::No(recorded) => recorded,
        };
        let mut identity = found.ok_or_else(|| LifecycleError::NotFound(name.to_string()))?.as_ref().clone();
        let before = identity.clone();
        let event = change(shared, &mut identity)?;
        if identity == before && recorded.is_none() {
            return Ok(Arc::new(identity));
        }
        shared.touch(&mut identity);
        shared.commit([Write::Identity(Box::new(identity))].into_iter().chain(recorded).collect()).await?;
        event.into_iter().for_each(|event| shared.event(event));
        self.identity_by_uid(uid)
    }

    pub(crate) fn identity_by_uid(&self, uid: Uid) -> Changed {
        self.directory()
            .identity(uid)
            .cloned()
            .ok_or_else(|| LifecycleError::NotFound(format!("the identity with uid {uid}")))
    }

    pub(crate) fn authority_by_name(&self, name: &AuthorityName) -> Result<Arc<Authority>, LifecycleError> {
        self.directory()
            .authority_named(name)
            .cloned()
            .ok_or_else(|| LifecycleError::NotFound(name.to_string()))
    }

    /// An authority at which clients can be registered.
    pub(crate) fn registering_authority(
        &self,
        name: &AuthorityName,
    ) -> Result<Arc<Authority>, LifecycleError> {
        let authority = self.authority_by_name(name)?;
        let none = matches!(authority.registrar, jeton_core::Registrar::None);
        match authority.profile.registration {
            RegistrationStyle::Graph { .. } | RegistrationStyle::Dynamic { .. } if none => {
                Err(LifecycleError::Precondition(format!(
                    "{name} has no registrar, so nothing can be registered there: attach identities that exist"
                )))
            }
            RegistrationStyle::None => Err(LifecycleError::Precondition(format!(
                "{name} registers no clients: attach identities that exist"
            ))),
            _ => Ok(authority),
        }
    }
}

fn may_rotate(identity: &Identity) -> Result<(), LifecycleError> {
    let refused =
        |why: &str| Err(LifecycleError::Precondition(format!("{} cannot be rotated: {why}", identity.name)));
    match (identity.kind, identity.state, identity.current()) {
        (IdentityKind::Attached, ..) => refused("it was attached; attach it anew with its new credential"),
        (_, IdentityState::Active, Some(_)) => Ok(()),
        (_, IdentityState::Disabled, _) => refused("it is disabled; enable it first"),
        _ => refused("it is not active"),
    }
}

/// The record on its way out. The operation in hand, if any, ends here; what it left is removed with the client.
pub(crate) fn begin_deletion(shared: &Shared, identity: &mut Identity) -> Option<LifecycleEvent> {
    if identity.state == IdentityState::Deleting {
        return None;
    }
    identity.state = IdentityState::Deleting;
    identity.operation = Some(Operation::new(OperationKind::Delete, shared.now()));
    Some(LifecycleEvent::Deactivated(identity.uid))
}

impl Shared {
    pub(crate) fn new_identity(
        &self,
        uid: Uid,
        request: &CreateIdentity,
        authority: &Authority,
        kind: IdentityKind,
        operation: OperationKind,
    ) -> Result<Identity, LifecycleError> {
        check_people_parts(&request.display_name, &request.labels)?;
        if self.ports.directory.load().identity_named(&request.name).is_some() {
            return Err(LifecycleError::Exists(format!(
                "{} exists already; choose another name, or delete it first",
                request.name
            )));
        }
        let now = self.now();
        Ok(Identity {
            uid,
            name: request.name.clone(),
            display_name: request.display_name.clone(),
            labels: request.labels.clone(),
            kind,
            workload: None,
            authority: authority.uid,
            state: IdentityState::Provisioning,
            client_id: None,
            registration: None,
            credentials: vec![],
            operation: Some(Operation::new(operation, now)),
            created_at: now,
            updated_at: now,
            version: 1,
        })
    }

    pub(crate) fn touch(&self, identity: &mut Identity) {
        identity.version += 1;
        identity.updated_at = self.now();
    }
}

pub(crate) fn check_people_parts(
    display_name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<(), LifecycleError> {
    if display_name.chars().count() > 120 || display_name.chars().any(char::is_control) {
        return Err(LifecycleError::invalid(
            "display_name",
            "at most 120 characters, none of them control characters",
        ));
    }
    let fits = |(key, value): (&String, &String)| {
        (1..=63).contains(&key.len())
            && value.len() <= 255
            && !key.chars().chain(value.chars()).any(char::is_control)
    };
    if labels.len() > 64 || !labels.iter().all(fits) {
        return Err(LifecycleError::invalid(
            "labels",
            "at most 64; keys of 1 to 63 bytes, values of at most 255, no control characters",
        ));
    }
    Ok(())
}
