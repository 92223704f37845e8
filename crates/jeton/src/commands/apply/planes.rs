//! The admin plane's services: what is there, and the steps taken.

use std::time::Duration;

use anyhow::Context;
use jeton_core::{Profile, profile::TargetStyle};
use jeton_proto::v1::{
    self, access_service_client::AccessServiceClient, authority_service_client::AuthorityServiceClient,
    create_authority_request::Registrar as WireRegistrar, identity_service_client::IdentityServiceClient,
    workload_service_client::WorkloadServiceClient,
};
use prost_types::{FieldMask, Timestamp};
use secrecy::ExposeSecret;
use tonic::{Code, transport::Channel};

use super::{
    file::{Assignment, Authority, Identity, Limits, Registrar, Workload},
    plan::Step,
    wanted::Present,
};
use crate::{
    commands::{access, authority, id_of, identity, read_secret, read_text, workload},
    reach::Whereabouts,
};

const PATIENCE: Duration = Duration::from_secs(120);

/// The services of the admin plane.
pub(crate) struct Planes {
    authorities: AuthorityServiceClient<Channel>,
    workloads: WorkloadServiceClient<Channel>,
    identities: IdentityServiceClient<Channel>,
    access: AccessServiceClient<Channel>,
}

impl Planes {
    pub(crate) async fn open(broker: &Whereabouts) -> anyhow::Result<Self> {
        let channel = broker.admin_plane().await?;
        Ok(Self {
            authorities: AuthorityServiceClient::new(channel.clone()),
            workloads: WorkloadServiceClient::new(channel.clone()),
            identities: IdentityServiceClient::new(channel.clone()),
            access: AccessServiceClient::new(channel),
        })
    }

    /// What is there.
    pub(crate) async fn read(&mut self) -> anyhow::Result<Present> {
        let mut present = Present::default();
        for a in authority::list(&mut self.authorities).await? {
            let profile: Profile = serde_json::from_str(&a.profile_json)
                .with_context(|| format!("the profile of {} is of another version", a.name))?;
            present.state.authorities.push(shown_authority(&a, &profile));
            present.profiles.insert(a.name, profile);
        }
        let identities = identity::list(&mut self.identities, v1::ListIdentitiesRequest::default()).await?;
        present.identities = identities.iter().map(|i| (i.name.clone(), i.authority.clone())).collect();
        for mut w in workload::list(&mut self.workloads).await? {
            w.principals.sort();
            present.state.workloads.push(Workload {
                system_identity_authority: present
                    .identities
                    .get(&w.system_identity)
                    .cloned()
                    .unwrap_or_default(),
                name: w.name,
                display_name: w.display_name,
                principals: w.principals,
                labels: w.labels.into_iter().collect(),
            });
        }
        let created = |i: &v1::Identity| i.kind() == v1::IdentityKind::Created && i.workload.is_empty();
        present.state.identities = identities.into_iter().filter(created).map(shown_identity).collect();
        present.state.role_assignments =
            access::list(&mut self.access, v1::ListRoleAssignmentsRequest::default())
                .await?
                .into_iter()
                .map(shown_assignment)
                .collect();
        Ok(present)
    }

    /// Takes one step, to its end.
    pub(crate) async fn take(&mut self, step: Step) -> anyhow::Result<()> {
        match step {
            Step::CreateAuthority(a) => drop(self.authorities.create_authority(create_authority(a)?).await?),
            Step::RenameAuthority(change) => {
                let (name, display_name) = (change.to.name, change.to.display_name);
                let request = v1::UpdateAuthorityRequest { name, display_name, ..Default::default() };
                self.authorities.update_authority(request).await?;
            }
            Step::CreateWorkload(w) => drop(self.workloads.create_workload(create_workload(w)).await?),
            Step::UpdateWorkload(change) => {
                drop(self.workloads.update_workload(update_workload(change.to)).await?);
            }
            Step::EnableSystemIdentity(w) => self.enable_system_identity(w).await?,
            Step::DisableSystemIdentity(name) => {
                let identity = self.system_identity(&name).await?;
                let request = v1::DisableSystemIdentityRequest { name, ..Default::default() };
                self.workloads.disable_system_identity(request).await?;
                self.settled(&identity).await?;
            }
            Step::CreateIdentity(i) => {
                let name = i.name.clone();
                self.identities.create_identity(create_identity(i)).await?;
                self.settled(&name).await?;
            }
            Step::UpdateIdentity(change) => {
                drop(self.identities.update_identity(update_identity(change.to)).await?);
            }
            Step::CreateAssignment(a) => {
                drop(self.access.create_role_assignment(create_assignment(a)?).await?);
            }
            Step::ReplaceAssignment(change) => {
                let (name, create) = (change.to.name.clone(), create_assignment(change.to)?);
                self.remove_assignment(name).await?;
                self.access.create_role_assignment(create).await?;
            }
            Step::RemoveAssignment(name) => self.remove_assignment(name).await?,
            Step::DeleteIdentity(name) => {
                let request = v1::DeleteIdentityRequest { name: name.clone(), ..Default::default() };
                self.identities.delete_identity(request).await?;
                self.settled(&name).await?;
            }
            Step::DeleteWorkload(name) => {
                let identity = self.system_identity(&name).await?;
                let request = v1::DeleteWorkloadRequest { name, ..Default::default() };
                self.workloads.delete_workload(request).await?;
                self.settled(&identity).await?;
            }
        }
        Ok(())
    }

    async fn enable_system_identity(&mut self, w: Workload) -> anyhow::Result<()> {
        let (name, authority) = (w.name, w.system_identity_authority);
        let request = v1::EnableSystemIdentityRequest { name: name.clone(), authority, ..Default::default() };
        self.workloads.enable_system_identity(request).await?;
        let identity = self.system_identity(&name).await?;
        self.settled(&identity).await
    }

    async fn system_identity(&mut self, workload: &str) -> anyhow::Result<String> {
        let request = v1::GetWorkloadRequest { name: workload.to_owned() };
        let found = self.workloads.get_workload(request).await?.into_inner().workload;
        Ok(found.unwrap_or_default().system_identity)
    }

    async fn remove_assignment(&mut self, name: String) -> anyhow::Result<()> {
        let request = v1::DeleteRoleAssignmentRequest { name, ..Default::default() };
        self.access.delete_role_assignment(request).await?;
        Ok(())
    }

    /// Waits until the work on an identity is done. One that is gone is done with, and so is none.
    async fn settled(&mut self, name: &str) -> anyhow::Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        match self.identities.get_identity(v1::GetIdentityRequest { name: name.to_owned() }).await {
            Ok(found) => {
                let found = found.into_inner().identity.unwrap_or_default();
                identity::settled(&mut self.identities, found, PATIENCE).await.map(drop)
            }
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(status.into()),
        }
    }
}

fn shown_authority(a: &v1::Authority, profile: &Profile) -> Authority {
    let entra = profile.target == TargetStyle::EntraDefault;
    let issuer = profile.issuer.trim_end_matches('/');
    Authority {
        name: a.name.clone(),
        display_name: a.display_name.clone(),
        kind: if entra { "entra" } else { "oidc" }.into(),
        url: if entra { issuer.trim_end_matches("/v2.0") } else { issuer }.into(),
        ca_file: a.ca_file.clone(),
        ..Authority::default()
    }
}

fn shown_identity(i: v1::Identity) -> Identity {
    Identity {
        name: i.name,
        authority: i.authority,
        display_name: i.display_name,
        labels: i.labels.into_iter().collect(),
    }
}

fn shown_assignment(mut a: v1::RoleAssignment) -> Assignment {
    a.targets.sort();
    Assignment {
        name: a.name,
        member: a.member,
        role: a.role,
        identity: a.identity,
        targets: a.targets,
        keep_warm: a.keep_warm,
        expires: a.expire_time.map(|t| t.to_string()).unwrap_or_default(),
        max_token_lifetime_seconds: a.max_token_lifetime.map(|d| d.seconds),
        limits: a
            .limits
            .map(|own| Limits {
                misses_per_second: own.misses_per_second,
                miss_burst: own.miss_burst,
                forced_refreshes_per_minute: own.forced_refreshes_per_minute,
                max_watches: own.max_watches,
                max_waiting: own.max_waiting,
            })
            .unwrap_or_default(),
    }
}

fn create_authority(a: Authority) -> anyhow::Result<v1::CreateAuthorityRequest> {
    let kind = if a.kind == "entra" { v1::AuthorityKind::Entra } else { v1::AuthorityKind::Oidc };
    let registrar = match a.registrar {
        None => None,
        Some(Registrar::Certificate { client_id, certificate_file, private_key_file }) => {
            Some(WireRegistrar::Certificate(v1::RegistrarCertificate {
                client_id,
                certificate_pem: read_text(&certificate_file)?,
                private_key_pem: read_text(&private_key_file)?,
            }))
        }
        Some(Registrar::InitialAccessToken { initial_access_token_file }) => {
            let token = read_secret(&initial_access_token_file)?.expose_secret().to_owned();
            Some(WireRegistrar::InitialAccessToken(v1::RegistrarInitialAccessToken { token }))
        }
    };
    Ok(v1::CreateAuthorityRequest {
        authority_id: id_of(&a.name, "authorities/").into(),
        kind: kind.into(),
        url: a.url,
        ca_file: a.ca_file,
        registrar,
        display_name: a.display_name,
        graph_url: a.graph_url,
        ..Default::default()
    })
}

fn create_workload(w: Workload) -> v1::CreateWorkloadRequest {
    v1::CreateWorkloadRequest {
        workload_id: id_of(&w.name, "workloads/").into(),
        principals: w.principals,
        display_name: w.display_name,
        labels: w.labels.into_iter().collect(),
        request_id: String::new(),
    }
}

fn update_workload(w: Workload) -> v1::UpdateWorkloadRequest {
    v1::UpdateWorkloadRequest {
        name: w.name,
        principals: w.principals,
        display_name: w.display_name,
        labels: w.labels.into_iter().collect(),
        update_mask: Some(mask(&["principals", "display_name", "labels"])),
        request_id: String::new(),
    }
}

fn create_identity(i: Identity) -> v1::CreateIdentityRequest {
    v1::CreateIdentityRequest {
        identity_id: id_of(&i.name, "identities/").into(),
        authority: i.authority,
        display_name: i.display_name,
        labels: i.labels.into_iter().collect(),
        request_id: String::new(),
    }
}

fn update_identity(i: Identity) -> v1::UpdateIdentityRequest {
    v1::UpdateIdentityRequest {
        name: i.name,
        display_name: i.display_name,
        labels: i.labels.into_iter().collect(),
        update_mask: Some(mask(&["display_name", "labels"])),
        request_id: String::new(),
    }
}

fn mask(paths: &[&str]) -> FieldMask {
    FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }
}

fn create_assignment(a: Assignment) -> anyhow::Result<v1::CreateRoleAssignmentRequest> {
    let expires = Some(a.expires.as_str()).filter(|e| !e.is_empty());
    Ok(v1::CreateRoleAssignmentRequest {
        assignment_id: id_of(&a.name, "roleAssignments/").into(),
        expire_time: expires.map(str::parse::<Timestamp>).transpose()?,
        member: a.member,
        role: a.role,
        identity: a.identity,
        targets: a.targets,
        keep_warm: a.keep_warm,
        max_token_lifetime: a
            .max_token_lifetime_seconds
            .map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        limits: Some(v1::CallerLimits {
            misses_per_second: a.limits.misses_per_second,
            miss_burst: a.limits.miss_burst,
            forced_refreshes_per_minute: a.limits.forced_refreshes_per_minute,
            max_watches: a.limits.max_watches,
            max_waiting: a.limits.max_waiting,
        }),
        request_id: String::new(),
    })
}
