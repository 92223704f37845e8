//! WorkloadService.

use std::sync::Arc;

use jeton_access::AdminCall;
use jeton_core::{AuthorityName, Object, Principal, Workload, WorkloadName};
use jeton_lifecycle::{
    CreateWorkload, DEFAULT_OVERLAP, LifecycleError, WorkloadPatch, page, system_identity_name,
};
use jeton_proto::v1::{self, workload_service_server::WorkloadService};
use secrecy::ExposeSecret;
use tonic::{Request, Response, Status};

use super::{
    convert::{duration, page_size, workload},
    error::Failure,
    permit::must_on_workload,
    routes::Broker,
};

type Answer<T> = Result<Response<T>, Status>;

impl Broker {
    fn shown_workload(
        &self,
        changed: Result<Arc<Workload>, LifecycleError>,
    ) -> Result<Option<v1::Workload>, Status> {
        let changed = changed.map_err(Failure::from)?;
        Ok(Some(workload(&changed, &self.lifecycle.directory())))
    }
}

impl Broker {
    /// The caller must be allowed this with a workload's own identity, or the one that it would have.
    fn must_on_system_identity(&self, call: &AdminCall, workload: &WorkloadName) -> Result<(), Failure> {
        let directory = self.lifecycle.directory();
        let own = directory.workload_named(workload).and_then(|w| w.system_identity);
        let (name, uid) = match own.and_then(|uid| directory.identity(uid)) {
            Some(identity) => (identity.name.clone(), Some(identity.uid)),
            None => (system_identity_name(workload).map_err(Failure::from)?, None),
        };
        Ok(call.must(Object::Identity(&name, uid), name.as_str())?)
    }
}

fn name(text: &str) -> Result<WorkloadName, Failure> {
    Ok(text.parse::<WorkloadName>()?)
}

fn principals(texts: &[String]) -> Result<Vec<Principal>, Failure> {
    texts.iter().map(|text| text.parse().map_err(|e| Failure::field("principals", e))).collect()
}

#[tonic::async_trait]
impl WorkloadService for Broker {
    async fn create_workload(
        &self,
        request: Request<v1::CreateWorkloadRequest>,
    ) -> Answer<v1::CreateWorkloadResponse> {
        let _held = self.access.changing().await;
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let wanted = CreateWorkload {
            name: WorkloadName::from_id(&r.workload_id).map_err(|e| Failure::field("workload_id", e))?,
            principals: principals(&r.principals)?,
            display_name: r.display_name,
            labels: r.labels.into_iter().collect(),
            request_id: r.request_id,
        };
        must_on_workload(&call, &wanted.name)?;
        wanted.principals.iter().try_for_each(|it| call.may_claim(it, None)).map_err(Failure::from)?;
        let made = self.lifecycle.create_workload(wanted).await;
        Ok(Response::new(v1::CreateWorkloadResponse { workload: self.shown_workload(made)? }))
    }

    async fn get_workload(
        &self,
        request: Request<v1::GetWorkloadRequest>,
    ) -> Answer<v1::GetWorkloadResponse> {
        let call = self.admin_call(&request)?;
        let name = name(&request.get_ref().name)?;
        must_on_workload(&call, &name)?;
        let directory = self.lifecycle.directory();
        let found = directory.workload_named(&name).ok_or_else(|| Failure::not_found(&name))?;
        Ok(Response::new(v1::GetWorkloadResponse { workload: Some(workload(found, &directory)) }))
    }

    async fn list_workloads(
        &self,
        request: Request<v1::ListWorkloadsRequest>,
    ) -> Answer<v1::ListWorkloadsResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let directory = self.lifecycle.directory();
        let after = match r.page_token.as_str() {
            "" => None,
            token => Some(
                token
                    .parse::<WorkloadName>()
                    .map_err(|_| Failure::field("page_token", "not one that a list gave"))?,
            ),
        };
        let seen = directory.workloads_after(after.as_ref()).filter(|w| call.may(Object::Workload(&w.name)));
        let page = page(seen, page_size(r.page_size)?);
        let next_page_token =
            page.items.last().filter(|_| page.more).map_or_else(String::new, |w| w.name.to_string());
        let workloads = page.items.iter().map(|w| workload(w, &directory)).collect();
        Ok(Response::new(v1::ListWorkloadsResponse { workloads, next_page_token }))
    }

    async fn update_workload(
        &self,
        request: Request<v1::UpdateWorkloadRequest>,
    ) -> Answer<v1::UpdateWorkloadResponse> {
        let _held = self.access.changing().await;
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let name = name(&r.name)?;
        must_on_workload(&call, &name)?;
        let paths = r.update_mask.map(|m| m.paths).unwrap_or_default();
        let known = ["display_name", "labels", "principals"];
        if let Some(unknown) = paths.iter().find(|p| !known.contains(&p.as_str())) {
            return Err(Failure::field(
                "update_mask",
                format!("{unknown:?} cannot be changed; expected {}", known.join(", ")),
            )
            .into());
        }
        let wants = |path: &str| paths.is_empty() || paths.iter().any(|p| p == path);
        let patch = WorkloadPatch {
            display_name: wants("display_name").then_some(r.display_name),
            labels: wants("labels").then(|| r.labels.into_iter().collect()),
            principals: if wants("principals") { Some(principals(&r.principals)?) } else { None },
        };
        if let (Some(principals), Some(workload)) =
            (&patch.principals, self.lifecycle.directory().workload_named(&name))
        {
            call.may_change_members(workload, principals).map_err(Failure::from)?;
        }
        let changed = self.lifecycle.update_workload(&name, patch, &r.request_id).await;
        Ok(Response::new(v1::UpdateWorkloadResponse { workload: self.shown_workload(changed)? }))
    }

    async fn delete_workload(
        &self,
        request: Request<v1::DeleteWorkloadRequest>,
    ) -> Answer<v1::DeleteWorkloadResponse> {
        let _held = self.access.changing().await;
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let name = name(&r.name)?;
        must_on_workload(&call, &name)?;
        if let Some(workload) = self.lifecycle.directory().workload_named(&name) {
            call.may_remove(workload).map_err(Failure::from)?;
        }
        self.lifecycle.delete_workload(&name, &r.request_id).await.map_err(Failure::from)?;
        Ok(Response::new(v1::DeleteWorkloadResponse {}))
    }

    async fn enable_system_identity(
        &self,
        request: Request<v1::EnableSystemIdentityRequest>,
    ) -> Answer<v1::EnableSystemIdentityResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let name = name(&r.name)?;
        self.must_on_system_identity(&call, &name)?;
        let authority: AuthorityName = r.authority.parse().map_err(|e| Failure::field("authority", e))?;
        let changed = self.lifecycle.enable_system_identity(&name, &authority, &r.request_id).await;
        Ok(Response::new(v1::EnableSystemIdentityResponse { workload: self.shown_workload(changed)? }))
    }

    async fn disable_system_identity(
        &self,
        request: Request<v1::DisableSystemIdentityRequest>,
    ) -> Answer<v1::DisableSystemIdentityResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let name = name(&r.name)?;
        self.must_on_system_identity(&call, &name)?;
        let changed = self.lifecycle.disable_system_identity(&name, &r.request_id).await;
        Ok(Response::new(v1::DisableSystemIdentityResponse { workload: self.shown_workload(changed)? }))
    }

    async fn rotate_secret(
        &self,
        request: Request<v1::RotateSecretRequest>,
    ) -> Answer<v1::RotateSecretResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let overlap = r.overlap.as_ref().map(|d| duration("overlap", d)).transpose()?;
        let (name, overlap) = (name(&r.name)?, overlap.unwrap_or(DEFAULT_OVERLAP));
        must_on_workload(&call, &name)?;
        call.may_see_secret(&name).map_err(Failure::from)?;
        let made =
            self.lifecycle.rotate_secret(&name, overlap, &r.request_id).await.map_err(Failure::from)?;
        Ok(Response::new(v1::RotateSecretResponse {
            workload: self.shown_workload(Ok(made.workload))?,
            secret: made.secret.expose_secret().to_owned(),
            secret_uid: made.uid.to_string(),
        }))
    }

    async fn revoke_secret(
        &self,
        request: Request<v1::RevokeSecretRequest>,
    ) -> Answer<v1::RevokeSecretResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let name = name(&r.name)?;
        must_on_workload(&call, &name)?;
        if let Some(workload) = self.lifecycle.directory().workload_named(&name) {
            call.may_revoke_secret(workload).map_err(Failure::from)?;
        }
        let which = match r.secret_uid.as_str() {
            "" => None,
            uid => Some(uid.parse().map_err(|e| Failure::field("secret_uid", e))?),
        };
        let changed = self.lifecycle.revoke_secret(&name, which, &r.request_id).await;
        Ok(Response::new(v1::RevokeSecretResponse { workload: self.shown_workload(changed)? }))
    }
}
