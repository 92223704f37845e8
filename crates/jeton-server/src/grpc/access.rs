//! AccessService.

use std::{collections::HashSet, sync::Arc};

use jeton_access::{CreateAssignment, Explanation};
use jeton_core::{
    AssignmentName, AssignmentScope, IdentityName, Member, Principal, RoleAssignment, Target, TargetRequest,
    TargetRule, TokenKey, TokenType, Wall,
};
use jeton_lifecycle::page;
use jeton_proto::v1::{self, access_service_server::AccessService};
use tonic::{Request, Response, Status};

use super::{
    convert::{assignment, assignments_after, duration, limits, page_size, timestamp, wall},
    error::Failure,
    routes::Broker,
};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl AccessService for Broker {
    async fn create_role_assignment(
        &self,
        request: Request<v1::CreateRoleAssignmentRequest>,
    ) -> Answer<v1::CreateRoleAssignmentResponse> {
        let r = request.into_inner();
        let wanted = CreateAssignment {
            id: r.assignment_id,
            member: r.member,
            role: r.role,
            identity: r.identity,
            targets: r.targets,
            keep_warm: r.keep_warm,
            expires_at: r.expire_time.as_ref().map(wall),
            max_token_lifetime: r
                .max_token_lifetime
                .as_ref()
                .map(|d| duration("max_token_lifetime", d))
                .transpose()?,
            limits: r.limits.map(limits).unwrap_or_default(),
            request_id: r.request_id,
        };
        let made = self.access.create_assignment(wanted).await.map_err(Failure::from)?;
        self.keep_warm(&made);
        let shown = assignment(&made, &self.lifecycle.directory());
        Ok(Response::new(v1::CreateRoleAssignmentResponse { role_assignment: Some(shown) }))
    }

    async fn list_role_assignments(
        &self,
        request: Request<v1::ListRoleAssignmentsRequest>,
    ) -> Answer<v1::ListRoleAssignmentsResponse> {
        let r = request.into_inner();
        let (snapshot, directory) = (self.access.snapshot(), self.lifecycle.directory());
        let all = assignments_after(&snapshot, &r.page_token).into_iter().map(|a| assignment(&a, &directory));
        let fits = |a: &v1::RoleAssignment| {
            (r.member.is_empty() || a.member == r.member)
                && (r.identity.is_empty() || a.identity == r.identity)
        };
        let page = page(all.filter(fits), page_size(r.page_size)?);
        let next_page_token =
            page.items.last().filter(|_| page.more).map_or_else(String::new, |a| a.name.clone());
        Ok(Response::new(v1::ListRoleAssignmentsResponse { role_assignments: page.items, next_page_token }))
    }

    async fn delete_role_assignment(
        &self,
        request: Request<v1::DeleteRoleAssignmentRequest>,
    ) -> Answer<v1::DeleteRoleAssignmentResponse> {
        let r = request.into_inner();
        let name: AssignmentName = r.name.parse().map_err(Failure::from)?;
        if let Some(gone) =
            self.access.delete_assignment(&name, &r.request_id).await.map_err(Failure::from)?
        {
            self.cool(&gone);
        }
        Ok(Response::new(v1::DeleteRoleAssignmentResponse {}))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        let r = request.into_inner();
        if !r.correlation_id.is_empty() {
            let found = self.access.explain_denial(&r.correlation_id).ok_or_else(|| {
                Failure::not_found(format!(
                    "a denial with correlation id {:?} (the latest 10,000 are remembered)",
                    r.correlation_id
                ))
            })?;
            return Ok(Response::new(explained(found)));
        }
        let principal: Principal = r.principal.parse().map_err(|e| Failure::field("principal", e))?;
        let identity: Option<IdentityName> = match r.identity.as_str() {
            "" => None,
            name => Some(name.parse().map_err(Failure::from)?),
        };
        let target = TargetRequest { scopes: r.scopes, resources: r.resources };
        Ok(Response::new(explained(self.access.explain(&principal, identity.as_ref(), &target))))
    }

    async fn revoke_tokens(
        &self,
        request: Request<v1::RevokeTokensRequest>,
    ) -> Answer<v1::RevokeTokensResponse> {
        let revocation = self.revoke(request.into_inner()).await?;
        Ok(Response::new(v1::RevokeTokensResponse { revocation: Some(revocation) }))
    }
}

fn explained(e: Explanation) -> v1::ExplainResponse {
    v1::ExplainResponse {
        allowed: e.allowed_by.is_some(),
        role_assignment: e.allowed_by.map_or_else(String::new, |name| name.to_string()),
        reason: e.reason,
        remedy: e.remedy.unwrap_or_default(),
        principal: e.principal.to_string(),
        identity: e.identity,
        target: e.target,
        denied_time: e.denied_at.map(timestamp),
    }
}

impl Broker {
    /// Pins the tokens that an assignment wants fresh.
    pub fn keep_warm(&self, assignment: &RoleAssignment) {
        let owner = match &assignment.member {
            Member::Principal(principal) => principal.clone(),
            Member::Workload(uid) => {
                let directory = self.lifecycle.directory();
                let workload = directory.workload(*uid).and_then(|w| w.principals.first().cloned());
                workload.unwrap_or_else(Principal::restored)
            }
            Member::Pattern(_) => Principal::restored(),
        };
        let until = assignment.expires_at.unwrap_or(Wall::from_millis(i64::MAX));
        for key in self.warm_keys(assignment) {
            if let Err(error) = self.engine.pin(&key, &owner, until) {
                tracing::warn!(assignment = %assignment.name, %error, "a token cannot be kept warm");
            }
        }
    }

    /// Unpins what no other assignment wants fresh.
    fn cool(&self, gone: &RoleAssignment) {
        let keys: HashSet<_> = self.warm_keys(gone).into_iter().collect();
        keys.iter().for_each(|key| self.engine.unpin(key));
        // Only an assignment on one identity keeps anything warm.
        let AssignmentScope::Identity(identity) = gone.scope else { return };
        let snapshot = self.access.snapshot();
        let concerned = |a: &&Arc<RoleAssignment>| self.warm_keys(a).iter().any(|key| keys.contains(key));
        snapshot.binding(identity).filter(concerned).for_each(|other| self.keep_warm(other));
    }

    fn warm_keys(&self, assignment: &RoleAssignment) -> Vec<TokenKey> {
        let directory = self.lifecycle.directory();
        let (AssignmentScope::Identity(uid), true, TargetRule::Only(texts)) =
            (&assignment.scope, assignment.keep_warm, &assignment.targets)
        else {
            return vec![];
        };
        let Some(identity) = directory.identity(*uid) else { return vec![] };
        let Some(authority) = directory.authority(identity.authority) else { return vec![] };
        let targets = texts.iter().filter_map(|text| Target::from_canonical(text));
        let key = |target| TokenKey {
            identity: identity.uid,
            authority: authority.uid,
            profile_version: authority.profile_version,
            target,
            claims: None,
            token_type: TokenType::Bearer,
            cnf: None,
        };
        targets.map(key).collect()
    }
}
