//! Why something is allowed or denied, and the commands that would change it.

use jeton_core::{
    AssignmentName, Decision, Denial, Identity, IdentityName, IdentityState, Object, Permission, Principal,
    Role, RoleAssignment, ScopeName, Subject, Target, TargetRequest, Wall, WorkloadName,
};

use crate::{
    Access, Denied, NearMiss,
    near::{Surroundings, group_of},
};

/// An answer to "why?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The assignment that allows it.
    pub allowed_by: Option<AssignmentName>,
    /// In words.
    pub reason: String,
    /// Assignments that almost allow it; the nearest first.
    pub near_misses: Vec<NearMiss>,
    /// The commands that would allow it, in this order; none if there are none.
    pub remedies: Vec<String>,
    /// Who asks.
    pub principal: Principal,
    /// What was called on the admin plane; empty: a token was asked for.
    pub method: String,
    /// For which identity; on the admin plane, on what.
    pub identity: String,
    /// For which target.
    pub target: String,
    /// When it was denied, for a denial that happened.
    pub denied_at: Option<Wall>,
}

impl Access {
    /// Explains a denial that happened, if it is remembered: the reason is that of its time, and the rest is what is so now.
    pub fn explain_denial(&self, correlation_id: &str) -> Option<Explanation> {
        let denied = self.shared.denials.find(correlation_id)?;
        let now = match denied.method {
            Some(method) => self.explain_admin(&denied, method),
            None => {
                let asked = || TargetRequest {
                    scopes: denied.target.split_whitespace().map(str::to_owned).collect(),
                    resources: vec![],
                };
                let request = TargetRequest::prefixed(&denied.target).unwrap_or_else(asked);
                match denied.identity.as_str() {
                    "" => self.explain(&denied.principal, None, &request),
                    name => match name.parse() {
                        Ok(name) => self.explain(&denied.principal, Some(&name), &request),
                        // Named by what no identity is called: there is nothing to look at.
                        Err(_) => Explanation::new(&denied.principal, name, denied.target.clone()),
                    },
                }
            }
        };
        let reason = match &now.allowed_by {
            Some(by) => format!("{}; meanwhile {by} allows it", in_words(&denied.denial, &denied.identity)),
            None => in_words(&denied.denial, &denied.identity),
        };
        Some(Explanation {
            reason,
            denied_at: Some(denied.at),
            identity: denied.identity,
            target: denied.target,
            ..now
        })
    }

    /// Explains a request for a token that somebody might make. Changes nothing.
    pub fn explain(
        &self,
        principal: &Principal,
        identity: Option<&IdentityName>,
        request: &TargetRequest,
    ) -> Explanation {
        let (directory, snapshot, now) =
            (self.shared.directory(), self.snapshot(), self.shared.clock.now().wall);
        let workload = directory.workload_of(principal);
        let own = || workload.and_then(|w| w.system_identity).and_then(|uid| directory.identity(uid));
        let (found, missing) = match identity {
            Some(name) => (directory.identity_named(name), Denial::UnknownIdentity),
            None => (own(), Denial::NoSystemIdentity),
        };
        let asked = request.scopes.iter().chain(&request.resources).cloned().collect::<Vec<_>>().join(" ");
        let name = identity.map_or_else(|| found.map(|i| i.name.to_string()), |n| Some(n.to_string()));
        let name = name.unwrap_or_default();
        let mut explanation = Explanation::new(principal, &name, asked);
        let Some((identity, authority)) = found.and_then(|i| Some((i, directory.authority(i.authority)?)))
        else {
            explanation.reason = in_words(&missing, &name);
            return explanation;
        };
        let subject = Subject { principal, workload: workload.map(|w| w.uid) };
        let around = Surroundings { snapshot: &snapshot, directory: &directory, subject, now };
        let target = match Target::resolve(request, &authority.profile) {
            Ok(target) => target,
            Err(error) => {
                explanation.reason = error.to_string();
                explanation.near_misses = around.of_token(identity, None);
                return explanation;
            }
        };
        explanation.target = target.to_string();
        let decision = snapshot.decide(subject, identity, &target, now);
        if let Decision::Allow(assignment) = &decision
            && identity.may_issue()
        {
            explanation.reason = format!("{} allows it", assignment.name);
            if let Some(most) = assignment.max_token_lifetime {
                explanation.reason += &format!(", as a token that lives at most {} s", most.as_secs());
            }
            explanation.allowed_by = Some(assignment.name.clone());
            return explanation;
        }
        explanation.reason = match &decision {
            Decision::Allow(_) => not_active(identity),
            Decision::Deny(denial) if identity.may_issue() => in_words(denial, &name),
            Decision::Deny(denial) => format!("{}, and {}", in_words(denial, &name), not_active(identity)),
        };
        if let Decision::Deny(_) = decision {
            let (member, to) = (quoted(&self.member_text(principal)), quoted(&explanation.target));
            let command =
                format!("jeton access assign --member {member} --identity {} --target {to}", quoted(&name));
            explanation.remedies.push(command);
            explanation.near_misses = around.of_token(identity, Some(&target));
        }
        if matches!(identity.state, IdentityState::Disabled | IdentityState::Failed) {
            explanation.remedies.push(format!("jeton identity enable {name}"));
        }
        explanation
    }

    fn explain_admin(&self, denied: &Denied, method: &'static str) -> Explanation {
        let (directory, snapshot, now) =
            (self.shared.directory(), self.snapshot(), self.shared.clock.now().wall);
        let mut explanation = Explanation::new(&denied.principal, &denied.identity, String::new());
        explanation.method = method.into();
        let scope: Option<ScopeName> = denied.identity.parse().ok();
        let workload: Option<WorkloadName> = denied.identity.parse().ok();
        let found = match &scope {
            Some(ScopeName::Identity(name)) => directory.identity_named(name).map(AsRef::as_ref),
            _ => None,
        };
        let (object, reach) = match (&scope, &workload) {
            (Some(scope @ ScopeName::Identity(name)), _) if found.is_none() => {
                (scope.object(None), group_of(name.id()))
            }
            (Some(scope), _) => (scope.object(found), scope.to_string()),
            (None, Some(name)) => (Object::Workload(name), group_of(name.id())),
            (None, None) => (Object::All, "*".into()),
        };
        let (permission, role, object, reach) = match denied.denial {
            Denial::NotPermitted(permission) => (permission, Role::least_with(permission), object, reach),
            Denial::RoleNotGiven(_) => {
                (Permission::ChangeAssignments, Role::AccessAdministrator, Object::All, "*".into())
            }
            _ => return explanation,
        };
        let workload = directory.workload_of(&denied.principal).map(|w| w.uid);
        let subject = Subject { principal: &denied.principal, workload };
        let permits =
            |a: &RoleAssignment| a.role.allows(permission) && a.scope.reaches(object) && !a.expired(now);
        if let Some(assignment) = snapshot.administrative(subject).find(|a| permits(a)) {
            explanation.allowed_by = Some(assignment.name.clone());
            return explanation;
        }
        let around = Surroundings { snapshot: &snapshot, directory: &directory, subject, now };
        explanation.near_misses = around.of_permission(permission, object);
        let (member, reach) = (quoted(&self.member_text(&denied.principal)), quoted(&reach));
        explanation
            .remedies
            .push(format!("jeton access assign --member {member} --role {role} --identity {reach}"));
        explanation
    }

    /// Whom an assignment would name: the workload, if the principal has one.
    fn member_text(&self, principal: &Principal) -> String {
        let directory = self.shared.directory();
        directory.workload_of(principal).map_or_else(|| principal.to_string(), |w| w.name.to_string())
    }
}

impl Explanation {
    fn new(principal: &Principal, identity: &str, target: String) -> Self {
        Self {
            allowed_by: None,
            reason: String::new(),
            near_misses: vec![],
            remedies: vec![],
            principal: principal.clone(),
            method: String::new(),
            identity: identity.to_owned(),
            target,
            denied_at: None,
        }
    }
}

fn not_active(identity: &Identity) -> String {
    let name = &identity.name;
    match identity.state {
        IdentityState::Provisioning => {
            format!("{name} is still being provisioned: see `jeton identity get {name}`")
        }
        IdentityState::Failed => format!("{name} failed to be provisioned: see `jeton identity get {name}`"),
        IdentityState::Disabled => format!("{name} is disabled"),
        IdentityState::Deleting => format!("{name} is being deleted"),
        IdentityState::Active => format!("{name} has no credential in use: see `jeton identity get {name}`"),
    }
}

fn in_words(denial: &Denial, identity: &str) -> String {
    match denial {
        Denial::NoAssignment => format!("no role assignment lets this caller use {identity}"),
        Denial::TargetNotGranted { nearest } => format!("{nearest} lets this caller use {identity}, but not for this target"),
        Denial::Expired { assignment, at } => format!("{assignment} would allow it, but expired at {}", at.rfc3339()),
        Denial::UnknownIdentity => format!("{identity} does not exist: `jeton identity list` shows what does"),
        Denial::NoSystemIdentity => {
            "the request names no identity, and the caller's principal belongs to no workload with a system-assigned identity: name one, or see `jeton workload enable-system-identity --help`".into()
        }
        Denial::IdentityNotActive => format!("{identity} was not active"),
        Denial::NotPermitted(permission) => format!("no role of this caller gives it {permission} on {identity}"),
        Denial::RoleNotGiven(role) => format!("only an access administrator of everything ('*') gives or takes back {role}"),
        Denial::GivenToItself => "an administrator gives itself nothing: another one must, or the broker's own user".into(),
        Denial::SecretNotShown => "no role shows a workload's secret, which its holder could get tokens with: the broker's own user rotates it".into(),
        Denial::SealingNotGiven => "no role rotates the sealing key: the broker's own user does".into(),
        _ => "denied".into(),
    }
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
