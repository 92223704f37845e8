//! Workloads: services, how the doors know them, and the identity of their own.

use std::{collections::BTreeMap, sync::Arc};

use jeton_core::{
    AuthorityName, Identity, IdentityKind, IdentityName, OperationKind, Principal, Uid, Workload,
    WorkloadName,
};

use crate::{
    CreateIdentity, Lifecycle, LifecycleError, LifecycleEvent, Write,
    identities::{begin_deletion, check_people_parts},
    registry::{Repeated, Shared, fingerprint},
};

const MAX_PRINCIPALS: usize = 64;

/// A service to register.
#[derive(Debug, Clone)]
pub struct CreateWorkload {
    /// Its name.
    pub name: WorkloadName,
    /// How the doors know it.
    pub principals: Vec<Principal>,
    /// For people.
    pub display_name: String,
    /// For people and filters.
    pub labels: BTreeMap<String, String>,
    /// For idempotency; empty: none.
    pub request_id: String,
}

/// What to change; absent: as it is.
#[derive(Debug, Clone, Default)]
pub struct WorkloadPatch {
    /// The new display name.
    pub display_name: Option<String>,
    /// The new labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// The new principals.
    pub principals: Option<Vec<Principal>>,
}

pub(crate) type Changed = Result<Arc<Workload>, LifecycleError>;

/// What the own identity of a workload is called.
pub fn system_identity_name(workload: &WorkloadName) -> Result<IdentityName, LifecycleError> {
    IdentityName::from_id(&format!("{}-system", workload.id())).map_err(|_| {
        LifecycleError::Precondition(format!("{workload} has too long a name for a system identity"))
    })
}

impl Lifecycle {
    /// Registers a service.
    pub async fn create_workload(&self, request: CreateWorkload) -> Changed {
        let shared = &self.shared;
        let _held = shared.change.lock().await;
        let uid = shared.new_uid();
        let print = fingerprint(
            "create-workload",
            &[
                request.name.as_str(),
                &format!("{:?}{:?}{:?}", request.principals, request.display_name, request.labels),
            ],
        );
        let recorded = match shared.repeated(&request.request_id, print, uid).await? {
            Repeated::Yes(made) => return self.workload_by_uid(made),
            Repeated::No(recorded) => recorded,
        };
        if self.directory().workload_named(&request.name).is_some() {
            return Err(LifecycleError::Exists(format!("{} exists already", request.name)));
        }
        check_people_parts(&request.display_name, &request.labels)?;
        self.check_principals(&request.principals, uid)?;
        let now = shared.now();
        let workload = Workload {
            uid,
            name: request.name,
            display_name: request.display_name,
            labels: request.labels,
            principals: request.principals,
            system_identity: None,
            secrets: vec![],
            created_at: now,
            updated_at: now,
            version: 1,
        };
        shared.commit([Write::Workload(Box::new(workload))].into_iter().chain(recorded).collect()).await?;
        self.workload_by_uid(uid)
    }

    /// Changes display name, labels or principals.
    pub async fn update_workload(
        &self,
        name: &WorkloadName,
        patch: WorkloadPatch,
        request_id: &str,
    ) -> Changed {
        let print = fingerprint("update-workload", &[name.as_str(), &format!("{patch:?}")]);
        self.change_workload(name, request_id, print, |_, workload| {
            if let Some(display_name) = patch.display_name {
                workload.display_name = display_name;
            }
            if let Some(labels) = patch.labels {
                workload.labels = labels;
            }
            check_people_parts(&workload.display_name, &workload.labels)?;
            if let Some(principals) = patch.principals {
                self.check_principals(&principals, workload.uid)?;
                workload.principals = principals;
            }
            Ok(vec![])
        })
        .await
    }

    /// Removes a workload and its system-assigned identity.
    pub async fn delete_workload(&self, name: &WorkloadName, request_id: &str) -> Result<(), LifecycleError> {
        let shared = &self.shared;
        let _held = shared.change.lock().await;
        let found = self.directory().workload_named(name).cloned();
        let uid = found.as_ref().map_or_else(|| shared.new_uid(), |workload| workload.uid);
        let print = fingerprint("delete-workload", &[name.as_str()]);
        let recorded = match shared.repeated(request_id, print, uid).await? {
            Repeated::Yes(_) => return Ok(()),
            Repeated::No(recorded) => recorded,
        };
        let workload = found.ok_or_else(|| LifecycleError::NotFound(name.to_string()))?;
        let mut writes = vec![Write::RemoveWorkload(uid)];
        let event = self.remove_system_identity(&workload, &mut writes);
        writes.extend(recorded);
        shared.commit(writes).await?;
        event.into_iter().for_each(|event| shared.event(event));
        shared.event(LifecycleEvent::WorkloadRemoved(uid));
        Ok(())
    }

    /// Creates the workload's own identity, named after it.
    pub async fn enable_system_identity(
        &self,
        name: &WorkloadName,
        authority: &AuthorityName,
        request_id: &str,
    ) -> Changed {
        let print = fingerprint("enable-system-identity", &[name.as_str(), authority.as_str()]);
        let registering = self.registering_authority(authority)?;
        self.change_workload(name, request_id, print, |shared, workload| {
            if workload.system_identity.is_some() {
                return Err(LifecycleError::Exists(format!(
                    "{} has a system-assigned identity already",
                    workload.name
                )));
            }
            let identity = system_identity_name(&workload.name)?;
            let request = CreateIdentity {
                name: identity,
                authority: registering.name.clone(),
                display_name: format!("System identity of {}", workload.name),
                labels: BTreeMap::new(),
                request_id: String::new(),
            };
            let uid = shared.new_uid();
            let mut identity = shared.new_identity(
                uid,
                &request,
                &registering,
                IdentityKind::Created,
                OperationKind::Provision,
            )?;
            identity.workload = Some(workload.uid);
            workload.system_identity = Some(uid);
            Ok(vec![Write::Identity(Box::new(identity))])
        })
        .await
    }

    /// Deletes the workload's own identity.
    pub async fn disable_system_identity(&self, name: &WorkloadName, request_id: &str) -> Changed {
        let print = fingerprint("disable-system-identity", &[name.as_str()]);
        let mut event = None;
        let changed = self.change_workload(name, request_id, print, |_, workload| {
            let mut writes = vec![];
            event = self.remove_system_identity(workload, &mut writes);
            workload.system_identity = None;
            Ok(writes)
        });
        let changed = changed.await?;
        event.into_iter().for_each(|event| self.shared.event(event));
        Ok(changed)
    }

    fn remove_system_identity(&self, workload: &Workload, writes: &mut Vec<Write>) -> Option<LifecycleEvent> {
        let directory = self.directory();
        let mut identity: Identity = directory.identity(workload.system_identity?)?.as_ref().clone();
        let event = begin_deletion(&self.shared, &mut identity)?;
        self.shared.touch(&mut identity);
        writes.push(Write::Identity(Box::new(identity)));
        Some(event)
    }

    /// An exact principal belongs to at most one workload.
    fn check_principals(&self, principals: &[Principal], own: Uid) -> Result<(), LifecycleError> {
        if principals.len() > MAX_PRINCIPALS {
            return Err(LifecycleError::invalid("principals", "at most 64"));
        }
        if principals.iter().any(|principal| principal.secret_of().is_some()) {
            let text = "a secret:// principal is its workload's own by itself, and can be given to no other";
            return Err(LifecycleError::invalid("principals", text));
        }
        let directory = self.directory();
        let taken =
            principals.iter().find_map(|p| Some((p, directory.workload_of(p).filter(|w| w.uid != own)?)));
        match taken {
            Some((principal, workload)) => Err(LifecycleError::Exists(format!(
                "{principal} belongs to {} already; a principal belongs to one workload",
                workload.name
            ))),
            None => Ok(()),
        }
    }

    pub(crate) async fn change_workload(
        &self,
        name: &WorkloadName,
        request_id: &str,
        print: String,
        change: impl FnOnce(&Shared, &mut Workload) -> Result<Vec<Write>, LifecycleError>,
    ) -> Changed {
        let shared = &self.shared;
        let _held = shared.change.lock().await;
        let found = self.directory().workload_named(name).cloned();
        let uid = found.as_ref().map_or_else(|| shared.new_uid(), |workload| workload.uid);
        let recorded = match shared.repeated(request_id, print, uid).await? {
            Repeated::Yes(changed) => return self.workload_by_uid(changed),
            Repeated::No(recorded) => recorded,
        };
        let mut workload = found.ok_or_else(|| LifecycleError::NotFound(name.to_string()))?.as_ref().clone();
        let mut writes = change(shared, &mut workload)?;
        workload.version += 1;
        workload.updated_at = shared.now();
        writes.push(Write::Workload(Box::new(workload)));
        writes.extend(recorded);
        shared.commit(writes).await?;
        self.workload_by_uid(uid)
    }

    fn workload_by_uid(&self, uid: Uid) -> Changed {
        self.directory()
            .workload(uid)
            .cloned()
            .ok_or_else(|| LifecycleError::NotFound(format!("the workload with uid {uid}")))
    }
}
