//! What a caller of the admin plane may do: the pure decision on its role assignments.
//!
//! An administrator acts inside the scopes of its assignments, gives nothing to itself, and cannot give more than it has. The broker's own
//! user stands above that: it can read the process's memory, so rules for it would protect nothing; it still uses no tokens here.

use std::sync::Arc;

use crate::{
    AccessSnapshot, AssignmentScope, IdentityName, Member, Permission, Principal, PrincipalPattern,
    RoleAssignment, Subject, Uid, Wall, Workload, WorkloadName,
};

/// A caller of the admin plane, with the roles that it has at this moment.
#[derive(Debug, Clone)]
pub struct Administrator {
    principal: Principal,
    workload: Option<Arc<Workload>>,
    root: bool,
    held: Vec<Arc<RoleAssignment>>,
}

/// What an administrator acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object<'a> {
    /// Whatever it is: answers tell only of what the caller may see.
    Something,
    /// Everything.
    All,
    /// All identities and workloads whose ids begin with this dotted prefix.
    Group(&'a str),
    /// An identity; one that is not there has no uid.
    Identity(&'a IdentityName, Option<Uid>),
    /// A workload.
    Workload(&'a WorkloadName),
}

impl Administrator {
    /// A caller as the snapshot knows it. `root`: the broker's own user.
    pub fn new(
        principal: &Principal,
        workload: Option<&Arc<Workload>>,
        root: bool,
        assignments: &AccessSnapshot,
        now: Wall,
    ) -> Self {
        let subject = Subject { principal, workload: workload.map(|w| w.uid) };
        let held = assignments.administrative(subject).filter(|a| !a.expired(now)).cloned().collect();
        Self { principal: principal.clone(), workload: workload.cloned(), root, held }
    }

    /// Who it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether it is the broker's own user.
    pub fn is_root(&self) -> bool {
        self.root
    }

    /// Whether it may do this there.
    pub fn may(&self, permission: Permission, object: Object<'_>) -> bool {
        if self.root {
            return permission != Permission::UseTokens;
        }
        self.held.iter().any(|a| a.role.allows(permission) && a.scope.reaches(object))
    }

    /// Whether what the member gets is got by the caller: its principal, another one of its workload, all of them, or what the data plane
    /// may call one of them.
    pub fn is_among(&self, member: &Member) -> bool {
        let own = |principal: &Principal| may_be(principal, member);
        let by_workload = self.workload.as_ref().is_some_and(|workload| {
            *member == Member::Workload(workload.uid)
                || own(&Principal::of_secret(workload.uid))
                || workload.principals.iter().any(own)
        });
        !self.root && (by_workload || own(&self.principal))
    }
}

/// A local user has its uid here, and on the data plane the name of whichever rule fits the program that it starts, or `dev`'s.
fn may_be(principal: &Principal, member: &Member) -> bool {
    let peers = principal.peers();
    match member {
        Member::Principal(exact) => {
            let another =
                |peers: PrincipalPattern| peers.covers(exact) || *exact == Principal::loopback_dev();
            exact == principal || peers.is_some_and(another)
        }
        Member::Pattern(pattern) => {
            pattern.covers(principal) || peers.is_some_and(|peers| peers.overlaps(pattern))
        }
        Member::Workload(_) => false,
    }
}

impl AssignmentScope {
    /// Whether an administrator with this scope reaches this.
    pub fn reaches(&self, object: Object<'_>) -> bool {
        match (self, object) {
            (Self::All, _) | (_, Object::Something) => true,
            (Self::Group(prefix), Object::Group(other)) => other.starts_with(prefix.as_ref()),
            (Self::Group(prefix), Object::Identity(name, _)) => name.id().starts_with(prefix.as_ref()),
            (Self::Group(prefix), Object::Workload(name)) => name.id().starts_with(prefix.as_ref()),
            (Self::Identity(uid), Object::Identity(_, found)) => Some(*uid) == found,
            _ => false,
        }
    }
}
