//! WorkloadService.

use std::sync::Arc;

use jeton_core::{AuthorityName, Principal, Workload, WorkloadName};
use jeton_lifecycle::{CreateWorkload, DEFAULT_OVERLAP, LifecycleError, WorkloadPatch, page};
use jeton_proto::v1::{self, workload_service_server::WorkloadService};
use secrecy::ExposeSecret;
use tonic::{Request, Response, Status};

use super::{
    convert::{duration, page_size, workload},
    error::Failure,
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
        let r = request.into_inner();
        let wanted = CreateWorkload {
            name: WorkloadName::from_id(&r.workload_id).map_err(|e| Failure::field("workload_id", e))?,
            principals: principals(&r.principals)?,
            display_name: r.display_name,
            labels: r.labels.into_iter().collect(),
            request_id: r.request_id,
        };
        let made = self.lifecycle.create_workload(wanted).await;
        Ok(Response::new(v1::CreateWorkloadResponse { workload: self.shown_workload(made)? }))
    }

    async fn get_workload(
        &self,
        request: Request<v1::GetWorkloadRequest>,
    ) -> Answer<v1::GetWorkloadResponse> {
        let name = name(&request.get_ref().name)?;
        let directory = self.lifecycle.directory();
        let found = directory.workload_named(&name).ok_or_else(|| Failure::not_found(&name))?;
        Ok(Response::new(v1::GetWorkloadResponse { workload: Some(workload(found, &directory)) }))
    }

    async fn list_workloads(
        &self,
        request: Request<v1::ListWorkloadsRequest>,
    ) -> Answer<v1::ListWorkloadsResponse> {
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
        let page = page(directory.workloads_after(after.as_ref()), page_size(r.page_size)?);
        let next_page_token =
            page.items.last().filter(|_| page.more).map_or_else(String::new, |w| w.name.to_string());
        let workloads = page.items.iter().map(|w| workload(w, &directory)).collect();
        Ok(Response::new(v1::ListWorkloadsResponse { workloads, next_page_token }))
    }

    async fn update_workload(
        &self,
        request: Request<v1::UpdateWorkloadRequest>,
    ) -> Answer<v1::UpdateWorkloadResponse> {
        let r = request.into_inner();
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
        let changed = self.lifecycle.update_workload(&name(&r.name)?, patch, &r.request_id).await;
        Ok(Response::new(v1::UpdateWorkloadResponse { workload: self.shown_workload(changed)? }))
    }

    async fn delete_workload(
        &self,
        request: Request<v1::DeleteWorkloadRequest>,
    ) -> Answer<v1::DeleteWorkloadResponse> {
        let r = request.into_inner();
        self.lifecycle.delete_workload(&name(&r.name)?, &r.request_id).await.map_err(Failure::from)?;
        Ok(Response::new(v1::DeleteWorkloadResponse {}))
    }

    async fn enable_system_identity(
        &self,
        request: Request<v1::EnableSystemIdentityRequest>,
    ) -> Answer<v1::EnableSystemIdentityResponse> {
        let r = request.into_inner();
        let authority: AuthorityName = r.authority.parse().map_err(|e| Failure::field("authority", e))?;
        let changed = self.lifecycle.enable_system_identity(&name(&r.name)?, &authority, &r.request_id).await;
        Ok(Response::new(v1::EnableSystemIdentityResponse { workload: self.shown_workload(changed)? }))
    }

    async fn disable_system_identity(
        &self,
        request: Request<v1::DisableSystemIdentityRequest>,
    ) -> Answer<v1::DisableSystemIdentityResponse> {
        let r = request.into_inner();
        let changed = self.lifecycle.disable_system_identity(&name(&r.name)?, &r.request_id).await;
        Ok(Response::new(v1::DisableSystemIdentityResponse { workload: self.shown_workload(changed)? }))
    }

    async fn rotate_secret(
        &self,
        request: Request<v1::RotateSecretRequest>,
    ) -> Answer<v1::RotateSecretResponse> {
        let r = request.into_inner();
        let overlap = r.overlap.as_ref().map(|d| duration("overlap", d)).transpose()?;
        let (name, overlap) = (name(&r.name)?, overlap.unwrap_or(DEFAULT_OVERLAP));
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
        let r = request.into_inner();
        let which = match r.secret_uid.as_str() {
            "" => None,
            uid => Some(uid.parse().map_err(|e| Failure::field("secret_uid", e))?),
        };
        let changed = self.lifecycle.revoke_secret(&name(&r.name)?, which, &r.request_id).await;
        Ok(Response::new(v1::RevokeSecretResponse { workload: self.shown_workload(changed)? }))
    }
}
