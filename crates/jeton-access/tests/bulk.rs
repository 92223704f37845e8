//! A bulk load: every change is published at once, and costs the same however many there were before.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{sync::Arc, time::Duration};

use jeton_access::{Access, AccessSettings, CreateAssignment, testing::MemoryAccessStore};
use jeton_core::{Directory, Identity, IdentityKind, IdentityState, SharedDirectory, Uid};
use jeton_testkit::{ManualClock, START};
use rustix::time::{ClockId, clock_gettime};

/// What this thread, which does all the work, had of a processor: others that want it change nothing.
fn worked() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

fn uid(n: usize) -> Uid {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    Uid::new(START, random)
}

fn identity(n: usize) -> Identity {
    Identity {
        uid: uid(n),
        name: format!("identities/bulk.n{n:06}").parse().unwrap(),
        display_name: String::new(),
        labels: Default::default(),
        kind: IdentityKind::Created,
        workload: None,
        authority: uid(0),
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

/// How long it takes to make so many assignments of one member on one identity, and then to take them all back again.
async fn load_one(count: usize) -> Duration {
    let directory = SharedDirectory::default();
    let mut next = Directory::default();
    next.put_authority(Arc::new(jeton_lifecycle::testing::authority("a", uid(0), true)));
    next.put_identity(Arc::new(identity(1)));
    directory.publish(next);
    let (store, clock) = (Arc::new(MemoryAccessStore::default()), Arc::new(ManualClock::default()));
    let settings = AccessSettings { max_remembered_denials: 10, ..AccessSettings::default() };
    let access = Access::start(&settings, store, clock, directory, 1).await.unwrap();
    let start = worked();
    for n in 0..count {
        let create = CreateAssignment {
            id: format!("a{n}"),
            member: "unix://n/uid/1".into(),
            identity: "identities/bulk.n000001".into(),
            targets: vec![format!("scope:s{n}")],
            ..CreateAssignment::default()
        };
        access.create_assignment(create).await.unwrap();
    }
    for n in 0..count {
        access.delete_assignment(&format!("roleAssignments/a{n}").parse().unwrap(), "").await.unwrap();
    }
    let taken = worked() - start;
    assert!(access.snapshot().is_empty());
    taken
}

/// How long it takes to publish so many identities and an assignment for each, and then to take them all away again.
async fn load(count: usize) -> Duration {
    let directory = SharedDirectory::default();
    let mut next = Directory::default();
    next.put_authority(Arc::new(jeton_lifecycle::testing::authority("a", uid(0), true)));
    directory.publish(next);
    let (store, clock) = (Arc::new(MemoryAccessStore::default()), Arc::new(ManualClock::default()));
    let settings = AccessSettings { max_remembered_denials: 10, ..AccessSettings::default() };
    let access = Access::start(&settings, store, clock, directory.clone(), 1).await.unwrap();
    let start = worked();
    for n in 1..=count {
        let mut next = directory.snapshot().as_ref().clone();
        next.put_identity(Arc::new(identity(n)));
        directory.publish(next);
        let create = CreateAssignment {
            member: "unix://n/uid/1".into(),
            identity: format!("identities/bulk.n{n:06}"),
            targets: vec!["*".into()],
            request_id: n.to_string(),
            ..CreateAssignment::default()
        };
        access.create_assignment(create).await.unwrap();
    }
    assert_eq!((directory.load().identity_count(), access.snapshot().len()), (count, count));
    for n in 1..=count {
        access.forget(uid(n)).await.unwrap();
    }
    let taken = worked() - start;
    assert!(access.snapshot().is_empty());
    taken
}

#[tokio::test]
async fn four_times_as_many_identities_and_assignments_cost_less_than_eight_times_as_much() {
    let (mut few, mut many) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        few = few.min(load(2_000).await);
        many = many.min(load(8_000).await);
    }
    println!("2,000: {few:?}, 8,000: {many:?}");
    assert!(many < few * 8, "2,000 took {few:?}, and 8,000 {many:?}");
}

#[tokio::test]
async fn four_times_as_many_assignments_of_one_member_on_one_identity_cost_less_than_eight_times_as_much() {
    let (mut few, mut many) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        few = few.min(load_one(2_000).await);
        many = many.min(load_one(8_000).await);
    }
    println!("2,000: {few:?}, 8,000: {many:?}");
    assert!(many < few * 8, "2,000 took {few:?}, and 8,000 {many:?}");
}
