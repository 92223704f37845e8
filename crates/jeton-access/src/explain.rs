//! Why something is allowed or denied, and the command that would change it.

use jeton_core::{
    AssignmentName, Decision, Denial, Directory, IdentityName, Principal, Subject, Target, TargetRequest,
    Wall,
};

use crate::Access;

/// An answer to "why?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The assignment that allows it.
    pub allowed_by: Option<AssignmentName>,
    /// In words.
    pub reason: String,
    /// The command that would allow it, if one would.
    pub remedy: Option<String>,
    /// Who asks.
    pub principal: Principal,
    /// For which identity.
    pub identity: String,
    /// For which target.
    pub target: String,
    /// When it was denied, for a denial that happened.
    pub denied_at: Option<Wall>,
}

impl Access {
    /// Explains a denial that happened, if it is remembered.
    pub fn explain_denial(&self, correlation_id: &str) -> Option<Explanation> {
        let denied = self.shared.denials.find(correlation_id)?;
        let member = self.member_text(&denied.principal);
        Some(Explanation {
            allowed_by: None,
            reason: in_words(&denied.denial, &denied.identity),
            remedy: remedy(&denied.denial, &member, &denied.identity, &denied.target),
            principal: denied.principal,
            identity: denied.identity,
            target: denied.target,
            denied_at: Some(denied.at),
        })
    }

    /// Explains a request that somebody might make. Changes nothing.
    pub fn explain(
        &self,
        principal: &Principal,
        identity: Option<&IdentityName>,
        request: &TargetRequest,
    ) -> Explanation {
        let directory = self.shared.directory();
        let (decision, name, target) = self.dry_run(&directory, principal, identity, request);
        let member = self.member_text(principal);
        let mut explanation = Explanation {
            allowed_by: None,
            reason: String::new(),
            remedy: None,
            principal: principal.clone(),
            identity: name.clone(),
            target: target.clone(),
            denied_at: None,
        };
        match decision {
            Ok(assignment) => {
                explanation.reason = format!("{assignment} allows it");
                explanation.allowed_by = Some(assignment);
            }
            Err(Unfit::Denied(denial)) => {
                explanation.reason = in_words(&denial, &name);
                explanation.remedy = remedy(&denial, &member, &name, &target);
            }
            Err(Unfit::Target(problem)) => explanation.reason = problem,
        }
        explanation
    }

    fn dry_run(
        &self,
        directory: &Directory,
        principal: &Principal,
        identity: Option<&IdentityName>,
        request: &TargetRequest,
    ) -> (Result<AssignmentName, Unfit>, String, String) {
        let asked = || request.scopes.iter().chain(&request.resources).cloned().collect::<Vec<_>>().join(" ");
        let workload = directory.workload_of(principal);
        let own = || workload.and_then(|w| w.system_identity).and_then(|uid| directory.identity(uid));
        let (found, missing) = match identity {
            Some(name) => (directory.identity_named(name), Denial::UnknownIdentity),
            None => (own(), Denial::NoSystemIdentity),
        };
        let name = identity
            .map_or_else(|| found.map_or_else(String::new, |i| i.name.to_string()), ToString::to_string);
        let Some((identity, authority)) = found.and_then(|i| Some((i, directory.authority(i.authority)?)))
        else {
            return (Err(Unfit::Denied(missing)), name, asked());
        };
        let target = match Target::resolve(request, &authority.profile) {
            Ok(target) => target,
            Err(error) => return (Err(Unfit::Target(error.to_string())), name, asked()),
        };
        let subject = Subject { principal, workload: workload.map(|w| w.uid) };
        let decision = match self.snapshot().decide(subject, identity, &target, self.shared.clock.now().wall)
        {
            Decision::Allow(_) if !identity.may_issue() => Err(Unfit::Denied(Denial::IdentityNotActive)),
            Decision::Allow(assignment) => Ok(assignment.name.clone()),
            Decision::Deny(denial) => Err(Unfit::Denied(denial)),
        };
        (decision, name, target.to_string())
    }

    /// Whom an assignment would name: the workload, if the principal has one.
    fn member_text(&self, principal: &Principal) -> String {
        let directory = self.shared.directory();
        directory.workload_of(principal).map_or_else(|| principal.to_string(), |w| w.name.to_string())
    }
}

enum Unfit {
    Denied(Denial),
    Target(String),
}

fn in_words(denial: &Denial, identity: &str) -> String {
    match denial {
        Denial::NoAssignment => format!("no role assignment lets this caller use {identity}"),
        Denial::TargetNotGranted { nearest } => format!("{nearest} lets this caller use {identity}, but not for this target"),
        Denial::Expired { assignment, at } => format!("{assignment} would allow it, but expired at Unix time {}", at.as_secs()),
        Denial::UnknownIdentity => format!("{identity} does not exist"),
        Denial::NoSystemIdentity => {
            "the request names no identity, and the caller's principal belongs to no workload with a system-assigned identity".into()
        }
        Denial::IdentityNotActive => format!("{identity} is not active: see `jeton identity get {identity}`"),
        _ => "denied".into(),
    }
}

fn remedy(denial: &Denial, member: &str, identity: &str, target: &str) -> Option<String> {
    let assign = || {
        Some(format!("jeton access assign --member '{member}' --identity '{identity}' --target '{target}'"))
    };
    match denial {
        Denial::NoAssignment | Denial::TargetNotGranted { .. } | Denial::Expired { .. } => assign(),
        Denial::IdentityNotActive => Some(format!("jeton identity enable {identity}")),
        Denial::NoSystemIdentity => {
            Some("jeton workload enable-system-identity NAME --authority AUTHORITY".into())
        }
        _ => None,
    }
}
