//! All role assignments, indexed.
//!
//! An assignment that lets somebody use tokens is found by member and by identity (or dotted group), so a decision costs a few look-ups
//! however many assignments there are.

use std::{ops::Bound, sync::Arc};

use super::{AssignmentScope, Decision, Denial, Member, RoleAssignment, Subject, bucket::Bucket};
use crate::{AssignmentName, Identity, Role, Target, Uid, Wall};

/// All role assignments, indexed for decisions. Replaced whole on change; the index shares structure.
#[derive(Clone, Debug, Default)]
pub struct AccessSnapshot {
    token_users: imbl::HashMap<(Member, AssignmentScope), Bucket>,
    by_name: imbl::OrdMap<AssignmentName, Arc<RoleAssignment>>,
    /// And by the assignment's uid, so that each has a place of its own.
    by_scope: imbl::OrdMap<(AssignmentScope, Uid), Arc<RoleAssignment>>,
    by_member: imbl::OrdMap<(Member, Role, Uid), Arc<RoleAssignment>>,
}

impl AccessSnapshot {
    /// Decides on the snapshot alone. Of several assignments that allow it, the one with the longest token life counts: what one gives,
    /// another does not take.
    pub fn decide(&self, subject: Subject<'_>, identity: &Identity, target: &Target, now: Wall) -> Decision {
        let (mut denial, mut allowed) = (Denial::NoAssignment, None::<&Arc<RoleAssignment>>);
        for assignment in self.reaching(subject, identity) {
            match judge(assignment, target, now) {
                None if assignment.max_token_lifetime.is_none() => {
                    return Decision::Allow(Arc::clone(assignment));
                }
                None => {
                    allowed = allowed.into_iter().chain([assignment]).max_by_key(|a| a.max_token_lifetime)
                }
                // An expired match says more than a miss of the target, which says more than nothing.
                Some(found @ Denial::Expired { .. }) => denial = found,
                Some(found) if denial == Denial::NoAssignment => denial = found,
                Some(_) => {}
            }
        }
        allowed.map_or(Decision::Deny(denial), |assignment| Decision::Allow(Arc::clone(assignment)))
    }

    /// Every assignment that lets the subject use the identity, whatever its targets and expiry.
    pub fn reaching<'a>(
        &'a self,
        subject: Subject<'_>,
        identity: &'a Identity,
    ) -> impl Iterator<Item = &'a Arc<RoleAssignment>> {
        members(subject)
            .flat_map(move |member| scopes(identity).map(move |scope| (member.clone(), scope)))
            .filter_map(|key| self.token_users.get(&key))
            .flat_map(|bucket| bucket.iter())
    }

    /// Every assignment of the subject with a role of the admin plane, whatever its scope and expiry.
    pub fn administrative<'a>(
        &'a self,
        subject: Subject<'_>,
    ) -> impl Iterator<Item = &'a Arc<RoleAssignment>> {
        // Roles are ordered, and the one of the data plane is the first.
        members(subject).flat_map(|member| self.of_member_from(member, Role::IdentityOperator))
    }

    /// Every assignment by which the subject may use anything.
    pub fn using<'a>(&'a self, subject: Subject<'_>) -> impl Iterator<Item = &'a Arc<RoleAssignment>> {
        let all = members(subject).flat_map(|member| self.of_member(member));
        all.filter(|assignment| assignment.role == Role::TokenUser)
    }

    /// Every assignment with this member, as it stands in it.
    pub fn of_member(&self, member: Member) -> impl Iterator<Item = &Arc<RoleAssignment>> + use<'_> {
        self.of_member_from(member, Role::TokenUser)
    }

    fn of_member_from(
        &self,
        member: Member,
        first: Role,
    ) -> impl Iterator<Item = &Arc<RoleAssignment>> + use<'_> {
        let all = self.by_member.range((member.clone(), first, Uid::LEAST)..);
        all.take_while(move |((of, ..), _)| *of == member).map(|(_, assignment)| assignment)
    }

    /// Every assignment that lets somebody use the identity.
    pub fn covering<'a>(&'a self, identity: &'a Identity) -> impl Iterator<Item = &'a Arc<RoleAssignment>> {
        scopes(identity).flat_map(|scope| self.on(scope)).filter(|a| a.role == Role::TokenUser)
    }

    /// What binds this very identity or workload, and says nothing any more when it is gone.
    pub fn binding(&self, uid: Uid) -> impl Iterator<Item = &Arc<RoleAssignment>> {
        self.on(AssignmentScope::Identity(uid)).chain(self.of_member(Member::Workload(uid)))
    }

    /// Every assignment with this scope, as it stands in it.
    pub fn on(&self, scope: AssignmentScope) -> impl Iterator<Item = &Arc<RoleAssignment>> {
        let all = self.by_scope.range((scope.clone(), Uid::LEAST)..);
        all.take_while(move |((of, _), _)| *of == scope).map(|(_, assignment)| assignment)
    }

    /// By name.
    pub fn assignment(&self, name: &AssignmentName) -> Option<&Arc<RoleAssignment>> {
        self.by_name.get(name)
    }

    /// All, in the order of their names.
    pub fn assignments(&self) -> impl Iterator<Item = &Arc<RoleAssignment>> {
        self.by_name.values()
    }

    /// All, in the order of their names, from the first name after `after`.
    pub fn assignments_after(
        &self,
        after: Option<&AssignmentName>,
    ) -> impl Iterator<Item = &Arc<RoleAssignment>> + use<'_> {
        let start = after.cloned().map_or(Bound::Unbounded, Bound::Excluded);
        self.by_name.range((start, Bound::Unbounded)).map(|(_, assignment)| assignment)
    }

    /// Whether without this one nobody would administer the access to everything.
    pub fn is_last_administrator(&self, assignment: &RoleAssignment, now: Wall) -> bool {
        let counts = |a: &RoleAssignment| a.role == Role::AccessAdministrator && !a.expired(now);
        let mut others = self.on(AssignmentScope::All).filter(|a| a.uid != assignment.uid && counts(a));
        assignment.scope == AssignmentScope::All && counts(assignment) && others.next().is_none()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether nobody may do anything.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Adds or replaces.
    pub fn put(&mut self, assignment: Arc<RoleAssignment>) {
        self.remove(&assignment.name);
        if assignment.role == Role::TokenUser {
            let key = (assignment.member.clone(), assignment.scope.clone());
            let grown = match self.token_users.remove(&key) {
                Some(bucket) => bucket.with(Arc::clone(&assignment)),
                None => Bucket::One(Arc::clone(&assignment)),
            };
            self.token_users.insert(key, grown);
        }
        self.by_scope.insert((assignment.scope.clone(), assignment.uid), Arc::clone(&assignment));
        self.by_member.insert(by_member(&assignment), Arc::clone(&assignment));
        self.by_name.insert(assignment.name.clone(), assignment);
    }

    /// Removes, if it is there.
    pub fn remove(&mut self, name: &AssignmentName) -> Option<Arc<RoleAssignment>> {
        let assignment = self.by_name.remove(name)?;
        self.by_scope.remove(&(assignment.scope.clone(), assignment.uid));
        self.by_member.remove(&by_member(&assignment));
        let key = (assignment.member.clone(), assignment.scope.clone());
        if assignment.role == Role::TokenUser
            && let Some(left) =
                self.token_users.remove(&key).and_then(|bucket| bucket.without(assignment.uid))
        {
            self.token_users.insert(key, left);
        }
        Some(assignment)
    }
}

fn by_member(assignment: &RoleAssignment) -> (Member, Role, Uid) {
    (assignment.member.clone(), assignment.role, assignment.uid)
}

fn judge(assignment: &RoleAssignment, target: &Target, now: Wall) -> Option<Denial> {
    if !assignment.targets.covers(target) {
        return Some(Denial::TargetNotGranted { nearest: assignment.name.clone() });
    }
    let at = assignment.expires_at.filter(|at| *at <= now)?;
    Some(Denial::Expired { assignment: assignment.name.clone(), at })
}

fn members(subject: Subject<'_>) -> impl Iterator<Item = Member> {
    let workload = subject.workload.map(Member::Workload);
    let exact = Member::Principal(subject.principal.clone());
    let patterns =
        prefixes(subject.principal.as_str(), '/').filter_map(|p| p.parse().ok()).map(Member::Pattern);
    workload.into_iter().chain([exact]).chain(patterns)
}

fn scopes(identity: &Identity) -> impl Iterator<Item = AssignmentScope> + '_ {
    let groups = prefixes(identity.name.id(), '.').map(|p| AssignmentScope::Group(p.into()));
    [AssignmentScope::Identity(identity.uid)].into_iter().chain(groups)
}

fn prefixes(text: &str, end: char) -> impl Iterator<Item = &str> {
    text.match_indices(end).map(|(at, _)| &text[..=at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        IdentityKind, IdentityState, Principal, TargetRequest, TargetRule, profile::tests::oidc_profile,
    };

    fn uid(n: u8) -> Uid {
        Uid::new(Wall::from_secs(1), [n; 10])
    }

    fn identity(n: u8, name: &str) -> Identity {
        Identity {
            uid: uid(n),
            name: name.parse().unwrap(),
            display_name: String::new(),
            labels: Default::default(),
            kind: IdentityKind::Created,
            workload: None,
            authority: uid(99),
            state: IdentityState::Active,
            client_id: None,
            registration: None,
            credentials: vec![],
            operation: None,
            created_at: Wall::default(),
            updated_at: Wall::default(),
            version: 1,
        }
    }

    fn assignment(n: u8, member: Member, scope: AssignmentScope, targets: TargetRule) -> Arc<RoleAssignment> {
        Arc::new(RoleAssignment {
            uid: uid(n),
            name: AssignmentName::from_id(&format!("a{n}")).unwrap(),
            member,
            role: Role::TokenUser,
            scope,
            targets,
            keep_warm: false,
            expires_at: None,
            max_token_lifetime: None,
            limits: Default::default(),
            created_at: Wall::default(),
        })
    }

    fn target(scope: &str) -> Target {
        let request = TargetRequest { scopes: vec![scope.into()], resources: vec![] };
        Target::resolve(&request, &oidc_profile()).unwrap()
    }

    fn subject(principal: &Principal) -> Subject<'_> {
        Subject { principal, workload: None }
    }

    const NOW: Wall = Wall::from_secs(1_000);

    #[test]
    fn an_empty_snapshot_denies() {
        let who: Principal = "loopback://dev".parse().unwrap();
        let decision =
            AccessSnapshot::default().decide(subject(&who), &identity(1, "identities/a"), &target("x"), NOW);
        assert_eq!(decision, Decision::Deny(Denial::NoAssignment));
    }

    #[test]
    fn members_reach_an_identity_by_workload_principal_and_pattern() {
        let who: Principal = "spiffe://prod/payments/api".parse().unwrap();
        let by = |member| {
            let mut snapshot = AccessSnapshot::default();
            snapshot.put(assignment(1, member, AssignmentScope::Identity(uid(7)), TargetRule::Any));
            let subject = Subject { principal: &who, workload: Some(uid(50)) };
            matches!(
                snapshot.decide(subject, &identity(7, "identities/a"), &target("x"), NOW),
                Decision::Allow(_)
            )
        };
        assert!(by(Member::Workload(uid(50))));
        assert!(by(Member::Principal(who.clone())));
        assert!(by(Member::Pattern("spiffe://prod/payments/".parse().unwrap())));
        assert!(by(Member::Pattern("spiffe://prod/".parse().unwrap())));
        assert!(!by(Member::Pattern("spiffe://prod/pay/".parse().unwrap())));
        assert!(!by(Member::Workload(uid(51))));
    }

    #[test]
    fn a_group_ends_at_a_dot() {
        let who: Principal = "loopback://dev".parse().unwrap();
        let mut snapshot = AccessSnapshot::default();
        let group = AssignmentScope::Group("payments.".into());
        snapshot.put(assignment(1, Member::Principal(who.clone()), group, TargetRule::Any));
        let allows = |name| {
            matches!(
                snapshot.decide(subject(&who), &identity(3, name), &target("x"), NOW),
                Decision::Allow(_)
            )
        };
        assert!(allows("identities/payments.refunds"));
        assert!(allows("identities/payments.eu.refunds"));
        assert!(!allows("identities/payments"));
        assert!(!allows("identities/payments-evil"));
    }

    #[test]
    fn a_name_made_again_inherits_nothing() {
        let who: Principal = "loopback://dev".parse().unwrap();
        let mut snapshot = AccessSnapshot::default();
        snapshot.put(assignment(
            1,
            Member::Principal(who.clone()),
            AssignmentScope::Identity(uid(1)),
            TargetRule::Any,
        ));
        let again = identity(2, "identities/a");
        assert_eq!(
            snapshot.decide(subject(&who), &again, &target("x"), NOW),
            Decision::Deny(Denial::NoAssignment)
        );
    }

    #[test]
    fn targets_and_expiry_limit_an_assignment_and_the_denial_says_which() {
        let who: Principal = "loopback://dev".parse().unwrap();
        let it = identity(1, "identities/a");
        let rule = TargetRule::Only(vec!["scope:x".into()]);
        let made = assignment(1, Member::Principal(who.clone()), AssignmentScope::Identity(it.uid), rule);
        let ended = Arc::new(RoleAssignment { expires_at: Some(NOW), ..made.as_ref().clone() });
        let mut snapshot = AccessSnapshot::default();
        snapshot.put(Arc::clone(&made));
        assert_eq!(snapshot.decide(subject(&who), &it, &target("x"), NOW), Decision::Allow(made));
        let other = snapshot.decide(subject(&who), &it, &target("y"), NOW);
        assert!(matches!(other, Decision::Deny(Denial::TargetNotGranted { .. })), "{other:?}");
        snapshot.put(ended);
        let expired = snapshot.decide(subject(&who), &it, &target("x"), NOW);
        assert!(matches!(expired, Decision::Deny(Denial::Expired { .. })), "{expired:?}");
    }

    proptest! {
        #[test]
        fn what_is_removed_allows_nothing_and_the_rest_stays(gone in 0u8..6) {
            let who: Principal = "loopback://dev".parse().unwrap();
            let mut snapshot = AccessSnapshot::default();
            for n in 0..6 {
                let scope = AssignmentScope::Identity(uid(n));
                snapshot.put(assignment(n, Member::Principal(who.clone()), scope, TargetRule::Any));
            }
            snapshot.remove(&AssignmentName::from_id(&format!("a{gone}")).unwrap());
            for n in 0..6 {
                let decision = snapshot.decide(subject(&who), &identity(n, "identities/a"), &target("x"), NOW);
                prop_assert_eq!(matches!(decision, Decision::Allow(_)), n != gone);
            }
            prop_assert_eq!(snapshot.len(), 5);
        }
    }
}
