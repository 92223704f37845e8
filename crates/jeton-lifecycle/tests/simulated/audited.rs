//! No key is made, registered, switched or removed that is not on the audit trail before.

use jeton_core::{AuditEvent, AuditKind, AuditOutcome, IdentityState, OperationKind, Step};
use jeton_lifecycle::{RotationSettings, testing::Fault};

use crate::world::{S, World};

fn steps(events: &[AuditEvent], outcome: AuditOutcome) -> Vec<&str> {
    let of_kind = events.iter().filter(|e| e.kind == AuditKind::KeyStep && e.outcome == outcome);
    of_kind.filter_map(|e| e.method.as_deref()).collect()
}

#[tokio::test(start_paused = true)]
async fn every_step_that_changes_a_key_has_its_intent_and_then_its_outcome() {
    let overlap = RotationSettings { overlap_seconds: 5, ..RotationSettings::default() };
    let world = World::with(overlap).await;
    world.create("identities/a", "entra").await.unwrap();
    let first = world.settle("identities/a").await;
    world.lifecycle.rotate_credential(&first.name, "").await.unwrap();
    while world.identity("identities/a").unwrap().operation.is_some() {
        world.clock.advance(S(1)).await;
    }
    let second = world.identity("identities/a").unwrap();
    world.lifecycle.delete_identity(&first.name, "").await.unwrap();
    while world.identity("identities/a").is_some() {
        world.clock.advance(S(1)).await;
    }
    let events = world.trail.events();
    let all = [
        "provision/key_made",
        "provision/registered",
        "provision/switched",
        "rotate/key_made",
        "rotate/registered",
        "rotate/switched",
        "rotate/removed",
        "delete/removed",
    ];
    assert_eq!(steps(&events, AuditOutcome::Intent), all);
    assert_eq!(steps(&events, AuditOutcome::Ok), all);
    for pair in events.chunks(2) {
        assert_eq!(pair[0].correlation_id, pair[1].correlation_id, "an outcome follows its intent");
        assert_eq!(pair[0].resources[0].uid, Some(first.uid));
    }
    // A key is named from the moment it is made to the moment it is gone.
    let (old, new) = (first.current().unwrap().uid, second.current().unwrap().uid);
    let keys: Vec<_> = events.iter().skip(1).step_by(2).map(|e| e.credential).collect();
    assert_eq!(keys, [old, old, old, new, new, new, old, new].map(Some));
}

#[tokio::test(start_paused = true)]
async fn without_a_trail_no_key_is_made_or_registered_and_all_goes_on_soon_after_it_is_back() {
    let world = World::new().await;
    world.trail.set_broken(true);
    world.create("identities/a", "entra").await.unwrap();
    world.clock.advance(S(60)).await;
    let waiting = world.identity("identities/a").unwrap();
    assert!(waiting.credentials.is_empty() && waiting.state == IdentityState::Provisioning);
    assert_eq!(world.registry.calls(Step::Registered), 0);
    assert_eq!(world.trail.events(), []);
    world.trail.set_broken(false);
    world.clock.advance(S(3)).await;
    assert!(!world.identity("identities/a").unwrap().credentials.is_empty(), "no back-off grew meanwhile");
    assert_eq!(world.settle("identities/a").await.state, IdentityState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_failed_is_said_to_have_failed_and_by_which_kind_of_fault() {
    let world = World::new().await;
    world.registry.fail(Step::Registered, Fault::Refused);
    world.create("identities/a", "entra").await.unwrap();
    assert_eq!(world.settle("identities/a").await.state, IdentityState::Failed);
    let events = world.trail.events();
    let last = events.last().unwrap();
    assert_eq!((last.outcome, last.reason.as_deref()), (AuditOutcome::Failed, Some("permanent")));
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_hears_of_every_step_that_was_tried_and_why_it_failed() {
    let world = World::new().await;
    world.registry.fail(Step::Verified, Fault::Before);
    world.create("identities/a", "entra").await.unwrap();
    world.settle("identities/a").await;
    let tried = world.tried.lock().unwrap().clone();
    let steps: Vec<_> = tried.iter().map(|(_, step, failure)| (*step, failure.is_some())).collect();
    let (done, failed) = (false, true);
    let expected = [
        (Step::KeyMade, done),
        (Step::Registered, done),
        (Step::Verified, failed),
        (Step::Verified, done),
        (Step::Switched, done),
    ];
    assert_eq!(steps, expected);
    assert!(tried.iter().all(|(kind, ..)| *kind == OperationKind::Provision));
}
