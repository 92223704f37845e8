//! Who may use which identity for what: the pure decision on an immutable snapshot. Deny by default.
//!
//! An assignment binds uids, so a name that is made again inherits nothing. It is found by member and by identity (or dotted
//! group), so a decision costs a few look-ups however many assignments there are.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{AssignmentName, Identity, Principal, PrincipalPattern, Target, Uid, Wall};

/// A stored role assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleAssignment {
    /// Immutable.
    pub uid: Uid,
    /// Unique.
    pub name: AssignmentName,
    /// Who.
    pub member: Member,
    /// May do what.
    pub role: Role,
    /// With which identities.
    pub scope: AssignmentScope,
    /// For which targets.
    pub targets: TargetRule,
    /// Keep the tokens of the named targets warm, used or not.
    pub keep_warm: bool,
    /// From when on it says nothing any more.
    pub expires_at: Option<Wall>,
    /// No token is handed out with more life left.
    pub max_token_lifetime: Option<Duration>,
    /// What each caller may ask by this assignment beside hits, in place of the broker's settings.
    #[serde(default, skip_serializing_if = "CallerLimits::are_usual")]
    pub limits: CallerLimits,
    /// When it was created.
    pub created_at: Wall,
}

/// What one caller may ask beside hits; what is absent is as the settings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CallerLimits {
    /// Misses and new keys, a second.
    pub misses_per_second: Option<u32>,
    /// Misses and new keys at once.
    pub miss_burst: Option<u32>,
    /// Refreshes forced by reports of rejected tokens, a minute.
    pub forced_refreshes_per_minute: Option<u32>,
    /// Tokens watched.
    pub max_watches: Option<u32>,
    /// Requests that wait for an authority.
    pub max_waiting: Option<u32>,
}

impl CallerLimits {
    /// Whether the settings alone say what a caller may.
    pub fn are_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Who has a role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Member {
    /// A workload, by uid.
    Workload(Uid),
    /// One exact principal.
    Principal(Principal),
    /// All principals below a prefix.
    Pattern(PrincipalPattern),
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Get tokens.
    TokenUser,
}

/// With which identities.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssignmentScope {
    /// One identity, by uid.
    Identity(Uid),
    /// All identities whose id begins with this dotted prefix; `payments.` for `identities/payments.*`.
    Group(Arc<str>),
}

impl AssignmentScope {
    /// Whether an identity is reached.
    pub fn covers(&self, identity: &Identity) -> bool {
        match self {
            Self::Identity(uid) => *uid == identity.uid,
            Self::Group(prefix) => identity.name.id().starts_with(prefix.as_ref()),
        }
    }
}

/// For which targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetRule {
    /// `*`.
    Any,
    /// Canonical texts.
    Only(Vec<Arc<str>>),
}

impl TargetRule {
    /// Whether a target is granted.
    pub fn covers(&self, target: &Target) -> bool {
        match self {
            Self::Any => true,
            Self::Only(texts) => texts.iter().any(|text| text.as_ref() == target.as_str()),
        }
    }
}

/// The answer to "may this caller have this token?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes, by this assignment.
    Allow(Arc<RoleAssignment>),
    /// No.
    Deny(Denial),
}

/// Why not. For the operator; callers learn only that access was denied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denial {
    /// No assignment of the member reaches the identity.
    NoAssignment,
    /// Assignments reach the identity, but none the target.
    TargetNotGranted {
        /// One that reaches the identity.
        nearest: AssignmentName,
    },
    /// An assignment would allow it, had it not expired.
    Expired {
        /// Which.
        assignment: AssignmentName,
        /// When it ended.
        at: Wall,
    },
    /// The identity is not there.
    UnknownIdentity,
    /// The caller has no workload, or its workload no system-assigned identity, and the request named none.
    NoSystemIdentity,
    /// The identity is disabled or being deleted.
    IdentityNotActive,
}

/// The caller: what the door says, and the workload that the principal belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The authenticated principal.
    pub principal: &'a Principal,
    /// Its workload, if it has one.
    pub workload: Option<Uid>,
}

/// The assignments of one member in one scope, in the order of their making: usually one. Many share structure, so that one more among
/// thousands copies a few nodes and not all of them.
#[derive(Clone, Debug)]
enum Bucket {
    One(Arc<RoleAssignment>),
    Many(imbl::OrdMap<Uid, Arc<RoleAssignment>>),
}

impl Bucket {
    fn iter(&self) -> impl Iterator<Item = &Arc<RoleAssignment>> {
        let (one, many) = match self {
            Self::One(one) => (Some(one), None),
            Self::Many(many) => (None, Some(many.values())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn with(self, assignment: Arc<RoleAssignment>) -> Self {
        let mut many = match self {
            Self::One(one) => imbl::OrdMap::unit(one.uid, one),
            Self::Many(many) => many,
        };
        many.insert(assignment.uid, assignment);
        Self::Many(many)
    }

    fn without(self, uid: Uid) -> Option<Self> {
        match self {
            Self::One(one) => (one.uid != uid).then_some(Self::One(one)),
            Self::Many(mut many) => {
                many.remove(&uid);
                (!many.is_empty()).then_some(Self::Many(many))
            }
        }
    }
}

/// All role assignments, indexed for decisions. Replaced whole on change; the index shares structure.
#[derive(Clone, Debug, Default)]
pub struct AccessSnapshot {
    by_member: imbl::HashMap<(Member, AssignmentScope), Bucket>,
    by_name: imbl::OrdMap<AssignmentName, Arc<RoleAssignment>>,
    /// And by the assignment's uid, so that each has a place of its own.
    by_scope: imbl::OrdMap<(AssignmentScope, Uid), Arc<RoleAssignment>>,
    by_workload: imbl::OrdMap<(Uid, Uid), Arc<RoleAssignment>>,
}

impl AccessSnapshot {
    /// Decides on the snapshot alone: the first assignment that allows wins.
    pub fn decide(&self, subject: Subject<'_>, identity: &Identity, target: &Target, now: Wall) -> Decision {
        let mut denial = Denial::NoAssignment;
        for assignment in self.reaching(subject, identity) {
            match judge(assignment, target, now) {
                None => return Decision::Allow(Arc::clone(assignment)),
                // An expired match says more than a miss of the target, which says more than nothing.
                Some(found @ Denial::Expired { .. }) => denial = found,
                Some(found) if denial == Denial::NoAssignment => denial = found,
                Some(_) => {}
            }
        }
        Decision::Deny(denial)
    }

    /// Every assignment that reaches the identity for the subject, whatever its targets and expiry.
    pub fn reaching<'a>(
        &'a self,
        subject: Subject<'_>,
        identity: &'a Identity,
    ) -> impl Iterator<Item = &'a Arc<RoleAssignment>> {
        members(subject)
            .flat_map(move |member| scopes(identity).map(move |scope| (member.clone(), scope)))
            .filter_map(|key| self.by_member.get(&key))
            .flat_map(|bucket| bucket.iter())
    }

    /// Every assignment that reaches the identity, whoever its member is.
    pub fn covering<'a>(&'a self, identity: &'a Identity) -> impl Iterator<Item = &'a Arc<RoleAssignment>> {
        scopes(identity).flat_map(|scope| self.on(scope))
    }

    /// What binds this very identity or workload, and says nothing any more when it is gone.
    pub fn binding(&self, uid: Uid) -> impl Iterator<Item = &Arc<RoleAssignment>> {
        let members = self.by_workload.range((uid, Uid::LEAST)..).take_while(move |((of, _), _)| *of == uid);
        self.on(AssignmentScope::Identity(uid)).chain(members.map(|(_, assignment)| assignment))
    }

    fn on(&self, scope: AssignmentScope) -> impl Iterator<Item = &Arc<RoleAssignment>> {
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
        let key = (assignment.member.clone(), assignment.scope.clone());
        let grown = match self.by_member.remove(&key) {
            Some(bucket) => bucket.with(Arc::clone(&assignment)),
            None => Bucket::One(Arc::clone(&assignment)),
        };
        self.by_member.insert(key, grown);
        self.by_scope.insert((assignment.scope.clone(), assignment.uid), Arc::clone(&assignment));
        if let Member::Workload(workload) = assignment.member {
            self.by_workload.insert((workload, assignment.uid), Arc::clone(&assignment));
        }
        self.by_name.insert(assignment.name.clone(), assignment);
    }

    /// Removes, if it is there.
    pub fn remove(&mut self, name: &AssignmentName) -> Option<Arc<RoleAssignment>> {
        let assignment = self.by_name.remove(name)?;
        self.by_scope.remove(&(assignment.scope.clone(), assignment.uid));
        if let Member::Workload(workload) = assignment.member {
            self.by_workload.remove(&(workload, assignment.uid));
        }
        let key = (assignment.member.clone(), assignment.scope.clone());
        if let Some(left) = self.by_member.remove(&key).and_then(|bucket| bucket.without(assignment.uid)) {
            self.by_member.insert(key, left);
        }
        Some(assignment)
    }
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
    use crate::{IdentityKind, IdentityState, TargetRequest, profile::tests::oidc_profile};

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
