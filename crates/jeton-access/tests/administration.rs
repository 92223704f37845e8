//! What an administrator might try, to get more than it was given or to give something to itself.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{sync::Arc, time::Duration};

use jeton_access::{
    Access, AccessError, AccessSettings, AdminCall, CreateAssignment, testing::MemoryAccessStore,
};
use jeton_core::{
    Directory, Identity, IdentityKind, IdentityState, Object, Permission, Principal, SharedDirectory, Uid,
    Workload,
};
use jeton_testkit::{ManualClock, START};

/// The caller: an administrator by its own principal; `workloads/payments.admin` is its workload.
const CALLER: &str = "unix://n/uid/7";
const PAYMENTS: &str = "identities/payments.*";

struct World {
    clock: ManualClock,
    directory: SharedDirectory,
    access: Access,
}

fn uid(n: u8) -> Uid {
    Uid::new(START, [n; 10])
}

fn identity(n: u8, name: &str) -> Arc<Identity> {
    Arc::new(Identity {
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
    })
}

fn workload(n: u8, name: &str, principals: &[&str]) -> Arc<Workload> {
    Arc::new(Workload {
        uid: uid(n),
        name: name.parse().unwrap(),
        display_name: String::new(),
        labels: Default::default(),
        principals: principals.iter().map(|p| p.parse().unwrap()).collect(),
        system_identity: None,
        secrets: vec![],
        created_at: START,
        updated_at: START,
        version: 1,
    })
}

fn principals(texts: &[&str]) -> Vec<Principal> {
    texts.iter().map(|p| p.parse().unwrap()).collect()
}

impl World {
    async fn new() -> Self {
        let mut content = Directory::default();
        content.put_authority(Arc::new(jeton_lifecycle::testing::authority("a", uid(200), true)));
        content.put_identity(identity(1, "identities/payments.card"));
        content.put_identity(identity(2, "identities/payroll.run"));
        content.put_workload(workload(100, "workloads/payments.admin", &[CALLER, "spiffe://prod/admin"]));
        content.put_workload(workload(101, "workloads/payments.api", &["spiffe://prod/api"]));
        let directory = SharedDirectory::new(content);
        let clock = ManualClock::default();
        let settings = AccessSettings { max_remembered_denials: 100, ..AccessSettings::default() };
        let store = Arc::new(MemoryAccessStore::default());
        let access =
            Access::start(&settings, store, Arc::new(clock.clone()), directory.clone(), 1).await.unwrap();
        Self { clock, directory, access }
    }

    /// With the caller as an access administrator of this.
    async fn with_administrator_of(scope: &str) -> Self {
        let world = Self::new().await;
        world.give(CALLER, "access-administrator", scope).await;
        world
    }

    async fn give(&self, member: &str, role: &str, scope: &str) -> String {
        let made = self.access.create_assignment(create(member, role, scope)).await.unwrap();
        made.name.to_string()
    }

    fn call(&self, permission: Permission) -> AdminCall {
        self.access.admin_call(&CALLER.parse().unwrap(), false, "Service/Method", permission)
    }

    /// The caller tries to make an assignment.
    async fn try_to_give(&self, member: &str, role: &str, scope: &str) -> Result<(), AccessError> {
        let call = self.call(Permission::ChangeAssignments);
        let tried = self.access.create_assignment_if(create(member, role, scope), |new| call.may_make(new));
        tried.await.map(drop)
    }

    async fn try_to_take_back(&self, name: &str) -> Result<(), AccessError> {
        let call = self.call(Permission::ChangeAssignments);
        let name = name.parse().unwrap();
        let tried = self.access.delete_assignment_if(&name, "", |it| call.may_take_back(it));
        tried.await.map(drop)
    }

    fn try_to_change(&self, workload: u8, to: &[&str]) -> Result<(), AccessError> {
        let found = self.directory.snapshot().workload(uid(workload)).cloned().unwrap();
        self.call(Permission::ChangeWorkloads).may_change_members(&found, &principals(to))
    }
}

fn create(member: &str, role: &str, scope: &str) -> CreateAssignment {
    CreateAssignment {
        member: member.into(),
        role: role.into(),
        identity: scope.into(),
        targets: if role == "token-user" { vec!["*".into()] } else { vec![] },
        ..CreateAssignment::default()
    }
}

fn refused(tried: Result<(), AccessError>) -> String {
    match tried {
        Err(AccessError::NotPermitted(refusal)) => refusal.reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_administrator_of_a_group_gives_inside_of_it_and_nowhere_else() {
    let world = World::with_administrator_of(PAYMENTS).await;
    for scope in [PAYMENTS, "identities/payments.eu.*", "identities/payments.card"] {
        world.try_to_give("spiffe://prod/x", "token-user", scope).await.unwrap();
    }
    for (role, scope) in [
        ("token-user", "identities/payroll.run"),
        ("token-user", "identities/payroll.*"),
        ("token-user", "identities/paymentsx.*"),
        ("reader", "identities/pay.*"),
        ("auditor", "*"),
    ] {
        let why = refused(world.try_to_give("spiffe://prod/x", role, scope).await);
        assert!(why.contains("assignments.change"), "{scope}: {why}");
    }
}

#[tokio::test]
async fn an_administrator_of_a_group_makes_no_further_administrators_and_unmakes_none() {
    let world = World::with_administrator_of(PAYMENTS).await;
    let other = world.give("spiffe://prod/x", "identity-operator", PAYMENTS).await;
    for role in ["identity-operator", "access-administrator"] {
        let why = refused(world.try_to_give("spiffe://prod/y", role, PAYMENTS).await);
        assert!(why.contains("administrator of everything"), "{why}");
    }
    refused(world.try_to_take_back(&other).await);
    world.try_to_give("spiffe://prod/y", "auditor", PAYMENTS).await.unwrap();
    let above = World::with_administrator_of("*").await;
    above.try_to_give("spiffe://prod/y", "access-administrator", PAYMENTS).await.unwrap();
}

#[tokio::test]
async fn no_administrator_gives_itself_anything_in_any_of_its_shapes() {
    for scope in [PAYMENTS, "*"] {
        let world = World::with_administrator_of(scope).await;
        let by_secret = Principal::of_secret(uid(100)).to_string();
        for member in [
            CALLER,
            "workloads/payments.admin",
            &by_secret,
            "unix://n/uid/",
            "unix://n/",
            "spiffe://prod/admin",
            "spiffe://prod/",
        ] {
            for role in ["token-user", "reader"] {
                let why = refused(world.try_to_give(member, role, PAYMENTS).await);
                assert!(why.contains("gives itself nothing"), "{member}: {why}");
            }
        }
        world.try_to_give("unix://n2/uid/", "token-user", PAYMENTS).await.unwrap();
        world.try_to_give("spiffe://prod/api", "token-user", PAYMENTS).await.unwrap();
    }
}

#[tokio::test]
async fn a_local_administrator_gives_nothing_to_any_name_that_the_data_plane_may_have_for_it() {
    let world = World::with_administrator_of("*").await;
    let mut content = world.directory.snapshot().as_ref().clone();
    content.put_workload(workload(102, "workloads/payments.local", &["unix://n/peer/api"]));
    world.directory.publish(content);
    for member in [
        "unix://n/peer/api",
        "unix://n/peer/",
        "unix://n/peer/api/",
        "unix://n/",
        "loopback://dev",
        "workloads/payments.local",
    ] {
        let why = refused(world.try_to_give(member, "token-user", PAYMENTS).await);
        assert!(why.contains("gives itself nothing"), "{member}: {why}");
    }
    for member in ["unix://n2/peer/api", "unix://n/uid/8", "unix://n/peers/"] {
        world.try_to_give(member, "token-user", PAYMENTS).await.unwrap();
    }
    world.give("workloads/payments.api", "token-user", "identities/payments.card").await;
    for own in ["unix://n/peer/api", "loopback://dev"] {
        let why = refused(world.try_to_change(101, &["spiffe://prod/api", own]));
        assert!(why.contains("gives itself nothing"), "{why}");
    }
    // By the network nobody is a local user, and the broker's own user is outside of these rules.
    let call = |principal: &str, root| {
        world.access.admin_call(&principal.parse().unwrap(), root, "m", Permission::ChangeAssignments)
    };
    world.give("spiffe://prod/other", "access-administrator", "*").await;
    let (remote, root) = (call("spiffe://prod/other", false), call(CALLER, true));
    for caller in [remote, root] {
        let wanted = create("unix://n/peer/api", "token-user", PAYMENTS);
        world.access.create_assignment_if(wanted, |new| caller.may_make(new)).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_joins_a_workload_that_has_something_or_lets_others_join_one_that_has_more_than_it_may_give() {
    let world = World::with_administrator_of(PAYMENTS).await;
    // Nothing was given to it yet.
    world.try_to_change(101, &["spiffe://prod/api", "unix://n/uid/8"]).unwrap();
    world.give("workloads/payments.api", "token-user", "identities/payments.card").await;
    world.try_to_change(101, &["spiffe://prod/api", "unix://n/uid/8"]).unwrap();
    world.try_to_change(101, &[]).unwrap();
    for own in [CALLER, "spiffe://prod/admin"] {
        let why = refused(world.try_to_change(101, &["spiffe://prod/api", own]));
        assert!(why.contains("gives itself nothing"), "{why}");
    }
    // Something outside of the caller's part, or above it.
    for (role, scope) in [("token-user", "identities/payroll.run"), ("identity-operator", PAYMENTS)] {
        let more = world.give("workloads/payments.api", role, scope).await;
        for to in [&["spiffe://prod/api", "unix://n/uid/8"][..], &[]] {
            refused(world.try_to_change(101, to));
        }
        world.try_to_change(101, &["spiffe://prod/api"]).unwrap();
        let found = world.directory.snapshot().workload(uid(101)).cloned().unwrap();
        refused(world.call(Permission::ChangeWorkloads).may_remove(&found));
        refused(world.call(Permission::ChangeWorkloads).may_revoke_secret(&found).map(drop));
        world.access.delete_assignment(&more.parse().unwrap(), "").await.unwrap();
    }
}

#[tokio::test]
async fn an_administrator_of_a_part_takes_nobody_into_a_workload_who_has_something_outside_of_it() {
    const TAKEN: &str = "spiffe://prod/taken";
    let world = World::with_administrator_of(PAYMENTS).await;
    let claim = |principal: &str| {
        let call = world.call(Permission::ChangeWorkloads);
        let created = call.may_claim(&principal.parse().unwrap(), None).map_err(AccessError::from);
        let updated = world.try_to_change(101, &["spiffe://prod/api", principal]);
        assert_eq!(created.is_ok(), updated.is_ok());
        created.and(updated)
    };
    claim(TAKEN).unwrap();
    world.give(TAKEN, "token-user", "identities/payments.card").await;
    world.give("spiffe://prod/", "token-user", "identities/payroll.*").await;
    claim(TAKEN).unwrap();
    for (role, scope) in [("token-user", "identities/payroll.run"), ("reader", "*")] {
        let outside = world.give(TAKEN, role, scope).await;
        let why = refused(claim(TAKEN));
        assert!(why.contains("workloads.change on '*'") && why.contains(TAKEN), "{why}");
        world.access.delete_assignment(&outside.parse().unwrap(), "").await.unwrap();
    }
    // One of a workload that the caller does not see is refused alike, and the workload is not told.
    let mut content = world.directory.snapshot().as_ref().clone();
    content.put_workload(workload(102, "workloads/payroll.run", &[TAKEN]));
    world.directory.publish(content);
    let why = refused(claim(TAKEN));
    assert!(why.contains("workloads.change on '*'") && !why.contains("workloads/payroll"), "{why}");
    // Who leaves, or was there before, is not taken.
    world.give("spiffe://prod/api", "token-user", "identities/payroll.run").await;
    world.try_to_change(101, &["spiffe://prod/api", "spiffe://prod/new"]).unwrap();
    world.try_to_change(101, &[]).unwrap();
    world.give(CALLER, "access-administrator", "*").await;
    claim(TAKEN).unwrap();
}

#[tokio::test]
async fn a_workload_goes_with_its_identity_only_by_one_who_may_delete_that_too() {
    let world = World::with_administrator_of("*").await;
    let mut found = workload(101, "workloads/payments.api", &[]).as_ref().clone();
    world.call(Permission::ChangeWorkloads).may_remove(&found).unwrap();
    found.system_identity = Some(uid(1));
    let why = refused(world.call(Permission::ChangeWorkloads).may_remove(&found));
    assert!(why.contains("identities.change"), "{why}");
    world.give(CALLER, "identity-operator", "identities/payments.card").await;
    world.call(Permission::ChangeWorkloads).may_remove(&found).unwrap();
}

#[tokio::test]
async fn the_last_access_administrator_of_everything_is_taken_back_by_the_brokers_own_user_alone() {
    let world = World::new().await;
    let last = world.give("workloads/payments.admin", "access-administrator", "*").await;
    let ending = CreateAssignment {
        expires_at: Some(START + Duration::from_secs(60)),
        ..create("spiffe://prod/x", "access-administrator", "*")
    };
    world.access.create_assignment(ending).await.unwrap();
    let found = world.directory.snapshot().workload(uid(100)).cloned().unwrap();
    world.call(Permission::ChangeWorkloads).may_remove(&found).unwrap();
    world.clock.step_wall(60_000);
    let mistakes = [
        world.try_to_take_back(&last).await,
        world.call(Permission::ChangeWorkloads).may_remove(&found),
        world.try_to_change(100, &[]),
    ];
    for mistake in mistakes {
        assert!(matches!(&mistake, Err(AccessError::Precondition(_))), "{mistake:?}");
    }
    let root =
        world.access.admin_call(&"unix://n/uid/0".parse().unwrap(), true, "m", Permission::ChangeAssignments);
    world.access.delete_assignment_if(&last.parse().unwrap(), "", |it| root.may_take_back(it)).await.unwrap();
}

#[tokio::test]
async fn a_role_that_expired_or_was_taken_back_permits_nothing_from_the_next_call_on() {
    let world = World::new().await;
    let card = "identities/payments.card".parse().unwrap();
    let may = || world.call(Permission::ChangeIdentities).may(Object::Identity(&card, Some(uid(1))));
    assert!(!may());
    let ending = CreateAssignment {
        expires_at: Some(START + Duration::from_secs(60)),
        ..create(CALLER, "identity-operator", PAYMENTS)
    };
    world.access.create_assignment(ending).await.unwrap();
    assert!(may());
    world.clock.step_wall(60_000);
    assert!(!may());
    let again = world.give("workloads/payments.admin", "identity-operator", "identities/payments.card").await;
    assert!(may());
    world.access.delete_assignment(&again.parse().unwrap(), "").await.unwrap();
    assert!(!may());
}

#[tokio::test]
async fn a_role_on_one_identity_dies_with_it_and_is_not_that_of_another_with_its_name() {
    let world = World::new().await;
    world.give(CALLER, "identity-operator", "identities/payments.card").await;
    let card = "identities/payments.card".parse().unwrap();
    let call = world.call(Permission::ChangeIdentities);
    assert!(call.may(Object::Identity(&card, Some(uid(1)))));
    assert!(!call.may(Object::Identity(&card, Some(uid(9)))), "made again");
    assert!(!call.may(Object::Identity(&card, None)), "it would make one of this name");
}

#[tokio::test]
async fn a_refusal_is_explained_with_what_nearly_permits_it_and_the_command_that_would() {
    let world = World::new().await;
    world.give(CALLER, "reader", "*").await;
    let operator = world.give("workloads/payments.admin", "identity-operator", "identities/payroll.*").await;
    let card = "identities/payments.card".parse().unwrap();
    let call = world.call(Permission::ChangeIdentities);
    let refusal = call.must(Object::Identity(&card, Some(uid(1))), card.as_str()).unwrap_err();
    assert!(refusal.to_string().contains(&refusal.correlation_id), "{refusal}");
    let explained = world.access.explain_denial(&refusal.correlation_id).unwrap();
    assert_eq!((explained.method.as_str(), explained.identity.as_str()), ("Service/Method", card.as_str()));
    let near: Vec<_> =
        explained.near_misses.iter().map(|m| (m.assignment.to_string(), &*m.problem)).collect();
    assert!(near.contains(&(operator, "is on identities/payroll.*")), "{near:?}");
    assert!(
        near.iter().any(|(_, problem)| problem.contains("the role reader, which does not have")),
        "{near:?}"
    );
    let command = "jeton access assign --member 'workloads/payments.admin' --role identity-operator --identity 'identities/payments.card'";
    assert_eq!(explained.remedies, [command]);
    let made = world.give("workloads/payments.admin", "identity-operator", card.as_str()).await;
    let again = world.access.explain_denial(&refusal.correlation_id).unwrap();
    assert_eq!(again.allowed_by.unwrap().to_string(), made);
    assert!(again.remedies.is_empty() && again.reason.contains("meanwhile"), "{}", again.reason);
}

#[tokio::test]
async fn wrong_input_is_told_what_would_be_right() {
    let world = World::new().await;
    let expired = CreateAssignment { expires_at: Some(START), ..create("loopback://dev", "reader", "*") };
    let lifeless = CreateAssignment {
        max_token_lifetime: Some(Duration::ZERO),
        ..create("loopback://dev", "token-user", PAYMENTS)
    };
    let with_target =
        CreateAssignment { targets: vec!["*".into()], ..create("loopback://dev", "reader", "*") };
    let kept_warm = CreateAssignment { keep_warm: true, ..create("loopback://dev", "reader", "*") };
    for (wrong, field, right) in [
        (create("loopback://dev", "owner", "*"), "role", "identity-operator, access-administrator, auditor"),
        (create("spiffe://prod/*", "reader", "*"), "member", "ends at a '/'"),
        (create("spiffe:///", "reader", "*"), "member", "at least a trust domain"),
        (create("loopback://dev", "reader", "identities/*"), "identity", "everything is '*' alone"),
        (create("loopback://dev", "reader", "identities/pay*"), "identity", "identities/payments.*"),
        (create("loopback://dev", "token-user", "*"), "identity", "a dotted group such as"),
        (expired, "expire_time", "lies in the past"),
        (lifeless, "max_token_lifetime", "more than nothing"),
        (with_target, "targets", "reader uses no tokens"),
        (kept_warm, "keep_warm", "reader uses no tokens"),
    ] {
        match world.access.create_assignment(wrong.clone()).await {
            Err(AccessError::Invalid { field: named, problem }) => {
                assert!(named == field && problem.contains(right), "{wrong:?}: {named}: {problem}");
            }
            other => panic!("{wrong:?}: {other:?}"),
        }
    }
}
