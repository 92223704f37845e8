//! Calls on the admin plane: whether their callers may make them, and what they may change for whom.

use std::collections::BTreeSet;

use jeton_core::{
    Administrator, AssignmentName, AssignmentScope, Denial, Member, Object, Permission, Principal,
    RoleAssignment, Uid, Workload, WorkloadName,
};
use tokio::sync::MutexGuard;

use crate::{Access, AccessError, Denied};

/// One call on the admin plane, with what its caller may do at this moment.
#[derive(Debug, Clone)]
pub struct AdminCall {
    access: Access,
    administrator: Administrator,
    method: &'static str,
    permission: Permission,
    correlation_id: Option<String>,
}

/// A refusal, as the caller hears of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{reason}; an access administrator learns more with `jeton access explain --correlation {correlation_id}`"
)]
pub struct NotPermitted {
    /// What is missing.
    pub reason: String,
    /// For the operator.
    pub correlation_id: String,
}

impl Access {
    /// A call of a method that needs this permission. `root`: by the broker's own user.
    pub fn admin_call(
        &self,
        principal: &Principal,
        root: bool,
        method: &'static str,
        permission: Permission,
    ) -> AdminCall {
        let (directory, now) = (self.shared.directory(), self.shared.clock.now().wall);
        let workload = directory.workload_of(principal);
        let administrator = Administrator::new(principal, workload, root, &self.snapshot(), now);
        AdminCall { access: self.clone(), administrator, method, permission, correlation_id: None }
    }

    /// Held over the check and the change of who has what, role assignments and the principals of workloads: otherwise two changes, each
    /// of them allowed, could together give what neither may.
    pub async fn changing(&self) -> MutexGuard<'_, ()> {
        self.shared.changing.lock().await
    }
}

impl AdminCall {
    /// The same call, with the id under which it is known elsewhere; none: each refusal gets its own.
    pub fn under(self, correlation_id: Option<String>) -> Self {
        Self { correlation_id, ..self }
    }

    /// Who the caller is.
    pub fn principal(&self) -> &Principal {
        self.administrator.principal()
    }

    /// Whether the caller may do there what the method does.
    pub fn may(&self, object: Object<'_>) -> bool {
        self.administrator.may(self.permission, object)
    }

    /// Whether it has another permission there.
    pub fn has(&self, permission: Permission, object: Object<'_>) -> bool {
        self.administrator.may(permission, object)
    }

    /// The same as a duty; `shown`: the object in words, as the caller named it.
    pub fn must(&self, object: Object<'_>, shown: &str) -> Result<(), NotPermitted> {
        self.must_have(self.permission, object, shown)
    }

    /// The caller must have another permission there, too.
    pub fn must_have(
        &self,
        permission: Permission,
        object: Object<'_>,
        shown: &str,
    ) -> Result<(), NotPermitted> {
        if self.has(permission, object) {
            return Ok(());
        }
        Err(self.refused(Denial::NotPermitted(permission), shown))
    }

    /// Whether the caller may do with an assignment what the method does.
    pub fn may_on(&self, scope: &AssignmentScope) -> bool {
        self.has_on(self.permission, scope)
    }

    /// Whether the caller may make this assignment.
    pub fn may_make(&self, assignment: &RoleAssignment) -> Result<(), AccessError> {
        self.may_change(assignment)?;
        if self.is_among(&assignment.member) {
            return Err(self.refused(Denial::GivenToItself, &self.scope_text(&assignment.scope)).into());
        }
        Ok(())
    }

    /// The caller must see an assignment that it is to take back. To whom may not, one that is there looks like one that is not.
    pub fn must_see_assignment(&self, name: &AssignmentName) -> Result<(), NotPermitted> {
        let snapshot = self.access.snapshot();
        match snapshot.assignment(name) {
            Some(found) if self.may_on(&found.scope) => Ok(()),
            _ => self.must(Object::All, name.as_str()),
        }
    }

    /// And a workload that it is to give something. `member`: as it is written; what is no workload hides nothing.
    pub fn must_see_member(&self, member: &str) -> Result<(), NotPermitted> {
        match member.parse::<WorkloadName>() {
            Ok(name) => self.must_have(Permission::ReadWorkloads, Object::Workload(&name), member),
            Err(_) => Ok(()),
        }
    }

    /// Whether the caller may take this assignment back.
    pub fn may_take_back(&self, assignment: &RoleAssignment) -> Result<(), AccessError> {
        self.may_change(assignment)?;
        self.leaves_an_administrator(assignment)
    }

    /// Whether the caller may take a principal into a workload, a new one or this: from then on it is the workload, with its identity for
    /// whatever names none. An administrator of a part takes nobody who has something outside of it.
    pub fn may_claim(&self, principal: &Principal, into: Option<Uid>) -> Result<(), NotPermitted> {
        let directory = self.access.shared.directory();
        let other = directory.workload_of(principal).filter(|it| Some(it.uid) != into);
        let in_sight = other.is_none_or(|it| self.has(Permission::ReadWorkloads, Object::Workload(&it.name)));
        let snapshot = self.access.snapshot();
        let mut own = snapshot.of_member(Member::Principal(principal.clone()));
        if in_sight && own.all(|it| self.has_on(Permission::ChangeAssignments, &it.scope)) {
            return Ok(());
        }
        self.must(
            Object::All,
            &format!("'*', because {principal} has something outside of this caller's part"),
        )
    }

    /// Whether the caller may give a workload these principals. What the workload has they get, and who leaves it loses.
    pub fn may_change_members(
        &self,
        workload: &Workload,
        principals: &[Principal],
    ) -> Result<(), AccessError> {
        let (before, after) = (workload.principals.iter(), principals.iter());
        let (before, after): (BTreeSet<_>, BTreeSet<_>) = (before.collect(), after.collect());
        if before == after {
            return Ok(());
        }
        after.difference(&before).try_for_each(|added| self.may_claim(added, Some(workload.uid)))?;
        let snapshot = self.access.snapshot();
        for assignment in snapshot.of_member(Member::Workload(workload.uid)) {
            self.may_change(assignment)?;
            let mut added = after.difference(&before).map(|p| Member::Principal((**p).clone()));
            if added.any(|member| self.administrator.is_among(&member)) {
                return Err(self.refused(Denial::GivenToItself, workload.name.as_str()).into());
            }
            if after.is_empty() {
                self.leaves_an_administrator(assignment)?;
            }
        }
        Ok(())
    }

    /// Whether the caller may shut out whoever shows a secret of a workload: it takes away all that the workload has.
    pub fn may_revoke_secret(&self, workload: &Workload) -> Result<(), AccessError> {
        let snapshot = self.access.snapshot();
        snapshot.of_member(Member::Workload(workload.uid)).try_for_each(|it| self.may_change(it))
    }

    /// Whether the caller may remove a workload with all that it has.
    pub fn may_remove(&self, workload: &Workload) -> Result<(), AccessError> {
        let snapshot = self.access.snapshot();
        for assignment in snapshot.of_member(Member::Workload(workload.uid)) {
            self.may_take_back(assignment)?;
        }
        let directory = self.access.shared.directory();
        if let Some(identity) = workload.system_identity.and_then(|uid| directory.identity(uid)) {
            let object = Object::Identity(&identity.name, Some(identity.uid));
            self.must_have(Permission::ChangeIdentities, object, identity.name.as_str())?;
        }
        Ok(())
    }

    /// Whether the caller may see a secret of a workload: with it, it would be the workload.
    pub fn may_see_secret(&self, workload: &WorkloadName) -> Result<(), NotPermitted> {
        if self.administrator.is_root() {
            return Ok(());
        }
        Err(self.refused(Denial::SecretNotShown, workload.as_str()))
    }

    /// Whether the caller may say which file the broker seals with.
    pub fn may_rotate_sealing_key(&self) -> Result<(), NotPermitted> {
        if self.administrator.is_root() {
            return Ok(());
        }
        Err(self.refused(Denial::SealingNotGiven, "*"))
    }

    /// A workload's principals are those that it has now: the caller may be one of them under another name.
    fn is_among(&self, member: &Member) -> bool {
        let directory = self.access.shared.directory();
        let workload = if let Member::Workload(uid) = member { directory.workload(*uid) } else { None };
        let mut members = workload.into_iter().flat_map(|it| &it.principals).cloned().map(Member::Principal);
        self.administrator.is_among(member) || members.any(|it| self.administrator.is_among(&it))
    }

    fn may_change(&self, assignment: &RoleAssignment) -> Result<(), AccessError> {
        let shown = self.scope_text(&assignment.scope);
        if !self.has_on(Permission::ChangeAssignments, &assignment.scope) {
            return Err(self.refused(Denial::NotPermitted(Permission::ChangeAssignments), &shown).into());
        }
        let above = self.has(Permission::ChangeAssignments, Object::All);
        if assignment.role.is_given_from_above() && !above {
            return Err(self.refused(Denial::RoleNotGiven(assignment.role), &shown).into());
        }
        Ok(())
    }

    /// The broker's own user may take back the last one; nobody else does it by mistake.
    fn leaves_an_administrator(&self, assignment: &RoleAssignment) -> Result<(), AccessError> {
        let (snapshot, now) = (self.access.snapshot(), self.access.shared.clock.now().wall);
        if self.administrator.is_root() || !snapshot.is_last_administrator(assignment, now) {
            return Ok(());
        }
        Err(AccessError::Precondition(format!(
            "{} makes the last access administrator of everything: make another one first",
            assignment.name
        )))
    }

    fn has_on(&self, permission: Permission, scope: &AssignmentScope) -> bool {
        match scope {
            AssignmentScope::All => self.has(permission, Object::All),
            AssignmentScope::Group(prefix) => self.has(permission, Object::Group(prefix)),
            AssignmentScope::Identity(uid) => {
                let directory = self.access.shared.directory();
                let object = directory.identity(*uid).map(|i| Object::Identity(&i.name, Some(i.uid)));
                self.has(permission, object.unwrap_or(Object::All))
            }
        }
    }

    fn scope_text(&self, scope: &AssignmentScope) -> String {
        scope.shown(&self.access.shared.directory())
    }

    fn refused(&self, denial: Denial, on: &str) -> NotPermitted {
        let shared = &self.access.shared;
        let reason = match denial {
            Denial::NotPermitted(permission) => {
                format!(
                    "{} needs {permission} on {on}, and no role of this caller gives it there",
                    self.method
                )
            }
            Denial::RoleNotGiven(role) => {
                format!("only an access administrator of everything ('*') gives or takes back {role}")
            }
            Denial::SecretNotShown => {
                format!("{on}: no role shows a workload's secret; the broker's own user rotates it")
            }
            Denial::SealingNotGiven => "no role rotates the sealing key; the broker's own user does".into(),
            _ => "an administrator gives itself nothing: another one must".into(),
        };
        let denied = Denied {
            principal: self.administrator.principal().clone(),
            method: Some(self.method),
            identity: on.chars().take(100).collect(),
            target: String::new(),
            denial,
            at: shared.clock.now().wall,
        };
        let own = || shared.new_uid().to_string();
        let correlation_id = self.correlation_id.clone().unwrap_or_else(own);
        shared.denials.remember(correlation_id.clone(), denied);
        NotPermitted { reason, correlation_id }
    }
}
