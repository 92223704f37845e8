//! Answers that are lost, slow, or cannot be written down.

use std::time::Duration;

use jeton_core::{IdentityState, Operation, OperationKind, Step, Uid};
use jeton_lifecycle::{
    IdentityStore, RotationSettings, Write,
    testing::{CommitFault, Fault},
};

use crate::world::{S, World};

async fn active(world: &World, at: &str) -> Uid {
    world.create("identities/a", at).await.unwrap();
    let identity = world.settle("identities/a").await;
    assert_eq!(identity.state, IdentityState::Active);
    identity.uid
}

fn name() -> jeton_core::IdentityName {
    "identities/a".parse().unwrap()
}

fn short_overlap() -> RotationSettings {
    RotationSettings { overlap_seconds: 5, ..RotationSettings::default() }
}

/// Until no operation is under way.
async fn idle(world: &World) {
    for _ in 0..100 {
        if world.settle("identities/a").await.operation.is_none() {
            return;
        }
        world.clock.advance(S(5)).await;
    }
    panic!("still at work: {:?}", world.identity("identities/a"));
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_answer_is_lost_leads_to_another_client_and_lists_the_one_before() {
    for step in [Step::Registered, Step::Removed] {
        let world = World::with(short_overlap()).await;
        active(&world, "oidc").await;
        let before = world.identity("identities/a").unwrap();
        world.registry.fail(step, Fault::After);
        world.lifecycle.rotate_credential(&name(), "").await.unwrap();
        idle(&world).await;
        let after = world.identity("identities/a").unwrap();
        assert_ne!(after.client_id, before.client_id, "{step:?}");
        assert_ne!(after.current().unwrap().uid, before.current().unwrap().uid, "{step:?}");
        let orphans = world.lifecycle.orphans();
        assert_eq!(orphans.len(), 1, "{step:?}");
        assert_eq!(orphans[0].client_id, before.client_id, "{step:?}");
        world.both_sides_know_the_same("identities/a", &format!("{step:?}"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_client_in_use_stays_in_use_until_another_one_has_proved_itself() {
    let world = World::with(short_overlap()).await;
    active(&world, "oidc").await;
    let before = world.identity("identities/a").unwrap();
    world.registry.fail(Step::Registered, Fault::After);
    world.registry.fail(Step::Verified, Fault::Refused);
    world.lifecycle.rotate_credential(&name(), "").await.unwrap();
    world.clock.advance(S(60)).await;
    let during = world.identity("identities/a").unwrap();
    assert_eq!(during.operation.as_ref().unwrap().step(), Some(Step::Verified));
    assert_eq!((&during.client_id, during.current()), (&before.client_id, before.current()));
    world.look(&during);
    world.clock.advance(S(3_700)).await;
    idle(&world).await;
    assert_ne!(world.identity("identities/a").unwrap().client_id, before.client_id);
    world.both_sides_know_the_same("identities/a", "after the hour");
}

#[tokio::test(start_paused = true)]
async fn deleting_what_cannot_be_managed_any_more_removes_the_record_and_lists_the_client() {
    let world = World::new().await;
    active(&world, "oidc").await;
    let client_id = world.identity("identities/a").unwrap().client_id.clone();
    world.registry.fail(Step::Registered, Fault::After);
    world.lifecycle.rotate_credential(&name(), "").await.unwrap();
    world.clock.advance(Duration::from_millis(400)).await;
    assert!(world.identity("identities/a").unwrap().is_in_doubt());
    world.lifecycle.delete_identity(&name(), "").await.unwrap();
    world.clock.advance(S(10)).await;
    assert!(world.identity("identities/a").is_none());
    let orphans = world.lifecycle.orphans();
    assert_eq!((orphans.len(), &orphans[0].client_id), (1, &client_id));
    assert_eq!(world.store.load().await.unwrap().orphans, orphans, "the list is durable");
    world.lifecycle.delete_authority(&"authorities/oidc".parse().unwrap(), "").await.unwrap();
    assert!(world.lifecycle.orphans().is_empty(), "it goes with its authority");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_was_heard_leaves_nothing_in_doubt() {
    let world = World::new().await;
    active(&world, "oidc").await;
    world.registry.fail(Step::Registered, Fault::Refused);
    world.lifecycle.rotate_credential(&name(), "").await.unwrap();
    world.clock.advance(S(10)).await;
    let refused = world.identity("identities/a").unwrap();
    assert!(!refused.is_in_doubt() && refused.operation.as_ref().unwrap().permanent);
}

#[tokio::test(start_paused = true)]
async fn many_lost_answers_of_one_identity_are_one_entry() {
    let world = World::new().await;
    (0..12).for_each(|_| world.registry.fail(Step::Registered, Fault::After));
    world.create("identities/a", "oidc").await.unwrap();
    world.settle("identities/a").await;
    let orphans = world.lifecycle.orphans();
    assert_eq!(orphans.len(), 1, "{orphans:?}");
    assert_eq!(orphans[0].repeated, 11);
    world.both_sides_know_the_same("identities/a", "twelve lost answers");
}

#[tokio::test(start_paused = true)]
async fn what_an_authority_handed_out_is_kept_in_hand_while_the_disk_is_full() {
    for at in ["entra", "oidc"] {
        let world = World::new().await;
        let registered = |write: &Write| matches!(write, Write::Identity(i) if i.client_id.is_some());
        world.store.hook(move |writes| writes.iter().any(registered).then_some(CommitFault::Fails));
        world.create("identities/a", at).await.unwrap();
        world.clock.advance(S(30)).await;
        world.store.heal();
        assert_eq!(world.settle("identities/a").await.state, IdentityState::Active);
        assert_eq!(world.registry.calls(Step::Registered), 1, "{at}: it was registered once");
        assert!(world.lifecycle.orphans().is_empty(), "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_orderly_stop_waits_for_the_answers_of_steps_in_hand() {
    for (operation, step) in
        [(OperationKind::Provision, Step::Registered), (OperationKind::Rotate, Step::Registered)]
    {
        let mut world = World::with(short_overlap()).await;
        if operation == OperationKind::Rotate {
            active(&world, "oidc").await;
            world.registry.fail(step, Fault::Slow);
            world.lifecycle.rotate_credential(&name(), "").await.unwrap();
        } else {
            world.registry.fail(step, Fault::Slow);
            world.create("identities/a", "oidc").await.unwrap();
        }
        world.clock.advance(S(1)).await;
        world = world.stop_and_start().await;
        idle(&world).await;
        assert_eq!(world.registry.clients().len(), 1, "{operation:?}");
        assert!(world.lifecycle.orphans().is_empty(), "{operation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_orderly_stop_does_not_wait_for_an_answer_that_never_comes() {
    let mut world = World::new().await;
    world.registry.fail(Step::Registered, Fault::Hangs);
    world.create("identities/a", "oidc").await.unwrap();
    world.clock.advance(S(1)).await;
    let before = tokio::time::Instant::now();
    world = world.stop_and_start().await;
    assert!(before.elapsed() <= S(6), "{:?}", before.elapsed());
    assert_eq!(world.settle("identities/a").await.state, IdentityState::Active);
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_does_not_answer_holds_up_no_other() {
    let world = World::new().await;
    for n in 0..40 {
        world.registry.fail(Step::Registered, Fault::Hangs);
        world.create(&format!("identities/stuck-{n}"), "entra").await.unwrap();
    }
    world.clock.advance(S(5)).await;
    assert_eq!(world.registry.calls(Step::Registered), 8, "as many as may be under way at one authority");
    assert_eq!(world.registry.heal(), 32);
    world.create("identities/a", "oidc").await.unwrap();
    world.clock.advance(S(5)).await;
    assert_eq!(world.identity("identities/a").unwrap().state, IdentityState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_kill_loses_at_most_one_answer_that_cannot_be_had_again() {
    let mut world = World::new().await;
    for n in 0..10 {
        world.registry.fail(Step::Registered, Fault::HangsAfter);
        world.create(&format!("identities/n{n}"), "oidc").await.unwrap();
    }
    world.clock.advance(S(5)).await;
    world = world.restart().await;
    world.registry.heal();
    for n in 0..10 {
        world.settle(&format!("identities/n{n}")).await;
    }
    assert_eq!((world.lifecycle.orphans().len(), world.registry.clients().len()), (1, 11));
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_is_asked_for_while_the_old_key_is_removed_is_done_after_it() {
    let world = World::with(short_overlap()).await;
    active(&world, "entra").await;
    world.lifecycle.rotate_credential(&name(), "").await.unwrap();
    let second = world.settle("identities/a").await.current().unwrap().uid;
    world.registry.fail(Step::Removed, Fault::Slow);
    for _ in 0..100 {
        world.clock.advance(Duration::from_millis(100)).await;
        let step = world.identity("identities/a").unwrap().operation.as_ref().and_then(Operation::step);
        if step == Some(Step::Removed) {
            break;
        }
    }
    world.lifecycle.rotate_credential(&name(), "").await.unwrap();
    idle(&world).await;
    assert_ne!(world.identity("identities/a").unwrap().current().unwrap().uid, second);
}

#[tokio::test(start_paused = true)]
async fn repeating_a_deletion_with_its_request_id_succeeds_when_the_identity_is_gone() {
    let world = World::new().await;
    active(&world, "entra").await;
    assert!(world.lifecycle.delete_identity(&name(), "once").await.unwrap().is_some());
    world.clock.advance(S(10)).await;
    assert!(world.identity("identities/a").is_none());
    assert!(world.lifecycle.delete_identity(&name(), "once").await.unwrap().is_none());
    assert!(world.lifecycle.delete_identity(&name(), "twice").await.is_err());
    // One that was made anew under the name is not what was deleted.
    let again = active(&world, "entra").await;
    assert!(world.lifecycle.delete_identity(&name(), "once").await.unwrap().is_none());
    assert_eq!(world.identity("identities/a").unwrap().uid, again);
}

#[tokio::test(start_paused = true)]
async fn only_a_refused_registrar_leaves_no_doubt_about_a_first_registration() {
    for (fault, in_doubt) in [(Fault::Unauthorized, false), (Fault::Refused, true)] {
        let world = World::new().await;
        world.registry.fail(Step::Registered, fault);
        world.create("identities/a", "entra").await.unwrap();
        let failed = world.settle("identities/a").await;
        assert_eq!((failed.state, failed.is_in_doubt()), (IdentityState::Failed, in_doubt), "{fault:?}");
        world.lifecycle.enable_identity(&name(), "").await.unwrap();
        assert!(!world.settle("identities/a").await.is_in_doubt(), "{fault:?}");
    }
}
