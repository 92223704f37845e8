//! AccessService.

use std::{collections::HashSet, sync::Arc};

use jeton_access::{AdminCall, CreateAssignment, Explanation, NearMiss};
use jeton_core::{
    AccessSnapshot, AssignmentName, AssignmentScope, Directory, IdentityName, Member, Object, Principal,
    RoleAssignment, ScopeName, Target, TargetRequest, TargetRule, TokenKey, TokenType, Wall, WorkloadName,
};
use jeton_lifecycle::page;
use jeton_proto::v1::{self, access_service_server::AccessService};
use tonic::{Request, Response, Status};

use super::{
    convert::{assignment, duration, limits, page_size, timestamp, wall},
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
        let _held = self.access.changing().await;
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        self.must_on_scope(&call, &r.identity)?;
        call.must_see_member(&r.member).map_err(Failure::from)?;
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
        let made = self.access.create_assignment_if(wanted, |new| call.may_make(new)).await;
        let made = made.map_err(Failure::from)?;
        self.keep_warm(&made);
        let shown = assignment(&made, &self.lifecycle.directory());
        Ok(Response::new(v1::CreateRoleAssignmentResponse { role_assignment: Some(shown) }))
    }

    async fn list_role_assignments(
        &self,
        request: Request<v1::ListRoleAssignmentsRequest>,
    ) -> Answer<v1::ListRoleAssignmentsResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let (snapshot, directory) = (self.access.snapshot(), self.lifecycle.directory());
        let after: Option<AssignmentName> = match r.page_token.as_str() {
            "" => None,
            token => {
                Some(token.parse().map_err(|_| Failure::field("page_token", "not one that a list gave"))?)
            }
        };
        let size = page_size(r.page_size)?;
        let seen = |a: &&Arc<RoleAssignment>| {
            (r.role.is_empty() || a.role.as_str() == r.role) && call.may_on(&a.scope)
        };
        let page = match Filter::parse(&r.member, &r.identity, &directory) {
            None => page(snapshot.assignments_after(after.as_ref()).filter(seen), size),
            Some(filter) => page(filter.all(&snapshot, after.as_ref()).into_iter().filter(seen), size),
        };
        let next_page_token =
            page.items.last().filter(|_| page.more).map_or_else(String::new, |a| a.name.to_string());
        let role_assignments = page.items.into_iter().map(|a| assignment(a, &directory)).collect();
        Ok(Response::new(v1::ListRoleAssignmentsResponse { role_assignments, next_page_token }))
    }

    async fn delete_role_assignment(
        &self,
        request: Request<v1::DeleteRoleAssignmentRequest>,
    ) -> Answer<v1::DeleteRoleAssignmentResponse> {
        let _held = self.access.changing().await;
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let name: AssignmentName = r.name.parse().map_err(Failure::from)?;
        call.must_see_assignment(&name).map_err(Failure::from)?;
        let gone = self.access.delete_assignment_if(&name, &r.request_id, |it| call.may_take_back(it)).await;
        if let Some(gone) = gone.map_err(Failure::from)? {
            self.cool(&gone);
        }
        Ok(Response::new(v1::DeleteRoleAssignmentResponse {}))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        if !r.correlation_id.is_empty() {
            call.must(Object::Something, "anything").map_err(Failure::from)?;
            let found = self.access.explain_denial(&r.correlation_id);
            let found = found.filter(|e| self.may_explain(&call, &e.identity)).ok_or_else(|| {
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
        let explanation = self.access.explain(&principal, identity.as_ref(), &target);
        if !self.may_explain(&call, &explanation.identity) {
            call.must(Object::All, &explanation.identity).map_err(Failure::from)?;
        }
        Ok(Response::new(explained(explanation)))
    }

    async fn revoke_tokens(
        &self,
        request: Request<v1::RevokeTokensRequest>,
    ) -> Answer<v1::RevokeTokensResponse> {
        let call = self.admin_call(&request)?;
        let revocation = self.revoke(&call, request.into_inner()).await?;
        Ok(Response::new(v1::RevokeTokensResponse { revocation: Some(revocation) }))
    }
}

fn explained(e: Explanation) -> v1::ExplainResponse {
    v1::ExplainResponse {
        allowed: e.allowed_by.is_some(),
        role_assignment: e.allowed_by.map_or_else(String::new, |name| name.to_string()),
        reason: e.reason,
        remedy: e.remedies.join("\n"),
        near_misses: e.near_misses.into_iter().map(near_miss).collect(),
        method: e.method,
        principal: e.principal.to_string(),
        identity: e.identity,
        target: e.target,
        denied_time: e.denied_at.map(timestamp),
    }
}

fn near_miss(miss: NearMiss) -> v1::NearMiss {
    v1::NearMiss { role_assignment: miss.assignment.to_string(), problem: miss.problem }
}

/// What a list is narrowed to, found by an index.
struct Filter {
    member: Option<Member>,
    scope: Option<AssignmentScope>,
}

impl Filter {
    /// None: nothing was given. What names nothing that is there fits nothing.
    fn parse(member: &str, identity: &str, directory: &Directory) -> Option<Self> {
        let member = (!member.is_empty()).then(|| member_named(member, directory));
        let scope = (!identity.is_empty()).then(|| scope_named(identity, directory));
        match (member, scope) {
            (None, None) => None,
            (Some(None), _) | (_, Some(None)) => Some(Self { member: None, scope: None }),
            (member, scope) => Some(Self { member: member.flatten(), scope: scope.flatten() }),
        }
    }

    fn all<'a>(
        &self,
        snapshot: &'a AccessSnapshot,
        after: Option<&AssignmentName>,
    ) -> Vec<&'a Arc<RoleAssignment>> {
        let mut all: Vec<_> = match (&self.member, &self.scope) {
            (None, None) => vec![],
            (None, Some(scope)) => snapshot.on(scope.clone()).collect(),
            (Some(member), scope) => {
                let fits = |a: &&Arc<RoleAssignment>| scope.as_ref().is_none_or(|scope| a.scope == *scope);
                snapshot.of_member(member.clone()).filter(fits).collect()
            }
        };
        all.retain(|a| after.is_none_or(|after| a.name > *after));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

fn member_named(text: &str, directory: &Directory) -> Option<Member> {
    if text.starts_with("workloads/") {
        return directory.workload_named(&text.parse().ok()?).map(|w| Member::Workload(w.uid));
    }
    let pattern = || text.parse().ok().map(Member::Pattern);
    text.parse().ok().map(Member::Principal).or_else(pattern)
}

fn scope_named(text: &str, directory: &Directory) -> Option<AssignmentScope> {
    match text.parse().ok()? {
        ScopeName::All => Some(AssignmentScope::All),
        ScopeName::Group(prefix) => Some(AssignmentScope::Group(prefix)),
        ScopeName::Identity(name) => {
            directory.identity_named(&name).map(|i| AssignmentScope::Identity(i.uid))
        }
    }
}

impl Broker {
    /// Whether the caller may hear what happened with this: an identity, a group, a workload, or something of everything.
    fn may_explain(&self, call: &AdminCall, on: &str) -> bool {
        let directory = self.lifecycle.directory();
        let workload: Option<WorkloadName> = on.parse().ok();
        match (on.parse(), workload) {
            (Ok(ScopeName::All), _) | (Err(_), None) => call.may(Object::All),
            (Ok(ScopeName::Group(prefix)), _) => call.may(Object::Group(&prefix)),
            (Ok(ScopeName::Identity(name)), _) => {
                let uid = directory.identity_named(&name).map(|i| i.uid);
                call.may(Object::Identity(&name, uid))
            }
            (Err(_), Some(name)) => call.may(Object::Workload(&name)),
        }
    }

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
