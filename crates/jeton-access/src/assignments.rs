//! Making, listing and taking back role assignments.

use std::{sync::Arc, time::Duration};

use jeton_core::{
    AssignmentName, AssignmentScope, CallerLimits, Identity, Member, Principal, PrincipalPattern, Role,
    RoleAssignment, RoleError, ScopeError, ScopeName, Target, TargetRule, Uid, Wall, WorkloadName,
};

use crate::{Access, AccessError, AccessRecorded, AccessWrite};

/// What is to be assigned, as an administrator writes it.
#[derive(Debug, Clone, Default)]
pub struct CreateAssignment {
    /// The id of its name; empty: one is made.
    pub id: String,
    /// A workload's name, a principal, or a pattern that ends at a '/'.
    pub member: String,
    /// Empty: token-user.
    pub role: String,
    /// An identity's name, a dotted group such as `identities/payments.*`, or for a role of the admin plane `*`.
    pub identity: String,
    /// `*`, canonical texts, or scopes and resources as callers spell them. Empty for a role of the admin plane.
    pub targets: Vec<String>,
    /// Keep the tokens fresh although nobody asks.
    pub keep_warm: bool,
    /// From when on it says nothing any more.
    pub expires_at: Option<Wall>,
    /// No token is handed out that lives longer.
    pub max_token_lifetime: Option<Duration>,
    /// What each caller may ask by it beside hits.
    pub limits: CallerLimits,
    /// For idempotency; empty: none.
    pub request_id: String,
}

pub(crate) fn check_request_id(request_id: &str) -> Result<(), AccessError> {
    if request_id.len() > 64 || !request_id.bytes().all(|b| b.is_ascii_graphic()) {
        return invalid("request_id", "1 to 64 visible ASCII characters, such as a UUID");
    }
    Ok(())
}

fn invalid<T>(field: &'static str, problem: impl Into<String>) -> Result<T, AccessError> {
    Err(AccessError::Invalid { field, problem: problem.into() })
}

/// Roles of the admin plane say nothing of tokens.
fn uses_no_tokens(role: Role, request: &CreateAssignment) -> Result<TargetRule, AccessError> {
    let problem = format!("{role} uses no tokens: leave it out");
    if !request.targets.is_empty() {
        return invalid("targets", problem);
    }
    if request.keep_warm {
        return invalid("keep_warm", problem);
    }
    if request.max_token_lifetime.is_some() {
        return invalid("max_token_lifetime", problem);
    }
    if !request.limits.are_usual() {
        return invalid("limits", problem);
    }
    Ok(TargetRule::Only(vec![]))
}

/// A rate of nothing has no time at which to come again; who may not ask has no assignment.
fn checked(limits: CallerLimits) -> Result<CallerLimits, AccessError> {
    let named = [
        ("misses_per_second", limits.misses_per_second),
        ("miss_burst", limits.miss_burst),
        ("forced_refreshes_per_minute", limits.forced_refreshes_per_minute),
        ("max_waiting", limits.max_waiting),
    ];
    match named.iter().find(|(_, limit)| *limit == Some(0)) {
        Some((name, _)) => invalid("limits", format!("{name} must be at least 1")),
        None => Ok(limits),
    }
}

impl CreateAssignment {
    fn id_for(&self, uid: Uid) -> String {
        if self.id.is_empty() { format!("a-{uid}") } else { self.id.clone() }
    }
}

impl Access {
    /// Gives a member a role, in the broker's own name.
    pub async fn create_assignment(
        &self,
        request: CreateAssignment,
    ) -> Result<Arc<RoleAssignment>, AccessError> {
        self.create_assignment_if(request, |_| Ok(())).await
    }

    /// Gives a member a role, if that is permitted.
    pub async fn create_assignment_if(
        &self,
        request: CreateAssignment,
        permitted: impl FnOnce(&RoleAssignment) -> Result<(), AccessError> + Send,
    ) -> Result<Arc<RoleAssignment>, AccessError> {
        let shared = &self.shared;
        let _held = shared.change.lock().await;
        let uid = shared.new_uid();
        let wanted = CreateAssignment { request_id: String::new(), ..request.clone() };
        let fingerprint = format!("assign:{wanted:?}");
        let recorded = match self.repeated(&request.request_id, fingerprint, uid).await? {
            Ok(recorded) => recorded,
            Err(made) => {
                let name = AssignmentName::from_id(&request.id_for(made)).ok();
                let found = name.and_then(|name| self.snapshot().assignment(&name).cloned());
                return found
                    .filter(|assignment| assignment.uid == made)
                    .ok_or_else(|| AccessError::NotFound(format!("the role assignment with uid {made}")));
            }
        };
        let assignment = Arc::new(self.parse(&request, uid)?);
        permitted(&assignment)?;
        let put = AccessWrite::Put(Box::new(assignment.as_ref().clone()));
        shared.store.commit([put].into_iter().chain(recorded).collect()).await?;
        let mut snapshot = self.snapshot().as_ref().clone();
        snapshot.put(Arc::clone(&assignment));
        shared.publish(snapshot);
        Ok(assignment)
    }

    /// Takes an assignment back; the next request sees it. None: a repeated request, it was gone already.
    pub async fn delete_assignment(
        &self,
        name: &AssignmentName,
        request_id: &str,
    ) -> Result<Option<Arc<RoleAssignment>>, AccessError> {
        self.delete_assignment_if(name, request_id, |_| Ok(())).await
    }

    /// Takes an assignment back, if that is permitted. None: a repeated request, it was gone already.
    pub async fn delete_assignment_if(
        &self,
        name: &AssignmentName,
        request_id: &str,
        permitted: impl FnOnce(&RoleAssignment) -> Result<(), AccessError> + Send,
    ) -> Result<Option<Arc<RoleAssignment>>, AccessError> {
        let shared = &self.shared;
        let _held = shared.change.lock().await;
        let found = self.snapshot().assignment(name).cloned();
        let uid = found.as_ref().map_or_else(|| shared.new_uid(), |assignment| assignment.uid);
        let recorded = match self.repeated(request_id, format!("unassign:{name}"), uid).await? {
            Ok(recorded) => recorded,
            Err(_) => return Ok(None),
        };
        let assignment = found.ok_or_else(|| AccessError::NotFound(name.to_string()))?;
        permitted(&assignment)?;
        shared
            .store
            .commit([AccessWrite::Remove(assignment.uid)].into_iter().chain(recorded).collect())
            .await?;
        let mut snapshot = self.snapshot().as_ref().clone();
        snapshot.remove(name);
        shared.publish(snapshot);
        Ok(Some(assignment))
    }

    /// Removes what was assigned to a workload, or on an identity, that is gone.
    pub async fn forget(&self, gone: Uid) -> Result<(), AccessError> {
        let shared = &self.shared;
        let _held = shared.change.lock().await;
        let mut snapshot = self.snapshot().as_ref().clone();
        let removed: Vec<_> = snapshot.binding(gone).map(|a| (a.uid, a.name.clone())).collect();
        if removed.is_empty() {
            return Ok(());
        }
        shared.store.commit(removed.iter().map(|(uid, _)| AccessWrite::Remove(*uid)).collect()).await?;
        removed.iter().for_each(|(_, name)| drop(snapshot.remove(name)));
        shared.publish(snapshot);
        Ok(())
    }

    /// What is to be remembered of a new request; the uid that a repeated one made or removed.
    async fn repeated(
        &self,
        request_id: &str,
        fingerprint: String,
        resource: Uid,
    ) -> Result<Result<Option<AccessWrite>, Uid>, AccessError> {
        if request_id.is_empty() {
            return Ok(Ok(None));
        }
        check_request_id(request_id)?;
        match self.shared.store.recorded(request_id.to_owned()).await? {
            Some(recorded) if recorded.fingerprint == fingerprint => Ok(Err(recorded.resource)),
            Some(_) => Err(AccessError::RequestIdReused(request_id.to_owned())),
            None => {
                let at = self.shared.clock.now().wall;
                Ok(Ok(Some(AccessWrite::Recorded(AccessRecorded {
                    request_id: request_id.to_owned(),
                    fingerprint,
                    resource,
                    at,
                    answer: None,
                }))))
            }
        }
    }

    fn parse(&self, request: &CreateAssignment, uid: Uid) -> Result<RoleAssignment, AccessError> {
        let name = AssignmentName::from_id(&request.id_for(uid))
            .or_else(|e| invalid("assignment_id", e.to_string()))?;
        if self.snapshot().assignment(&name).is_some() {
            return Err(AccessError::Exists(format!("{name} exists already")));
        }
        let role = match request.role.as_str() {
            "" => Role::TokenUser,
            text => text.parse().or_else(|e: RoleError| invalid("role", e.to_string()))?,
        };
        let (scope, identity) = self.scope(&request.identity)?;
        let targets = if role.is_administrative() {
            uses_no_tokens(role, request)?
        } else if scope == AssignmentScope::All {
            return invalid(
                "identity",
                "'*' is for roles of the admin plane; token-user needs an identity, or a dotted group such as identities/payments.*",
            );
        } else {
            self.targets(&request.targets, identity.as_deref())?
        };
        if request.keep_warm && (identity.is_none() || targets == TargetRule::Any) {
            return invalid(
                "keep_warm",
                "needs one identity and exact targets: tokens for everything cannot be kept warm",
            );
        }
        if request.max_token_lifetime.is_some_and(|most| most.is_zero()) {
            return invalid("max_token_lifetime", "must be more than nothing");
        }
        let now = self.shared.clock.now().wall;
        if let Some(at) = request.expires_at.filter(|at| *at <= now) {
            return invalid(
                "expire_time",
                format!("{} lies in the past: it is {}", at.rfc3339(), now.rfc3339()),
            );
        }
        Ok(RoleAssignment {
            uid,
            name,
            member: self.member(&request.member)?,
            role,
            scope,
            targets,
            keep_warm: request.keep_warm,
            expires_at: request.expires_at,
            max_token_lifetime: request.max_token_lifetime,
            limits: checked(request.limits)?,
            created_at: now,
        })
    }

    fn member(&self, text: &str) -> Result<Member, AccessError> {
        if text.starts_with("workloads/") {
            let name: WorkloadName =
                text.parse().or_else(|e: jeton_core::NameError| invalid("member", e.to_string()))?;
            let workload = self.shared.directory().workload_named(&name).map(|w| w.uid);
            return workload.map(Member::Workload).ok_or_else(|| AccessError::NotFound(text.to_owned()));
        }
        if text.ends_with('/') {
            return text
                .parse::<PrincipalPattern>()
                .map(Member::Pattern)
                .or_else(|e| invalid("member", e.to_string()));
        }
        text.parse::<Principal>().map(Member::Principal).or_else(|e| invalid("member", e.to_string()))
    }

    fn scope(&self, text: &str) -> Result<(AssignmentScope, Option<Arc<Identity>>), AccessError> {
        match text.parse().or_else(|e: ScopeError| invalid("identity", e.to_string()))? {
            ScopeName::All => Ok((AssignmentScope::All, None)),
            ScopeName::Group(prefix) => Ok((AssignmentScope::Group(prefix), None)),
            ScopeName::Identity(name) => {
                let identity = self.shared.directory().identity_named(&name).cloned();
                let identity = identity.ok_or_else(|| AccessError::NotFound(text.to_owned()))?;
                Ok((AssignmentScope::Identity(identity.uid), Some(identity)))
            }
        }
    }

    fn targets(&self, texts: &[String], identity: Option<&Identity>) -> Result<TargetRule, AccessError> {
        match texts {
            [] => {
                invalid("targets", "say for what: \"*\", or targets such as resource:https://vault.example")
            }
            [any] if any == "*" => Ok(TargetRule::Any),
            _ => texts
                .iter()
                .map(|text| self.target(text, identity))
                .collect::<Result<_, _>>()
                .map(TargetRule::Only),
        }
    }

    /// In one spelling, the one that requests are compared with. A group's authorities are many: there it must be written so.
    fn target(&self, text: &str, identity: Option<&Identity>) -> Result<Arc<str>, AccessError> {
        if text.len() > 2048 || !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            return invalid("targets", "at most 2048 visible ASCII characters each");
        }
        let Some(identity) = identity else {
            let canonical = Target::from_canonical(text).map(|_| text.into());
            return canonical.map_or_else(
                || {
                    let text = format!(
                        "{text:?} is not canonical; with a group of identities say resource:URI or scope:NAME"
                    );
                    invalid("targets", text)
                },
                Ok,
            );
        };
        let directory = self.shared.directory();
        let Some(authority) = directory.authority(identity.authority) else {
            return invalid("identity", "its authority is gone");
        };
        let named = Target::named(text, &authority.profile);
        named.map(|target| target.as_str().into()).or_else(|e| invalid("targets", e.to_string()))
    }
}
