//! IdentityService.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jeton_core::{AuthorityName, Identity, IdentityKind, IdentityName, Object, Permission, WorkloadName};
use jeton_engine::Refreshing;
use jeton_lifecycle::{
    AttachIdentity, AttachMaterial, CreateIdentity, IdentityFilter, IdentityPatch, LifecycleError, page,
};
use jeton_proto::v1::{self, identity_service_server::IdentityService};
use tonic::{Request, Response, Status};

use super::{
    convert::{identity, page_size, timestamp, wall, wanted_state},
    error::Failure,
    permit::object,
    routes::Broker,
};

type Answer<T> = Result<Response<T>, Status>;

/// Most uses in one answer, the latest.
const MAX_USES_SHOWN: usize = 1_000;

impl Broker {
    pub(super) fn shown(
        &self,
        changed: Result<Arc<Identity>, LifecycleError>,
    ) -> Result<Option<v1::Identity>, Failure> {
        let changed = changed?;
        Ok(Some(identity(&changed, &self.lifecycle.directory())))
    }
}

fn name(text: &str) -> Result<IdentityName, Failure> {
    Ok(text.parse::<IdentityName>()?)
}

fn create(
    id: &str,
    authority: &str,
    display_name: String,
    labels: std::collections::HashMap<String, String>,
    request_id: String,
) -> Result<CreateIdentity, Failure> {
    let name = IdentityName::from_id(id).map_err(|e| Failure::field("identity_id", e))?;
    let authority: AuthorityName = authority.parse().map_err(|e| Failure::field("authority", e))?;
    Ok(CreateIdentity { name, authority, display_name, labels: labels.into_iter().collect(), request_id })
}

#[tonic::async_trait]
impl IdentityService for Broker {
    async fn create_identity(
        &self,
        request: Request<v1::CreateIdentityRequest>,
    ) -> Answer<v1::CreateIdentityResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let wanted = create(&r.identity_id, &r.authority, r.display_name, r.labels, r.request_id)?;
        self.must_on_identity(&call, &wanted.name)?;
        let made = self.lifecycle.create_identity(wanted).await;
        Ok(Response::new(v1::CreateIdentityResponse { identity: self.shown(made)? }))
    }

    async fn attach_identity(
        &self,
        request: Request<v1::AttachIdentityRequest>,
    ) -> Answer<v1::AttachIdentityResponse> {
        use v1::attach_identity_request::Credential;
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let material = match r.credential {
            Some(Credential::Certificate(c)) => AttachMaterial::Certificate {
                certificate_pem: c.certificate_pem,
                private_key_pem: c.private_key_pem.into(),
            },
            Some(Credential::Secret(s)) => AttachMaterial::Secret {
                secret: s.client_secret.into(),
                expires_at: s.expire_time.as_ref().map(wall),
            },
            None => {
                return Err(Failure::field(
                    "credential",
                    "bring a certificate with its key, or a client secret",
                )
                .into());
            }
        };
        let create = create(&r.identity_id, &r.authority, r.display_name, r.labels, r.request_id)?;
        self.must_on_identity(&call, &create.name)?;
        let made =
            self.lifecycle.attach_identity(AttachIdentity { create, client_id: r.client_id, material }).await;
        Ok(Response::new(v1::AttachIdentityResponse { identity: self.shown(made)? }))
    }

    async fn get_identity(
        &self,
        request: Request<v1::GetIdentityRequest>,
    ) -> Answer<v1::GetIdentityResponse> {
        let call = self.admin_call(&request)?;
        let name = name(&request.get_ref().name)?;
        self.must_on_identity(&call, &name)?;
        let directory = self.lifecycle.directory();
        let found = directory.identity_named(&name).ok_or_else(|| Failure::not_found(&name))?;
        let slots = self.engine.slots_in_order(Some(found.uid));
        let assignments = self.access.snapshot();
        let told = call.has(Permission::ReadAssignments, object(found));
        let consumers: BTreeSet<_> =
            assignments.covering(found).filter(|_| told).map(|a| a.member.shown(&directory)).collect();
        // What cannot be read is told as far as it is known: the identity itself is not in doubt.
        let uses = self.tally.uses_of(found.uid).await.unwrap_or_else(|error| {
            tracing::warn!(identity = %name, %error, "first and last uses cannot be read: see to the disk of the data directory");
            vec![]
        });
        let used = slots.map(|slot| slot.last_used).chain(uses.iter().map(|used| used.last));
        let shown = v1::Identity {
            last_use_time: used.max().map(timestamp),
            consumers: consumers.into_iter().collect(),
            ..identity(found, &directory)
        };
        let uses = uses.into_iter().take(MAX_USES_SHOWN).map(|used| v1::IdentityUse {
            principal: used.principal.to_string(),
            target: used.target.into(),
            first_use_time: Some(timestamp(used.first)),
            last_use_time: Some(timestamp(used.last)),
        });
        Ok(Response::new(v1::GetIdentityResponse { identity: Some(shown), uses: uses.collect() }))
    }

    async fn list_identities(
        &self,
        request: Request<v1::ListIdentitiesRequest>,
    ) -> Answer<v1::ListIdentitiesResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let directory = self.lifecycle.directory();
        let mut filter = IdentityFilter {
            labels: r.labels.clone().into_iter().collect::<BTreeMap<_, _>>(),
            ..Default::default()
        };
        if !r.authority.is_empty() {
            let name: AuthorityName = r.authority.parse().map_err(|e| Failure::field("authority", e))?;
            filter.authority =
                Some(directory.authority_named(&name).ok_or_else(|| Failure::not_found(&name))?.uid);
        }
        if !r.workload.is_empty() {
            let name: WorkloadName = r.workload.parse().map_err(|e| Failure::field("workload", e))?;
            call.must_have(Permission::ReadWorkloads, Object::Workload(&name), name.as_str())
                .map_err(Failure::from)?;
            filter.workload =
                Some(directory.workload_named(&name).ok_or_else(|| Failure::not_found(&name))?.uid);
        }
        filter.state = wanted_state(r.state());
        filter.kind = match r.kind() {
            v1::IdentityKind::Unspecified => None,
            v1::IdentityKind::Created => Some(IdentityKind::Created),
            v1::IdentityKind::Attached => Some(IdentityKind::Attached),
        };
        let after = match r.page_token.as_str() {
            "" => None,
            token => Some(
                token
                    .parse::<IdentityName>()
                    .map_err(|_| Failure::field("page_token", "not one that a list gave"))?,
            ),
        };
        let seen =
            directory.identities_after(after.as_ref()).filter(|i| filter.fits(i) && call.may(object(i)));
        let page = page(seen.cloned(), page_size(r.page_size)?);
        let next_page_token =
            page.items.last().filter(|_| page.more).map_or_else(String::new, |i| i.name.to_string());
        let identities = page.items.iter().map(|i| identity(i, &directory)).collect();
        Ok(Response::new(v1::ListIdentitiesResponse { identities, next_page_token }))
    }

    async fn update_identity(
        &self,
        request: Request<v1::UpdateIdentityRequest>,
    ) -> Answer<v1::UpdateIdentityResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let name = name(&r.name)?;
        self.must_on_identity(&call, &name)?;
        let paths = r.update_mask.map(|m| m.paths).unwrap_or_default();
        if let Some(unknown) = paths.iter().find(|p| !matches!(p.as_str(), "display_name" | "labels")) {
            return Err(Failure::field(
                "update_mask",
                format!("{unknown:?} cannot be changed; expected display_name, labels"),
            )
            .into());
        }
        let wants = |path: &str| paths.is_empty() || paths.iter().any(|p| p == path);
        let patch = IdentityPatch {
            display_name: wants("display_name").then_some(r.display_name),
            labels: wants("labels").then(|| r.labels.into_iter().collect()),
        };
        let changed = self.lifecycle.update_identity(&name, patch, &r.request_id).await;
        Ok(Response::new(v1::UpdateIdentityResponse { identity: self.shown(changed)? }))
    }

    async fn delete_identity(
        &self,
        request: Request<v1::DeleteIdentityRequest>,
    ) -> Answer<v1::DeleteIdentityResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let name = name(&r.name)?;
        self.must_on_identity(&call, &name)?;
        let deleted = self.lifecycle.delete_identity(&name, &r.request_id).await;
        let identity = match deleted.map_err(Failure::from)? {
            Some(identity) => self.shown(Ok(identity))?,
            // Of what is gone only this is known.
            None => {
                let state = v1::IdentityState::Deleting.into();
                Some(v1::Identity { name: r.name, state, ..Default::default() })
            }
        };
        Ok(Response::new(v1::DeleteIdentityResponse { identity }))
    }

    async fn rotate_credential(
        &self,
        request: Request<v1::RotateCredentialRequest>,
    ) -> Answer<v1::RotateCredentialResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let name = name(&r.name)?;
        self.must_on_identity(&call, &name)?;
        let changed = self.lifecycle.rotate_credential(&name, &r.request_id).await;
        Ok(Response::new(v1::RotateCredentialResponse { identity: self.shown(changed)? }))
    }

    async fn disable_identity(
        &self,
        request: Request<v1::DisableIdentityRequest>,
    ) -> Answer<v1::DisableIdentityResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let name = name(&r.name)?;
        self.must_on_identity(&call, &name)?;
        Ok(Response::new(self.disable(&name, &r.request_id).await?))
    }

    async fn enable_identity(
        &self,
        request: Request<v1::EnableIdentityRequest>,
    ) -> Answer<v1::EnableIdentityResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let name = name(&r.name)?;
        self.must_on_identity(&call, &name)?;
        let changed = self.lifecycle.enable_identity(&name, &r.request_id).await;
        Ok(Response::new(v1::EnableIdentityResponse { identity: self.shown(changed)? }))
    }

    async fn refresh_tokens(
        &self,
        request: Request<v1::RefreshTokensRequest>,
    ) -> Answer<v1::RefreshTokensResponse> {
        let call = self.admin_call(&request)?;
        let name = name(&request.get_ref().name)?;
        self.must_on_identity(&call, &name)?;
        let directory = self.lifecycle.directory();
        let found = directory.identity_named(&name).ok_or_else(|| Failure::not_found(&name))?;
        let Refreshing { under_way, left } = self.engine.refresh_identity(found.uid);
        Ok(Response::new(v1::RefreshTokensResponse { under_way, left }))
    }
}
