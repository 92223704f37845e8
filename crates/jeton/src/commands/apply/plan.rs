//! From what is there and what shall be there to the steps between, in the order in which they can be taken.

use std::{fmt, time::Duration};

use anyhow::Context;
use jeton_proto::v1::{
    self, access_service_client::AccessServiceClient, authority_service_client::AuthorityServiceClient,
    create_authority_request::Registrar as WireRegistrar, identity_service_client::IdentityServiceClient,
    workload_service_client::WorkloadServiceClient,
};
use prost_types::{FieldMask, Timestamp};
use secrecy::ExposeSecret;
use tonic::transport::Channel;

use super::file::{Assignment, Authority, Identity, Registrar, StateFile, Workload};
use crate::{
    commands::{access, authority, id_of, identity, read_secret, read_text, workload},
    reach::Whereabouts,
};

const PATIENCE: Duration = Duration::from_secs(120);

/// One change.
#[derive(Debug)]
pub(crate) enum Step {
    CreateAuthority(Authority),
    RenameAuthority(Authority),
    CreateWorkload(Workload),
    UpdateWorkload(Workload),
    EnableSystemIdentity(Workload),
    DisableSystemIdentity(String),
    CreateIdentity(Identity),
    UpdateIdentity(Identity),
    CreateAssignment(Assignment),
    ReplaceAssignment(Assignment),
    RemoveAssignment(String),
    DeleteIdentity(String),
    DeleteWorkload(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateAuthority(a) => write!(f, "+ {}", a.name),
            Self::RenameAuthority(a) => write!(f, "~ {}: display name {:?}", a.name, a.display_name),
            Self::CreateWorkload(w) => write!(f, "+ {}: {}", w.name, w.principals.join(", ")),
            Self::UpdateWorkload(w) => write!(f, "~ {}: principals, display name or labels", w.name),
            Self::EnableSystemIdentity(w) => {
                write!(f, "+ system identity of {} at {}", w.name, w.system_identity_authority)
            }
            Self::DisableSystemIdentity(name) => write!(f, "- system identity of {name}"),
            Self::CreateIdentity(i) => write!(f, "+ {} at {}", i.name, i.authority),
            Self::UpdateIdentity(i) => write!(f, "~ {}: display name or labels", i.name),
            Self::CreateAssignment(a) => {
                write!(f, "+ {}: {} may use {} for {}", a.name, a.member, a.identity, a.targets.join(", "))
            }
            Self::ReplaceAssignment(a) => {
                write!(f, "~ {}: {} may use {} for {}", a.name, a.member, a.identity, a.targets.join(", "))
            }
            Self::RemoveAssignment(name) | Self::DeleteIdentity(name) | Self::DeleteWorkload(name) => {
                write!(f, "- {name}")
            }
        }
    }
}

/// The steps from one state to the other.
pub(crate) fn plan(present: &StateFile, wanted: &StateFile, prune: bool) -> anyhow::Result<Vec<Step>> {
    let mut steps = vec![];
    for it in &wanted.authorities {
        match present.authorities.iter().find(|p| p.name == it.name) {
            None if it.kind.is_empty() || it.url.is_empty() => {
                anyhow::bail!(
                    "{} is not there, and to make it the file must say its kind (entra or oidc) and url",
                    it.name
                )
            }
            None => steps.push(Step::CreateAuthority(it.clone())),
            Some(p) if p.display_name != it.display_name => steps.push(Step::RenameAuthority(it.clone())),
            Some(_) => {}
        }
    }
    for it in &wanted.workloads {
        let found = present.workloads.iter().find(|p| p.name == it.name);
        let bare = |w: &Workload| Workload { system_identity_authority: String::new(), ..w.clone() };
        match found {
            None => steps.push(Step::CreateWorkload(it.clone())),
            Some(p) if bare(p) != bare(it) => steps.push(Step::UpdateWorkload(it.clone())),
            Some(_) => {}
        }
        let has = found.map_or("", |p| &p.system_identity_authority);
        if has != it.system_identity_authority {
            if !has.is_empty() {
                steps.push(Step::DisableSystemIdentity(it.name.clone()));
            }
            if !it.system_identity_authority.is_empty() {
                steps.push(Step::EnableSystemIdentity(it.clone()));
            }
        }
    }
    for it in &wanted.identities {
        match present.identities.iter().find(|p| p.name == it.name) {
            None => steps.push(Step::CreateIdentity(it.clone())),
            Some(p) if p.authority != it.authority => {
                anyhow::bail!(
                    "{} is at {} and cannot move to {}: delete it, or choose another name",
                    it.name,
                    p.authority,
                    it.authority
                )
            }
            Some(p) if p != it => steps.push(Step::UpdateIdentity(it.clone())),
            Some(_) => {}
        }
    }
    for it in &wanted.role_assignments {
        match present.role_assignments.iter().find(|p| p.name == it.name) {
            None => steps.push(Step::CreateAssignment(it.clone())),
            Some(p) if p != it => steps.push(Step::ReplaceAssignment(it.clone())),
            Some(_) => {}
        }
    }
    if prune {
        let gone = |names: Vec<&String>, kept: Vec<&String>| {
            names.into_iter().filter(|n| !kept.contains(n)).cloned().collect::<Vec<_>>()
        };
        let of = |s: &StateFile| -> [Vec<String>; 3] {
            [
                s.role_assignments.iter().map(|a| a.name.clone()).collect(),
                s.identities.iter().map(|i| i.name.clone()).collect(),
                s.workloads.iter().map(|w| w.name.clone()).collect(),
            ]
        };
        let ([a, i, w], [ka, ki, kw]) = (of(present), of(wanted));
        steps.extend(gone(a.iter().collect(), ka.iter().collect()).into_iter().map(Step::RemoveAssignment));
        steps.extend(gone(i.iter().collect(), ki.iter().collect()).into_iter().map(Step::DeleteIdentity));
        steps.extend(gone(w.iter().collect(), kw.iter().collect()).into_iter().map(Step::DeleteWorkload));
    }
    Ok(steps)
}

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

    /// What is there, as a file would say it.
    pub(crate) async fn read(&mut self) -> anyhow::Result<StateFile> {
        let identities = identity::list(&mut self.identities, v1::ListIdentitiesRequest::default()).await?;
        let authority_of = |name: &str| {
            identities.iter().find(|i| i.name == name).map_or_else(String::new, |i| i.authority.clone())
        };
        let workloads = workload::list(&mut self.workloads).await?.into_iter().map(|w| Workload {
            system_identity_authority: authority_of(&w.system_identity),
            name: w.name,
            display_name: w.display_name,
            principals: w.principals,
            labels: w.labels.into_iter().collect(),
        });
        let workloads = workloads.collect();
        let authorities = authority::list(&mut self.authorities).await?.into_iter().map(|a| Authority {
            name: a.name,
            display_name: a.display_name,
            ca_file: a.ca_file,
            ..Authority::default()
        });
        let assignments = access::list(&mut self.access, "", "").await?.into_iter().map(|a| Assignment {
            name: a.name,
            member: a.member,
            role: a.role,
            identity: a.identity,
            targets: a.targets,
            keep_warm: a.keep_warm,
            expires: a.expire_time.map(|t| t.to_string()).unwrap_or_default(),
            max_token_lifetime_seconds: a.max_token_lifetime.map(|d| d.seconds),
        });
        let created = |i: &v1::Identity| i.kind() == v1::IdentityKind::Created && i.workload.is_empty();
        Ok(StateFile {
            authorities: authorities.collect(),
            workloads,
            role_assignments: assignments.collect(),
            identities: identities
                .into_iter()
                .filter(created)
                .map(|i| Identity {
                    name: i.name,
                    authority: i.authority,
                    display_name: i.display_name,
                    labels: i.labels.into_iter().collect(),
                })
                .collect(),
        })
    }

    /// Takes one step, to its end.
    pub(crate) async fn take(&mut self, step: Step) -> anyhow::Result<()> {
        match step {
            Step::CreateAuthority(a) => drop(self.authorities.create_authority(create_authority(a)?).await?),
            Step::RenameAuthority(a) => {
                let request = v1::UpdateAuthorityRequest {
                    name: a.name,
                    display_name: a.display_name,
                    ..Default::default()
                };
                self.authorities.update_authority(request).await?;
            }
            Step::CreateWorkload(w) => {
                let request = v1::CreateWorkloadRequest {
                    workload_id: id_of(&w.name, "workloads/").into(),
                    principals: w.principals,
                    display_name: w.display_name,
                    labels: w.labels.into_iter().collect(),
                    request_id: String::new(),
                };
                self.workloads.create_workload(request).await?;
            }
            Step::UpdateWorkload(w) => {
                let paths = ["principals", "display_name", "labels"].map(str::to_owned).to_vec();
                let request = v1::UpdateWorkloadRequest {
                    name: w.name,
                    principals: w.principals,
                    display_name: w.display_name,
                    labels: w.labels.into_iter().collect(),
                    update_mask: Some(FieldMask { paths }),
                    request_id: String::new(),
                };
                self.workloads.update_workload(request).await?;
            }
            Step::EnableSystemIdentity(w) => {
                let request = v1::EnableSystemIdentityRequest {
                    name: w.name,
                    authority: w.system_identity_authority,
                    ..Default::default()
                };
                let made = self
                    .workloads
                    .enable_system_identity(request)
                    .await?
                    .into_inner()
                    .workload
                    .unwrap_or_default();
                self.settled(&made.system_identity).await?;
            }
            Step::DisableSystemIdentity(name) => {
                self.workloads
                    .disable_system_identity(v1::DisableSystemIdentityRequest { name, ..Default::default() })
                    .await?;
            }
            Step::CreateIdentity(i) => {
                let request = v1::CreateIdentityRequest {
                    identity_id: id_of(&i.name, "identities/").into(),
                    authority: i.authority,
                    display_name: i.display_name,
                    labels: i.labels.into_iter().collect(),
                    request_id: String::new(),
                };
                let made =
                    self.identities.create_identity(request).await?.into_inner().identity.unwrap_or_default();
                self.settled(&made.name).await?;
            }
            Step::UpdateIdentity(i) => {
                let paths = ["display_name", "labels"].map(str::to_owned).to_vec();
                let request = v1::UpdateIdentityRequest {
                    name: i.name,
                    display_name: i.display_name,
                    labels: i.labels.into_iter().collect(),
                    update_mask: Some(FieldMask { paths }),
                    request_id: String::new(),
                };
                self.identities.update_identity(request).await?;
            }
            Step::CreateAssignment(a) => {
                drop(self.access.create_role_assignment(create_assignment(a)?).await?)
            }
            Step::ReplaceAssignment(a) => {
                let (name, create) = (a.name.clone(), create_assignment(a)?);
                self.access
                    .delete_role_assignment(v1::DeleteRoleAssignmentRequest { name, ..Default::default() })
                    .await?;
                self.access.create_role_assignment(create).await?;
            }
            Step::RemoveAssignment(name) => {
                self.access
                    .delete_role_assignment(v1::DeleteRoleAssignmentRequest { name, ..Default::default() })
                    .await?;
            }
            Step::DeleteIdentity(name) => {
                let request = v1::DeleteIdentityRequest { name, ..Default::default() };
                let deleted =
                    self.identities.delete_identity(request).await?.into_inner().identity.unwrap_or_default();
                identity::settled(&mut self.identities, deleted, PATIENCE).await?;
            }
            Step::DeleteWorkload(name) => {
                self.workloads
                    .delete_workload(v1::DeleteWorkloadRequest { name, ..Default::default() })
                    .await?;
            }
        }
        Ok(())
    }

    async fn settled(&mut self, name: &str) -> anyhow::Result<()> {
        let request = v1::GetIdentityRequest { name: name.to_owned() };
        let made = self.identities.get_identity(request).await?.into_inner().identity.unwrap_or_default();
        identity::settled(&mut self.identities, made, PATIENCE).await.map(drop)
    }
}

fn create_authority(a: Authority) -> anyhow::Result<v1::CreateAuthorityRequest> {
    let kind = match a.kind.as_str() {
        "entra" => v1::AuthorityKind::Entra,
        "oidc" => v1::AuthorityKind::Oidc,
        other => anyhow::bail!("{}: kind {other:?} is neither entra nor oidc", a.name),
    };
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

fn create_assignment(a: Assignment) -> anyhow::Result<v1::CreateRoleAssignmentRequest> {
    let expires = Some(a.expires.as_str()).filter(|e| !e.is_empty());
    let parse = |text: &str| {
        text.parse::<Timestamp>().with_context(|| {
            format!("{}: expires {text:?} is not a time such as 2027-01-31T00:00:00Z", a.name)
        })
    };
    Ok(v1::CreateRoleAssignmentRequest {
        assignment_id: a.name.rsplit('/').next().unwrap_or_default().into(),
        expire_time: expires.map(parse).transpose()?,
        member: a.member,
        role: a.role,
        identity: a.identity,
        targets: a.targets,
        keep_warm: a.keep_warm,
        max_token_lifetime: a
            .max_token_lifetime_seconds
            .map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        request_id: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(present: &StateFile, wanted: &StateFile, prune: bool) -> Vec<String> {
        plan(present, wanted, prune).unwrap().iter().map(ToString::to_string).collect()
    }

    fn wanted() -> StateFile {
        toml::from_str(
            r#"
            [[workloads]]
            name = "workloads/checkout"
            principals = ["unix://n/uid/1000"]
            system_identity_authority = "authorities/contoso"
            [[identities]]
            name = "identities/billing"
            authority = "authorities/contoso"
            [[role_assignments]]
            name = "roleAssignments/checkout-billing"
            member = "workloads/checkout"
            role = "token-user"
            identity = "identities/billing"
            targets = ["resource:https://vault.example"]
            "#,
        )
        .unwrap()
    }

    #[test]
    fn what_is_there_already_needs_no_step() {
        assert!(shown(&wanted(), &wanted(), true).is_empty());
    }

    #[test]
    fn what_others_need_is_made_first() {
        let steps = shown(&StateFile::default(), &wanted(), false);
        let starts = [
            "+ workloads/checkout",
            "+ system identity of workloads/checkout",
            "+ identities/billing",
            "+ roleAssignments/checkout-billing",
        ];
        assert_eq!(steps.len(), starts.len());
        assert!(steps.iter().zip(starts).all(|(step, start)| step.starts_with(start)), "{steps:?}");
    }

    #[test]
    fn only_prune_removes_and_assignments_go_first() {
        assert!(shown(&wanted(), &StateFile::default(), false).is_empty());
        assert_eq!(
            shown(&wanted(), &StateFile::default(), true),
            ["- roleAssignments/checkout-billing", "- identities/billing", "- workloads/checkout"]
        );
    }

    #[test]
    fn an_authority_that_is_not_there_needs_kind_and_url() {
        let wanted = StateFile {
            authorities: vec![Authority { name: "authorities/x".into(), ..Authority::default() }],
            ..StateFile::default()
        };
        assert!(plan(&StateFile::default(), &wanted, false).unwrap_err().to_string().contains("kind"));
    }
}
