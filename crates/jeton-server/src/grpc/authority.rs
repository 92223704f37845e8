//! AuthorityService.

use std::sync::Arc;

use jeton_core::{Authority, AuthorityName, Object, Permission, Profile};
use jeton_lifecycle::{AuthorityPatch, CreateAuthority, LifecycleError, RegistrarMaterial, page};
use jeton_proto::v1::{self, authority_service_server::AuthorityService};
use tonic::{Request, Response, Status};

use super::{
    DiscoverRequest, RegistrarShape,
    convert::{authority, page_size},
    error::{Failure, Reason},
    routes::Broker,
};

type Answer<T> = Result<Response<T>, Status>;

fn shown(changed: Result<Arc<Authority>, LifecycleError>) -> Result<Option<v1::Authority>, Status> {
    Ok(Some(authority(&*changed.map_err(Failure::from)?)))
}

fn name(text: &str) -> Result<AuthorityName, Failure> {
    Ok(text.parse::<AuthorityName>()?)
}

fn certificate(c: v1::RegistrarCertificate) -> RegistrarMaterial {
    RegistrarMaterial::Certificate {
        client_id: c.client_id,
        certificate_pem: c.certificate_pem,
        private_key_pem: c.private_key_pem.into(),
    }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
}

#[tonic::async_trait]
impl AuthorityService for Broker {
    async fn create_authority(
        &self,
        request: Request<v1::CreateAuthorityRequest>,
    ) -> Answer<v1::CreateAuthorityResponse> {
        use v1::create_authority_request::Registrar;
        let r = request.into_inner();
        let shape = match r.kind() {
            v1::AuthorityKind::Entra => RegistrarShape::Entra,
            v1::AuthorityKind::Oidc => RegistrarShape::Oidc,
            v1::AuthorityKind::Unspecified => {
                return Err(Failure::field("kind", "say which: ENTRA or OIDC").into());
            }
        };
        let name = AuthorityName::from_id(&r.authority_id).map_err(|e| Failure::field("authority_id", e))?;
        if !r.url.starts_with("https://") {
            return Err(Failure::field("url", "expected an https URL").into());
        }
        let overrides = match r.profile_overrides_json.as_str() {
            "" => None,
            text => {
                Some(serde_json::from_str(text).map_err(|e| Failure::field("profile_overrides_json", e))?)
            }
        };
        let ca_file = some(r.ca_file);
        let wanted = DiscoverRequest {
            shape,
            url: r.url,
            ca_file: ca_file.clone(),
            graph: some(r.graph_url),
            overrides,
        };
        let profile =
            self.probe.discover(wanted).await.map_err(|e| Failure::new(Reason::FailedPrecondition, e))?;
        let registrar = match r.registrar {
            Some(Registrar::Certificate(c)) => certificate(c),
            Some(Registrar::InitialAccessToken(t)) => RegistrarMaterial::InitialAccessToken(t.token.into()),
            None => RegistrarMaterial::None,
        };
        let create = CreateAuthority {
            name,
            display_name: r.display_name,
            profile,
            ca_file,
            registrar,
            request_id: r.request_id,
        };
        let made = self.lifecycle.create_authority(create).await;
        Ok(Response::new(v1::CreateAuthorityResponse { authority: shown(made)? }))
    }

    async fn get_authority(
        &self,
        request: Request<v1::GetAuthorityRequest>,
    ) -> Answer<v1::GetAuthorityResponse> {
        let name = name(&request.get_ref().name)?;
        let directory = self.lifecycle.directory();
        let found = directory.authority_named(&name).ok_or_else(|| Failure::not_found(&name))?;
        Ok(Response::new(v1::GetAuthorityResponse { authority: Some(authority(found)) }))
    }

    async fn list_authorities(
        &self,
        request: Request<v1::ListAuthoritiesRequest>,
    ) -> Answer<v1::ListAuthoritiesResponse> {
        let r = request.into_inner();
        let directory = self.lifecycle.directory();
        let after = match r.page_token.as_str() {
            "" => None,
            token => Some(
                token
                    .parse::<AuthorityName>()
                    .map_err(|_| Failure::field("page_token", "not one that a list gave"))?,
            ),
        };
        let page = page(directory.authorities_after(after.as_ref()), page_size(r.page_size)?);
        let next_page_token =
            page.items.last().filter(|_| page.more).map_or_else(String::new, |a| a.name.to_string());
        let authorities = page.items.iter().map(|a| authority(a)).collect();
        Ok(Response::new(v1::ListAuthoritiesResponse { authorities, next_page_token }))
    }

    async fn update_authority(
        &self,
        request: Request<v1::UpdateAuthorityRequest>,
    ) -> Answer<v1::UpdateAuthorityResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        // A profile says where identities prove themselves: with another one their proofs could be led elsewhere, and tokens be had.
        if !r.profile_json.is_empty() {
            call.must_have(Permission::ChangeAssignments, Object::All, "*").map_err(Failure::from)?;
        }
        let profile: Option<Profile> = match r.profile_json.as_str() {
            "" => None,
            text => Some(serde_json::from_str(text).map_err(|e| Failure::field("profile_json", e))?),
        };
        use v1::update_authority_request::Registrar;
        let registrar = r.registrar.map(|registrar| match registrar {
            Registrar::Certificate(c) => certificate(c),
            Registrar::InitialAccessToken(t) => RegistrarMaterial::InitialAccessToken(t.token.into()),
        });
        let patch = AuthorityPatch { display_name: some(r.display_name), profile, registrar };
        let changed = self.lifecycle.update_authority(&name(&r.name)?, patch, &r.request_id).await;
        Ok(Response::new(v1::UpdateAuthorityResponse { authority: shown(changed)? }))
    }

    async fn delete_authority(
        &self,
        request: Request<v1::DeleteAuthorityRequest>,
    ) -> Answer<v1::DeleteAuthorityResponse> {
        let r = request.into_inner();
        self.lifecycle.delete_authority(&name(&r.name)?, &r.request_id).await.map_err(Failure::from)?;
        Ok(Response::new(v1::DeleteAuthorityResponse {}))
    }

    async fn test_authority(
        &self,
        request: Request<v1::TestAuthorityRequest>,
    ) -> Answer<v1::TestAuthorityResponse> {
        let name = name(&request.get_ref().name)?;
        let found = self
            .lifecycle
            .directory()
            .authority_named(&name)
            .cloned()
            .ok_or_else(|| Failure::not_found(&name))?;
        let steps = self.probe.test(&found).await;
        let ok = steps.iter().all(|step| step.ok);
        let steps =
            steps.into_iter().map(|s| v1::TestStep { name: s.name, ok: s.ok, detail: s.detail }).collect();
        Ok(Response::new(v1::TestAuthorityResponse { ok, steps }))
    }
}
