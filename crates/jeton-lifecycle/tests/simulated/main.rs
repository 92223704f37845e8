//! The lifecycle in simulated time: faults at every step, deaths at every commit. An oracle looks all the while: what is current is
//! accepted by the authority, and the authority lists one or two keys.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use jeton_core::{IdentityState, Step};
use jeton_lifecycle::{
    CreateWorkload, IdentityFilter, IdentityPatch, LifecycleError, LifecycleEvent, RotationSettings, Write,
    testing::{CommitFault, Fault, MemoryIdentityStore, identity_store_contract},
    verify_all,
};
use jeton_testkit::START;
use rand::{Rng, SeedableRng, rngs::SmallRng};

mod answers;
mod audited;
mod secrets;
mod spans;
mod world;
mod wrong;

use world::{S, SEEDS, World, create};

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract() {
    let store = MemoryIdentityStore::default();
    identity_store_contract(async || store.clone()).await;
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_acknowledged_at_once_and_active_when_a_grant_has_proved_it() {
    for at in ["entra", "oidc"] {
        let world = World::new().await;
        let made = world.create("identities/a", at).await.unwrap();
        assert_eq!(made.state, IdentityState::Provisioning);
        let active = world.settle("identities/a").await;
        assert_eq!(active.state, IdentityState::Active);
        assert_eq!(world.registry.calls(Step::Verified), 1);
        assert_eq!(*world.events.lock().unwrap(), [LifecycleEvent::Activated(made.uid)]);
        assert!(world.lifecycle.orphans().is_empty());
    }
}

/// Twenty seeds for every step of a rotation: each a fault at that step, once to three times, of a kind that the seed draws.
#[tokio::test(start_paused = true)]
async fn a_fault_at_any_step_of_a_rotation_leaves_a_key_in_use_that_works() {
    let steps =
        [Step::KeyMade, Step::Registered, Step::Verified, Step::Switched, Step::Overlapped, Step::Removed];
    for (step, seed) in steps.iter().flat_map(|step| (0..SEEDS).map(move |seed| (*step, seed))) {
        let mut random = SmallRng::seed_from_u64(seed);
        let at = if random.random() { "entra" } else { "oidc" };
        let mut world =
            World::with(RotationSettings { overlap_seconds: 5, ..RotationSettings::default() }).await;
        world.create("identities/a", at).await.unwrap();
        let before = world.settle("identities/a").await;
        let old = before.current().unwrap().uid;
        let dies = fault(&world, step, &mut random);
        let rotating = world.lifecycle.rotate_credential(&before.name, "").await;
        assert!(rotating.is_ok() || dies, "{rotating:?}");
        if dies {
            for _ in 0..40 {
                world.clock.advance(Duration::from_millis(500)).await;
                world.look(&world.identity("identities/a").unwrap());
            }
            world = world.restart().await;
            // Killed before it was acknowledged, it may be forgotten; asked again, it is done.
            if world.identity("identities/a").unwrap().operation.is_none()
                && world.identity("identities/a").unwrap().current().unwrap().uid == old
            {
                world.lifecycle.rotate_credential(&before.name, "").await.unwrap();
            }
        }
        for _ in 0..80 {
            let identity = world.settle("identities/a").await;
            assert_eq!(identity.state, IdentityState::Active, "{step:?} seed {seed}");
            if identity.operation.is_none() && identity.current().unwrap().uid != old {
                break;
            }
            world.clock.advance(S(10)).await;
        }
        let after = world.identity("identities/a").unwrap();
        assert!(after.operation.is_none(), "{step:?} seed {seed}: {after:?}");
        assert_ne!(after.current().unwrap().uid, old, "{step:?} seed {seed}");
        world.both_sides_know_the_same("identities/a", &format!("{step:?} seed {seed}"));
        // The key in use, and what manages the registration where it is managed by a token.
        let secrets = if at == "entra" { 1 } else { 2 };
        assert_eq!(world.store.secrets(), secrets, "{step:?} seed {seed}: the old key's secret stayed");
    }
}

/// Arms a fault at a step; whether the process dies of it.
fn fault(world: &World, step: Step, random: &mut SmallRng) -> bool {
    let times = random.random_range(1..=3);
    let outside = matches!(step, Step::Registered | Step::Verified | Step::Removed);
    let kind = random.random_range(0..if outside { 6 } else { 3 });
    match kind {
        0..=2 => {
            let fault = [CommitFault::Fails, CommitFault::DiesBefore, CommitFault::DiesAfter][kind];
            let left = AtomicU32::new(if fault == CommitFault::Fails { times } else { 1 });
            world.store.hook(move |writes| {
                let is_step = |w: &Write| match w {
                    Write::Identity(i) => match &i.operation {
                        Some(o) => o.done == Some(step),
                        None => step == Step::Removed,
                    },
                    _ => false,
                };
                let hit = writes.iter().any(is_step) && left.load(Relaxed) > 0;
                hit.then(|| {
                    left.fetch_sub(1, Relaxed);
                    fault
                })
            });
            fault != CommitFault::Fails
        }
        3 | 4 => {
            let fault = if kind == 3 { Fault::Before } else { Fault::After };
            (0..times).for_each(|_| world.registry.fail(step, fault));
            false
        }
        _ => {
            world.registry.fail(step, if random.random() { Fault::Hangs } else { Fault::HangsAfter });
            true
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_death_at_any_commit_of_a_creation_loses_nothing_and_registers_nothing_twice() {
    for (at, n) in ["entra", "oidc"].iter().flat_map(|at| (0..12).map(move |n| (*at, n))) {
        for fault in [CommitFault::DiesBefore, CommitFault::DiesAfter] {
            let mut world = World::new().await;
            let (count, died) = (AtomicU32::new(0), Arc::new(AtomicBool::new(false)));
            let dead = Arc::clone(&died);
            world.store.hook(move |_| {
                (count.fetch_add(1, Relaxed) == n).then(|| {
                    dead.store(true, Relaxed);
                    fault
                })
            });
            let lifecycle = world.lifecycle.clone();
            let acknowledged =
                tokio::time::timeout(S(1), lifecycle.create_identity(create("identities/a", at, "r"))).await;
            world.clock.advance(S(3)).await;
            drop(lifecycle);
            world = world.restart().await;
            if !matches!(acknowledged, Ok(Ok(_))) {
                world.lifecycle.create_identity(create("identities/a", at, "r")).await.unwrap();
            }
            let identity = world.settle("identities/a").await;
            assert_eq!(identity.state, IdentityState::Active, "{at}, commit {n}, {fault:?}");
            let clients = world.registry.clients();
            let orphans = world.lifecycle.orphans().len();
            // Where a client can be looked up there is exactly one; else one more at most, and that one is listed.
            assert!(
                clients.len() <= 1 + orphans && orphans <= usize::from(at == "oidc"),
                "{at}, commit {n}: {clients:?}, {orphans} orphans"
            );
            assert!(world.registry.accepts(&identity, identity.current().unwrap()));
            if !died.load(Relaxed) {
                assert!(n > 3, "the whole creation took {n} commits");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_leaves_a_suspected_orphan_only_where_nothing_can_be_looked_up() {
    for (at, expected) in [("entra", 0), ("oidc", 1)] {
        let world = World::new().await;
        world.registry.fail(Step::Registered, Fault::After);
        world.create("identities/a", at).await.unwrap();
        assert_eq!(world.settle("identities/a").await.state, IdentityState::Active);
        assert_eq!(
            (world.lifecycle.orphans().len(), world.registry.clients().len()),
            (expected, 1 + expected),
            "{at}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_creation_fails_with_words_and_enabling_tries_again() {
    let world = World::new().await;
    world.registry.fail(Step::Registered, Fault::Refused);
    let made = world.create("identities/a", "entra").await.unwrap();
    let failed = world.settle("identities/a").await;
    assert_eq!(failed.state, IdentityState::Failed);
    assert_eq!(failed.operation.as_ref().unwrap().last_error.as_deref(), Some("it is refused"));
    world.lifecycle.enable_identity(&made.name, "").await.unwrap();
    assert_eq!(world.settle("identities/a").await.state, IdentityState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_refused_rotation_leaves_the_old_key_in_use_and_begins_anew_later() {
    let world = World::new().await;
    let made = world.create("identities/a", "entra").await.unwrap();
    let old = world.settle("identities/a").await.current().unwrap().uid;
    world.registry.fail(Step::Registered, Fault::Refused);
    world.lifecycle.rotate_credential(&made.name, "").await.unwrap();
    world.clock.advance(S(10)).await;
    let during = world.identity("identities/a").unwrap();
    assert_eq!((during.state, during.current().unwrap().uid), (IdentityState::Active, old));
    world.look(&during);
    world.clock.advance(S(3_700)).await;
    assert_ne!(world.settle("identities/a").await.current().unwrap().uid, old);
}

#[tokio::test(start_paused = true)]
async fn after_a_restored_backup_each_identity_is_proved_by_a_grant_and_only_a_refused_one_gets_another_key()
{
    let world = World::new().await;
    for name in ["identities/a", "identities/b"] {
        world.create(name, "entra").await.unwrap();
        world.settle(name).await;
    }
    let keys = |world: &World| {
        ["identities/a", "identities/b"].map(|name| world.identity(name).unwrap().current().unwrap().uid)
    };
    let (before, registered) = (keys(&world), world.registry.calls(Step::Registered));
    assert_eq!(verify_all(&world.store, START).await.unwrap(), 2);
    let world = world.restart().await;
    for name in ["identities/a", "identities/b"] {
        assert_eq!(world.settle(name).await.operation, None);
    }
    assert_eq!((keys(&world), world.registry.calls(Step::Registered)), (before, registered));
    verify_all(&world.store, START).await.unwrap();
    let world = world.restart().await;
    world.registry.fail(Step::Verified, Fault::Refused);
    for name in ["identities/a", "identities/b"] {
        world.settle(name).await;
    }
    let after = keys(&world);
    let renewed = before.iter().zip(&after).filter(|(old, new)| old != new).count();
    assert_eq!(
        (renewed, world.registry.calls(Step::Registered)),
        (1, registered + 1),
        "the one that was refused"
    );
    assert_eq!(world.registry.clients().len(), 2, "nothing is registered twice");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_rotated_at_its_age_and_the_old_one_goes_after_the_overlap() {
    let rotation = RotationSettings { valid_for_seconds: 3_000, after_seconds: 1_000, overlap_seconds: 300 };
    let world = World::with(rotation).await;
    world.create("identities/a", "entra").await.unwrap();
    let first = world.settle("identities/a").await;
    let old = first.current().unwrap().uid;
    world.clock.advance(S(880)).await;
    assert_eq!(
        world.identity("identities/a").unwrap().current().unwrap().uid,
        old,
        "not before 90 % of the age"
    );
    world.clock.advance(S(300)).await;
    let rotated = world.identity("identities/a").unwrap();
    assert_ne!(rotated.current().unwrap().uid, old, "at 110 % at the latest, looked at once a minute");
    world.clock.advance(S(400)).await;
    let after = world.identity("identities/a").unwrap();
    assert!(after.operation.is_none() && after.overlap().is_none());
    assert_eq!(world.registry.clients()[0].2.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_during_an_overlap_ends_it_first() {
    let world = World::new().await;
    let made = world.create("identities/a", "entra").await.unwrap();
    world.settle("identities/a").await;
    world.lifecycle.rotate_credential(&made.name, "").await.unwrap();
    let second = world.settle("identities/a").await.current().unwrap().uid;
    world.lifecycle.rotate_credential(&made.name, "").await.unwrap();
    for _ in 0..50 {
        world.clock.advance(Duration::from_millis(100)).await;
        world.look(&world.identity("identities/a").unwrap());
    }
    let third = world.settle("identities/a").await;
    assert_ne!(third.current().unwrap().uid, second);
    assert_eq!(third.overlap().unwrap().uid, second);
}

#[tokio::test(start_paused = true)]
async fn deleting_removes_the_client_the_record_and_every_secret() {
    for at in ["entra", "oidc"] {
        let world = World::new().await;
        let made = world.create("identities/a", at).await.unwrap();
        world.settle("identities/a").await;
        world.registry.fail(Step::Removed, Fault::After);
        world.lifecycle.delete_identity(&made.name, "").await.unwrap();
        assert!(!world.identity("identities/a").unwrap().may_issue());
        world.clock.advance(S(10)).await;
        assert!(world.identity("identities/a").is_none());
        assert!(world.registry.clients().is_empty());
        assert_eq!(world.store.secrets(), 0);
        assert!(world.events.lock().unwrap().contains(&LifecycleEvent::Removed(made.uid)));
        let again = world.create("identities/a", at).await.unwrap();
        assert_ne!(again.uid, made.uid);
    }
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_deleted_while_it_is_registered_leaves_no_client_behind() {
    for (at, wait) in ["entra", "oidc"].iter().flat_map(|at| (0..6).map(move |n| (*at, n * 50))) {
        let world = World::new().await;
        let made = world.create("identities/a", at).await.unwrap();
        world.clock.advance(Duration::from_millis(wait)).await;
        world.lifecycle.delete_identity(&made.name, "").await.unwrap();
        world.clock.advance(S(30)).await;
        assert!(world.identity("identities/a").is_none());
        assert!(world.registry.clients().is_empty(), "{at} after {wait} ms: {:?}", world.registry.clients());
    }
}

#[tokio::test(start_paused = true)]
async fn a_workloads_own_identity_comes_and_goes_with_it() {
    let world = World::new().await;
    let name = "workloads/w".parse().unwrap();
    let principals = vec!["unix://n/uid/1".parse().unwrap()];
    let (display_name, labels, request_id) = (String::new(), Default::default(), String::new());
    let create = CreateWorkload { name, principals, display_name, labels, request_id };
    let made = world.lifecycle.create_workload(create).await.unwrap();
    world
        .lifecycle
        .enable_system_identity(&made.name, &"authorities/entra".parse().unwrap(), "")
        .await
        .unwrap();
    let own = world.settle("identities/w-system").await;
    assert_eq!((own.state, own.workload), (IdentityState::Active, Some(made.uid)));
    let refused = world.lifecycle.delete_identity(&own.name, "").await;
    assert!(matches!(refused, Err(LifecycleError::Precondition(_))));
    world.lifecycle.delete_workload(&made.name, "").await.unwrap();
    world.clock.advance(S(10)).await;
    assert!(world.identity("identities/w-system").is_none() && world.registry.clients().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_changes_and_is_over_when_it_is_over() {
    let world = World::new().await;
    world.store.hook(|_| Some(CommitFault::Fails));
    let refused = world.create("identities/a", "entra").await;
    assert!(matches!(refused, Err(LifecycleError::Store(_))), "{refused:?}");
    assert!(world.identity("identities/a").is_none(), "what was not written is not shown");
    world.store.heal();
    world.create("identities/a", "entra").await.unwrap();
    assert_eq!(world.settle("identities/a").await.state, IdentityState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_request_id_repeats_a_change_and_never_makes_another() {
    let world = World::new().await;
    let first = world.lifecycle.create_identity(create("identities/a", "entra", "one")).await.unwrap();
    let second = world.lifecycle.create_identity(create("identities/a", "entra", "one")).await.unwrap();
    assert_eq!(first.uid, second.uid);
    let other = world.lifecycle.create_identity(create("identities/b", "entra", "one")).await;
    assert!(matches!(other, Err(LifecycleError::RequestIdReused(_))), "{other:?}");
    let plain = world.lifecycle.create_identity(create("identities/a", "entra", "")).await;
    assert!(matches!(plain, Err(LifecycleError::Exists(_))), "{plain:?}");
    world.settle("identities/a").await;
    let patch = IdentityPatch { display_name: Some("A".into()), labels: None };
    let changed = world.lifecycle.update_identity(&first.name, patch.clone(), "two").await.unwrap();
    let again = world.lifecycle.update_identity(&first.name, patch, "two").await.unwrap();
    assert_eq!(changed.version, again.version);
}

#[tokio::test(start_paused = true)]
async fn pages_go_on_after_the_last_name_and_filters_hold() {
    let world = World::new().await;
    for n in 0..25 {
        world
            .create(&format!("identities/i{n:02}"), if n % 5 == 0 { "oidc" } else { "entra" })
            .await
            .unwrap();
    }
    let directory = world.lifecycle.directory();
    let (mut seen, mut after) = (vec![], None);
    loop {
        let page = IdentityFilter::default().page(&directory, after.as_ref(), 10);
        seen.extend(page.items.iter().map(|i| i.name.to_string()));
        after = page.items.last().map(|i| i.name.clone());
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, (0..25).map(|n| format!("identities/i{n:02}")).collect::<Vec<_>>());
    let oidc = directory.authority_named(&"authorities/oidc".parse().unwrap()).unwrap().uid;
    let filter = IdentityFilter { authority: Some(oidc), ..IdentityFilter::default() };
    assert_eq!(filter.page(&directory, None, 100).items.len(), 5);
    let filter = IdentityFilter { state: Some(IdentityState::Disabled), ..IdentityFilter::default() };
    assert!(filter.page(&directory, None, 100).items.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_does_not_stop_an_overlap_for_ever() {
    let world = World::with(RotationSettings { overlap_seconds: 60, ..RotationSettings::default() }).await;
    let made = world.create("identities/a", "entra").await.unwrap();
    world.settle("identities/a").await;
    world.lifecycle.rotate_credential(&made.name, "").await.unwrap();
    world.settle("identities/a").await;
    world.clock.step_wall(-30_000);
    world.clock.advance(S(120)).await;
    assert!(world.identity("identities/a").unwrap().operation.is_none());
}
