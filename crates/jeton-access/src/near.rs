//! Role assignments that almost allow something, and what each lacks. For explanations alone: nothing here is fast.

use jeton_core::{
    AccessSnapshot, AssignmentName, AssignmentScope, Directory, Identity, Member, Object, Permission,
    Principal, RoleAssignment, Subject, Target, TargetRule, Wall,
};

/// Most of them in one explanation.
const MOST: usize = 10;

/// A role assignment that would allow it, were something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// Which.
    pub assignment: AssignmentName,
    /// What is otherwise, in words.
    pub problem: String,
}

/// Everything that is looked at.
pub(crate) struct Surroundings<'a> {
    pub(crate) snapshot: &'a AccessSnapshot,
    pub(crate) directory: &'a Directory,
    pub(crate) subject: Subject<'a>,
    pub(crate) now: Wall,
}

impl Surroundings<'_> {
    /// Those that almost let the subject have a token. What lacks less comes first.
    pub(crate) fn of_token(&self, identity: &Identity, target: Option<&Target>) -> Vec<NearMiss> {
        let own = self.snapshot.using(self.subject).filter_map(|assignment| {
            let mut lacks = vec![];
            if !assignment.scope.covers(identity) {
                lacks.push(format!("is on {}", assignment.scope.shown(self.directory)));
            }
            if target.is_some_and(|target| !assignment.targets.covers(target)) {
                lacks.push(format!("is for {}", targets(&assignment.targets)));
            }
            lacks.extend(self.expiry(assignment));
            // What is on another identity and for other targets has nothing to do with it.
            (lacks.len() == 1 || (assignment.scope.covers(identity) && !lacks.is_empty()))
                .then(|| (lacks.len(), miss(assignment, &lacks)))
        });
        let roles = self.snapshot.administrative(self.subject).filter_map(|assignment| {
            let lack = format!("gives the role {}, which uses no tokens: token-user does", assignment.role);
            assignment.scope.covers(identity).then(|| (2, miss(assignment, &[lack])))
        });
        let others = self.snapshot.covering(identity).filter_map(|assignment| {
            let fits = target.is_none_or(|t| assignment.targets.covers(t)) && !assignment.expired(self.now);
            let (weight, lack) = self.other_member(&assignment.member).filter(|_| fits)?;
            Some((weight, miss(assignment, &[lack])))
        });
        nearest(own.chain(roles).chain(others))
    }

    /// Those that almost permit the subject to do something on the admin plane.
    pub(crate) fn of_permission(&self, permission: Permission, object: Object<'_>) -> Vec<NearMiss> {
        nearest(self.snapshot.administrative(self.subject).filter_map(|assignment| {
            let mut lacks = vec![];
            if !assignment.role.allows(permission) {
                lacks.push(format!("gives the role {}, which does not have {permission}", assignment.role));
            }
            if !assignment.scope.reaches(object) {
                lacks.push(format!("is on {}", assignment.scope.shown(self.directory)));
            }
            lacks.extend(self.expiry(assignment));
            (!lacks.is_empty()).then(|| (lacks.len(), miss(assignment, &lacks)))
        }))
    }

    fn expiry(&self, assignment: &RoleAssignment) -> Option<String> {
        assignment.expires_at.filter(|at| *at <= self.now).map(|at| format!("expired at {}", at.rfc3339()))
    }

    fn other_member(&self, member: &Member) -> Option<(usize, String)> {
        let principal = self.subject.principal;
        match member {
            Member::Principal(exact) if below(principal, exact) => Some((
                1,
                format!("is for the one principal {exact}; a pattern for all below it is written {exact}/"),
            )),
            Member::Workload(uid) if self.subject.workload != Some(*uid) => {
                let workload = self.directory.workload(*uid)?;
                Some((3, format!("is for {}, to which {principal} does not belong", workload.name)))
            }
            _ => None,
        }
    }
}

fn below(principal: &Principal, prefix: &Principal) -> bool {
    principal.as_str().strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('/'))
}

fn miss(assignment: &RoleAssignment, lacks: &[String]) -> NearMiss {
    NearMiss { assignment: assignment.name.clone(), problem: lacks.join(", and ") }
}

fn nearest(found: impl Iterator<Item = (usize, NearMiss)>) -> Vec<NearMiss> {
    let mut all: Vec<_> = found.collect();
    all.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.assignment.cmp(&y.assignment)));
    all.into_iter().take(MOST).map(|(_, miss)| miss).collect()
}

fn targets(rule: &TargetRule) -> String {
    match rule {
        TargetRule::Any => "every target".into(),
        TargetRule::Only(texts) => texts.join(" and for "),
    }
}

/// The narrowest scope in which something of this name lies, if it is not there: its group, or everything.
pub(crate) fn group_of(id: &str) -> String {
    let group = id.rsplit_once('.').map(|(group, _)| AssignmentScope::Group(format!("{group}.").into()));
    group.unwrap_or(AssignmentScope::All).shown(&Directory::default())
}
