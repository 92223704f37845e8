//! Decisions from end to end: a directory, assignments made as an administrator writes them, requests as callers spell them.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{sync::Arc, time::Duration};

use jeton_access::{
    Access, AccessError, AccessSettings, CreateAssignment, Refused,
    testing::{MemoryAccessStore, MemoryUseStore, access_store_contract, use_store_contract},
};
use jeton_core::{
    Directory, Identity, IdentityKind, IdentityState, Principal, SharedDirectory, TargetRequest, Uid,
    Workload,
};
use jeton_testkit::{ManualClock, START};

const VAULT: &str = "scope:vault.read";

struct World {
    clock: ManualClock,
    directory: SharedDirectory,
    store: MemoryAccessStore,
    access: Access,
}

fn uid(n: u8) -> Uid {
    Uid::new(START, [n; 10])
}

fn identity(n: u8, name: &str) -> Identity {
    Identity {
        uid: uid(n),
        name: name.parse().unwrap(),
        display_name: String::new(),
        labels: Default::default(),
        kind: IdentityKind::Created,
        workload: None,
        authority: uid(200),
        state: IdentityState::Active,
        client_id: Some("c".into()),
        registration: None,
        credentials: vec![],
        operation: None,
        created_at: START,
        updated_at: START,
        version: 1,
    }
}

fn principal(n: u32) -> Principal {
    Principal::unix_uid("n", n).unwrap()
}

async fn start(clock: &ManualClock, directory: &SharedDirectory, store: &MemoryAccessStore) -> Access {
    let settings = AccessSettings { max_remembered_denials: 10, ..AccessSettings::default() };
    Access::start(&settings, Arc::new(store.clone()), Arc::new(clock.clone()), directory.clone(), 1)
        .await
        .unwrap()
}

impl World {
    async fn new() -> Self {
        let mut content = Directory::default();
        content.put_authority(Arc::new(jeton_lifecycle::testing::authority("a", uid(200), true)));
        for (n, name) in [
            (1, "identities/billing"),
            (2, "identities/payments.card"),
            (3, "identities/payments.cash"),
            (4, "identities/paymentsx"),
        ] {
            content.put_identity(Arc::new(identity(n, name)));
        }
        content.put_workload(Arc::new(Workload {
            uid: uid(100),
            name: "workloads/w".parse().unwrap(),
            display_name: String::new(),
            labels: Default::default(),
            principals: vec![principal(1), principal(2)],
            system_identity: Some(uid(1)),
            secrets: vec![],
            created_at: START,
            updated_at: START,
            version: 1,
        }));
        let directory = SharedDirectory::new(content);
        let (clock, store) = (ManualClock::default(), MemoryAccessStore::default());
        let access = start(&clock, &directory, &store).await;
        Self { clock, directory, store, access }
    }

    async fn assign(&self, member: &str, identity: &str, target: &str) -> Result<String, AccessError> {
        let create = CreateAssignment {
            member: member.into(),
            identity: identity.into(),
            targets: vec![target.into()],
            ..CreateAssignment::default()
        };
        self.access.create_assignment(create).await.map(|made| made.name.to_string())
    }

    fn may(&self, caller: u32, identity: &str, scope: &str) -> bool {
        self.ask(caller, identity, scope).is_ok()
    }

    fn ask(&self, caller: u32, identity: &str, scope: &str) -> Result<(), Refused> {
        let request = TargetRequest { scopes: vec![scope.into()], resources: vec![] };
        let name = Some(identity).filter(|i| !i.is_empty()).map(|i| i.parse().unwrap());
        self.access.authorize(&principal(caller), name.as_ref(), &request, None, || None).map(drop)
    }
}

#[tokio::test]
async fn nobody_may_do_anything_before_an_assignment_says_so() {
    let world = World::new().await;
    for caller in [1, 2, 9] {
        assert!(!world.may(caller, "identities/billing", "vault.read"));
    }
}

#[tokio::test]
async fn an_assignment_reaches_its_member_its_identity_and_its_targets_alone() {
    let world = World::new().await;
    world.assign("workloads/w", "identities/billing", VAULT).await.unwrap();
    assert!(
        world.may(1, "identities/billing", "vault.read") && world.may(2, "identities/billing", "vault.read")
    );
    assert!(!world.may(9, "identities/billing", "vault.read"), "another caller");
    assert!(!world.may(1, "identities/payments.card", "vault.read"), "another identity");
    assert!(!world.may(1, "identities/billing", "vault.write"), "another target");
    assert!(world.may(1, "", "vault.read"), "no name is the workload's own identity");
    assert!(matches!(world.ask(9, "", "vault.read"), Err(Refused::NoSystemIdentity { .. })));
}

#[tokio::test]
async fn a_dotted_group_ends_at_its_dot_and_a_pattern_at_its_slash() {
    let world = World::new().await;
    world.assign("unix://n/uid/", "identities/payments.*", "*").await.unwrap();
    assert!(world.may(9, "identities/payments.card", "x") && world.may(1, "identities/payments.cash", "y"));
    assert!(!world.may(9, "identities/paymentsx", "x") && !world.may(9, "identities/billing", "x"));
    let elsewhere = Principal::unix_uid("n2", 9).unwrap();
    let request = TargetRequest { scopes: vec!["x".into()], resources: vec![] };
    let name = "identities/payments.card".parse().unwrap();
    assert!(world.access.authorize(&elsewhere, Some(&name), &request, None, || None).is_err());
}

#[tokio::test]
async fn an_assignment_that_expired_says_nothing_any_more() {
    let world = World::new().await;
    let create = CreateAssignment {
        member: "workloads/w".into(),
        identity: "identities/billing".into(),
        targets: vec!["*".into()],
        expires_at: Some(START + Duration::from_secs(60)),
        ..CreateAssignment::default()
    };
    world.access.create_assignment(create).await.unwrap();
    assert!(world.may(1, "identities/billing", "x"));
    world.clock.step_wall(60_000);
    assert!(!world.may(1, "identities/billing", "x"));
}

#[tokio::test]
async fn assignments_are_there_after_a_restart_and_gone_when_taken_back() {
    let world = World::new().await;
    let name = world.assign("workloads/w", "identities/billing", "*").await.unwrap();
    let again = start(&world.clock, &world.directory, &world.store).await;
    assert_eq!(again.snapshot().len(), 1);
    let mut changes = world.access.changes();
    world.access.delete_assignment(&name.parse().unwrap(), "").await.unwrap().unwrap();
    assert!(changes.has_changed().unwrap());
    changes.borrow_and_update();
    assert!(!world.may(1, "identities/billing", "x"));
    assert!(start(&world.clock, &world.directory, &world.store).await.snapshot().is_empty());
}

#[tokio::test]
async fn what_is_gone_takes_its_assignments_along() {
    let world = World::new().await;
    world.assign("workloads/w", "identities/billing", "*").await.unwrap();
    world.assign("unix://n/uid/9", "identities/billing", "*").await.unwrap();
    world.assign("workloads/w", "identities/payments.card", "*").await.unwrap();
    world.access.forget(uid(1)).await.unwrap();
    assert_eq!(world.access.snapshot().len(), 1);
    world.access.forget(uid(100)).await.unwrap();
    assert!(world.access.snapshot().is_empty());
}

#[tokio::test]
async fn a_caller_cannot_tell_what_does_not_exist_from_what_it_may_not_use() {
    let world = World::new().await;
    let denied = |name: &str, scope: &str| match world.ask(9, name, scope) {
        Err(Refused::Denied { correlation_id }) => correlation_id,
        other => panic!("{other:?}"),
    };
    let (unknown, forbidden, malformed) = (
        denied("identities/nobody", "x"),
        denied("identities/billing", "x"),
        denied("identities/billing", "a\"b"),
    );
    let reason = |id: &str| world.access.explain_denial(id).unwrap().reason;
    assert!(reason(&unknown).contains("does not exist"), "{}", reason(&unknown));
    assert!(!reason(&forbidden).contains("does not exist"), "{}", reason(&forbidden));
    assert!(world.access.explain_denial(&malformed).is_some());
    // Who may use it is told what is wrong with the target.
    world.assign("unix://n/uid/9", "identities/billing", VAULT).await.unwrap();
    assert!(matches!(world.ask(9, "identities/billing", "a\"b"), Err(Refused::BadTarget(_))));
}

#[tokio::test]
async fn only_the_latest_denials_are_remembered() {
    let world = World::new().await;
    let ids: Vec<_> = (0..15)
        .map(|_| match world.ask(9, "identities/billing", "x") {
            Err(Refused::Denied { correlation_id }) => correlation_id,
            other => panic!("{other:?}"),
        })
        .collect();
    let known = ids.iter().filter(|id| world.access.explain_denial(id).is_some()).count();
    assert_eq!(known, 10);
    assert!(world.access.explain_denial(&ids[14]).is_some());
}

#[tokio::test]
async fn an_explanation_names_the_assignment_or_the_command_that_would_add_it() {
    let world = World::new().await;
    let request = TargetRequest { scopes: vec!["vault.read".into()], resources: vec![] };
    let name = "identities/billing".parse().unwrap();
    let missing = world.access.explain(&principal(1), Some(&name), &request);
    assert!(missing.allowed_by.is_none());
    assert!(
        missing
            .remedies
            .concat()
            .contains("jeton access assign --member 'workloads/w' --identity 'identities/billing'")
    );
    let made = world.assign("workloads/w", "identities/billing", VAULT).await.unwrap();
    assert_eq!(
        world.access.explain(&principal(1), Some(&name), &request).allowed_by.unwrap().to_string(),
        made
    );
}

#[tokio::test]
async fn an_explanation_lists_what_nearly_allows_it_the_nearest_first_and_says_what_each_lacks() {
    let world = World::new().await;
    let create = |member: &str, role: &str, identity: &str, targets: &[&str]| CreateAssignment {
        member: member.into(),
        role: role.into(),
        identity: identity.into(),
        targets: targets.iter().map(|t| (*t).to_owned()).collect(),
        ..CreateAssignment::default()
    };
    let expiring = CreateAssignment {
        expires_at: Some(START + Duration::from_secs(60)),
        ..create("unix://n/uid/", "", "identities/billing", &["*"])
    };
    for wanted in [
        expiring,
        create("unix://n/uid/9", "", "identities/billing", &["scope:other"]),
        create("unix://n/uid/9", "", "identities/payments.*", &["scope:vault.read"]),
        create("unix://n/uid/9", "", "identities/paymentsx", &["scope:other"]),
        create("unix://n/uid/9", "reader", "*", &[]),
        create("unix://n/uid", "", "identities/billing", &["*"]),
        create("unix://n/ui", "", "identities/billing", &["*"]),
        create("workloads/w", "", "identities/billing", &["*"]),
    ] {
        world.access.create_assignment(wanted).await.unwrap();
    }
    world.clock.step_wall(60_000);
    let request = TargetRequest { scopes: vec!["vault.read".into()], resources: vec![] };
    let name = "identities/billing".parse().unwrap();
    let explained = world.access.explain(&principal(9), Some(&name), &request);
    let problems: Vec<_> = explained.near_misses.iter().map(|miss| miss.problem.as_str()).collect();
    let (nearest, others) = problems.split_at(4);
    let mut nearest = nearest.to_vec();
    nearest.sort_unstable();
    let at = START + Duration::from_secs(60);
    assert_eq!(
        nearest,
        [
            &*format!("expired at {}", at.rfc3339()),
            "is for scope:other",
            "is for the one principal unix://n/uid; a pattern for all below it is written unix://n/uid/",
            "is on identities/payments.*",
        ]
    );
    assert_eq!(
        others,
        [
            "gives the role reader, which uses no tokens: token-user does",
            "is for workloads/w, to which unix://n/uid/9 does not belong",
        ]
    );
}

#[tokio::test]
async fn of_two_assignments_the_one_with_the_longer_token_life_counts_in_any_order() {
    for lifetimes in [[60, 600], [600, 60]] {
        let world = World::new().await;
        for seconds in lifetimes {
            let create = CreateAssignment {
                member: "workloads/w".into(),
                identity: "identities/billing".into(),
                targets: vec!["*".into()],
                max_token_lifetime: Some(Duration::from_secs(seconds)),
                ..CreateAssignment::default()
            };
            world.access.create_assignment(create).await.unwrap();
        }
        let request = TargetRequest { scopes: vec!["x".into()], resources: vec![] };
        let allowed = world.access.authorize(&principal(1), None, &request, None, || None).unwrap();
        assert_eq!(allowed.max_lifetime(), Some(Duration::from_secs(600)));
        world.assign("unix://n/uid/1", "identities/billing", "*").await.unwrap();
        let allowed = world.access.authorize(&principal(1), None, &request, None, || None).unwrap();
        assert_eq!(allowed.max_lifetime(), None, "one that does not limit it");
    }
}

#[tokio::test]
async fn a_request_id_repeats_an_assignment_and_never_makes_another() {
    let world = World::new().await;
    let create = |identity: &str| CreateAssignment {
        member: "workloads/w".into(),
        identity: identity.into(),
        targets: vec!["*".into()],
        request_id: "one".into(),
        ..CreateAssignment::default()
    };
    let first = world.access.create_assignment(create("identities/billing")).await.unwrap();
    let second = world.access.create_assignment(create("identities/billing")).await.unwrap();
    assert_eq!(first.uid, second.uid);
    let other = world.access.create_assignment(create("identities/paymentsx")).await;
    assert!(matches!(other, Err(AccessError::RequestIdReused(_))), "{other:?}");
}

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract() {
    let store = MemoryAccessStore::default();
    access_store_contract(async || store.clone()).await;
}

#[tokio::test]
async fn the_uses_in_memory_keep_the_contract() {
    let store = MemoryUseStore::default();
    use_store_contract(async || store.clone()).await;
}
