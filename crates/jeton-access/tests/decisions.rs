//! Every decision on a snapshot is the one that a slow reading of all assignments gives, whatever was added and removed before.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{sync::Arc, time::Duration};

use jeton_core::{
    AccessSnapshot, Administrator, AssignmentName, AssignmentScope, Decision, Directory, Identity,
    IdentityKind, IdentityState, Member, Object, Permission, Principal, Role, RoleAssignment, Subject,
    Target, TargetRule, Uid, Wall, Workload,
};
use proptest::{prelude::*, sample::select};

const NOW: Wall = Wall::from_secs(1_000_000);
const PRINCIPALS: [&str; 5] =
    ["unix://n/uid/1", "unix://n/uid/10", "unix://n2/uid/1", "spiffe://prod/pay/api", "spiffe://prod/pay"];
const PATTERNS: [&str; 5] =
    ["unix://n/", "unix://n/uid/", "spiffe://prod/", "spiffe://prod/pay/", "spiffe://prod/pay/api/"];
const IDENTITIES: [&str; 5] = ["pay", "pay.card", "pay.card.eu", "payx", "bill.card"];
const GROUPS: [&str; 4] = ["pay.", "pay.card.", "bill.", "p."];
const TARGETS: [&str; 3] = ["scope:a", "scope:a b", "resource:https://a"];

fn uid(n: usize) -> Uid {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    Uid::new(NOW, random)
}

fn identity(n: usize) -> Identity {
    Identity {
        uid: uid(n),
        name: format!("identities/{}", IDENTITIES[n]).parse().unwrap(),
        display_name: String::new(),
        labels: Default::default(),
        kind: IdentityKind::Created,
        workload: None,
        authority: uid(999),
        state: IdentityState::Active,
        client_id: None,
        registration: None,
        credentials: vec![],
        operation: None,
        created_at: NOW,
        updated_at: NOW,
        version: 1,
    }
}

fn workload(n: usize) -> Uid {
    uid(100 + n)
}

fn members() -> impl Strategy<Value = Member> {
    prop_oneof![
        (0..2usize).prop_map(|n| Member::Workload(workload(n))),
        select(&PRINCIPALS[..]).prop_map(|p| Member::Principal(p.parse().unwrap())),
        select(&PATTERNS[..]).prop_map(|p| Member::Pattern(p.parse().unwrap())),
    ]
}

fn scopes() -> impl Strategy<Value = AssignmentScope> {
    prop_oneof![
        (0..IDENTITIES.len()).prop_map(|n| AssignmentScope::Identity(uid(n))),
        select(&GROUPS[..]).prop_map(|g| AssignmentScope::Group(g.into())),
        Just(AssignmentScope::All),
    ]
}

fn rules() -> impl Strategy<Value = TargetRule> {
    prop_oneof![
        Just(TargetRule::Any),
        prop::collection::vec(select(&TARGETS[..]), 1..3)
            .prop_map(|t| TargetRule::Only(t.into_iter().map(Arc::from).collect())),
    ]
}

fn assignments() -> impl Strategy<Value = Vec<RoleAssignment>> {
    let role = prop_oneof![3 => Just(Role::TokenUser), 2 => select(&Role::ALL[..])];
    let expiry =
        select(vec![None, Some(NOW - Duration::from_secs(1)), Some(NOW), Some(NOW + Duration::from_secs(1))]);
    let lifetime = select(vec![None, Some(Duration::from_secs(60)), Some(Duration::from_secs(600))]);
    prop::collection::vec((members(), role, scopes(), rules(), expiry, lifetime), 0..24).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        let made = numbered.map(|(n, (member, role, scope, targets, expires_at, max_token_lifetime))| {
            RoleAssignment {
                uid: uid(1_000 + n),
                name: AssignmentName::from_id(&format!("a{n}")).unwrap(),
                member,
                role,
                // Everything is for administrators alone.
                scope: if role == Role::TokenUser && scope == AssignmentScope::All {
                    AssignmentScope::Group("pay.".into())
                } else {
                    scope
                },
                targets,
                keep_warm: false,
                expires_at,
                max_token_lifetime,
                limits: Default::default(),
                created_at: NOW,
            }
        });
        made.collect()
    })
}

/// Read as docs/roles.md says it.
fn is_member(member: &Member, principal: &str, of: Option<Uid>) -> bool {
    match member {
        Member::Workload(uid) => of == Some(*uid),
        Member::Principal(exact) => exact.as_str() == principal,
        Member::Pattern(prefix) => prefix.as_str().ends_with('/') && principal.starts_with(prefix.as_str()),
    }
}

fn is_in(scope: &AssignmentScope, id: &str, own: Uid) -> bool {
    match scope {
        AssignmentScope::Identity(uid) => *uid == own,
        AssignmentScope::Group(prefix) => {
            id.split('.')
                .collect::<Vec<_>>()
                .starts_with(&prefix.trim_end_matches('.').split('.').collect::<Vec<_>>())
                && id.len() > prefix.len()
        }
        AssignmentScope::All => true,
    }
}

fn lives(a: &RoleAssignment) -> bool {
    a.expires_at.is_none_or(|at| at > NOW)
}

/// The longest life that some assignment allows a token; the outer none: none allows it.
fn specified(
    all: &[RoleAssignment],
    who: &str,
    of: Option<Uid>,
    n: usize,
    target: &str,
) -> Option<Option<Duration>> {
    let allowing = all.iter().filter(|a| {
        let granted = match &a.targets {
            TargetRule::Any => true,
            TargetRule::Only(texts) => texts.iter().any(|text| **text == *target),
        };
        a.role == Role::TokenUser
            && is_member(&a.member, who, of)
            && is_in(&a.scope, IDENTITIES[n], uid(n))
            && granted
            && lives(a)
    });
    allowing.map(|a| a.max_token_lifetime).reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b)))
}

fn specified_permission(all: &[RoleAssignment], who: &str, of: Option<Uid>, n: usize, p: Permission) -> bool {
    all.iter().any(|a| {
        a.role != Role::TokenUser
            && a.role.allows(p)
            && is_member(&a.member, who, of)
            && is_in(&a.scope, IDENTITIES[n], uid(n))
            && lives(a)
    })
}

fn snapshot_of(all: &[RoleAssignment], gone: &[RoleAssignment]) -> AccessSnapshot {
    let mut snapshot = AccessSnapshot::default();
    all.iter().chain(gone).for_each(|a| snapshot.put(Arc::new(a.clone())));
    gone.iter().for_each(|a| drop(snapshot.remove(&a.name)));
    snapshot
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_decision_is_what_the_assignments_say(all in assignments(), removed in 0..12usize) {
        let (gone, left) = all.split_at(removed.min(all.len()));
        let snapshot = snapshot_of(left, gone);
        prop_assert_eq!(snapshot.len(), left.len());
        for who in PRINCIPALS {
            let principal: Principal = who.parse().unwrap();
            for of in [None, Some(workload(0)), Some(workload(1))] {
                let subject = Subject { principal: &principal, workload: of };
                for (n, named) in IDENTITIES.iter().enumerate() {
                    for target in TARGETS {
                        let asked = Target::from_canonical(target).unwrap();
                        let decided = match snapshot.decide(subject, &identity(n), &asked, NOW) {
                            Decision::Allow(by) => Some(by.max_token_lifetime),
                            Decision::Deny(_) => None,
                        };
                        let expected = specified(left, who, of, n, target);
                        prop_assert_eq!(decided, expected, "{} of {:?} for {} {}", who, of, named, target);
                    }
                }
            }
        }
    }

    #[test]
    fn a_permission_is_what_the_assignments_say_and_never_that_of_using_tokens(all in assignments()) {
        let snapshot = snapshot_of(&all, &[]);
        for who in PRINCIPALS {
            let principal: Principal = who.parse().unwrap();
            let one = Arc::new(Workload {
                uid: workload(0),
                name: "workloads/w".parse().unwrap(),
                display_name: String::new(),
                labels: Default::default(),
                principals: vec![principal.clone()],
                system_identity: None,
                secrets: vec![],
                created_at: NOW,
                updated_at: NOW,
                version: 1,
            });
            for of in [None, Some(&one)] {
                let administrator = Administrator::new(&principal, of, false, &snapshot, NOW);
                for (n, named) in IDENTITIES.iter().enumerate() {
                    let it = identity(n);
                    for permission in Permission::ALL {
                        let may = administrator.may(permission, Object::Identity(&it.name, Some(it.uid)));
                        let expected = specified_permission(&all, who, of.map(|w| w.uid), n, permission);
                        prop_assert_eq!(may, expected, "{} {} on {}", who, permission, named);
                    }
                }
                prop_assert!(!administrator.may(Permission::UseTokens, Object::All));
            }
        }
    }

    #[test]
    fn lists_by_member_and_by_scope_are_those_of_all_assignments(all in assignments(), member in members(), scope in scopes()) {
        let snapshot = snapshot_of(&all, &[]);
        let names = |found: Vec<&Arc<RoleAssignment>>| {
            let mut names: Vec<_> = found.into_iter().map(|a| a.name.to_string()).collect();
            names.sort();
            names
        };
        let expected = |fits: &dyn Fn(&RoleAssignment) -> bool| {
            let mut names: Vec<_> = all.iter().filter(|a| fits(a)).map(|a| a.name.to_string()).collect();
            names.sort();
            names
        };
        prop_assert_eq!(names(snapshot.of_member(member.clone()).collect()), expected(&|a| a.member == member));
        prop_assert_eq!(names(snapshot.on(scope.clone()).collect()), expected(&|a| a.scope == scope));
        let directory = Directory::default();
        for a in &all {
            prop_assert!(!a.scope.shown(&directory).is_empty());
        }
    }
}

#[test]
fn the_brokers_own_user_administers_everything_and_uses_no_tokens() {
    let principal: Principal = PRINCIPALS[0].parse().unwrap();
    let root = Administrator::new(&principal, None, true, &AccessSnapshot::default(), NOW);
    for permission in Permission::ALL {
        assert_eq!(root.may(permission, Object::All), permission != Permission::UseTokens, "{permission}");
    }
}
