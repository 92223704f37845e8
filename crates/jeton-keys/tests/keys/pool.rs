//! What the pool of assertions that were signed ahead promises.

use std::{collections::HashSet, sync::Arc, time::Duration};

use jeton_core::{AssertionRequest, Assertions, Clock, profile::AssertionProfile};
use jeton_keys::KeysSettings;
use secrecy::ExposeSecret;

use crate::{World, with_lifetime};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_assertion_is_handed_out_once_however_many_ask_at_the_same_time() {
    let world = World::new();
    let request = world.p256().await;
    let takers: Vec<_> = (0..500)
        .map(|_| {
            let (keys, request) = (world.keys.clone(), request.clone());
            tokio::spawn(async move { keys.take(request).await.unwrap().jwt.expose_secret().to_owned() })
        })
        .collect();
    let mut seen = HashSet::new();
    for taker in takers {
        assert!(seen.insert(taker.await.unwrap()), "the same assertion twice");
    }
    assert!(world.presigned().await <= 1, "one in reserve, however many missed");
}

#[tokio::test]
async fn what_was_signed_ahead_is_taken_and_never_with_too_little_life() {
    // Seconds of life, 5 of them gone at signing, and how long it may then wait: two minutes are left, or a third of a shorter life.
    for (lifetime, may_wait) in [(600, 475), (361, 236), (300, 195), (60, 35), (20, 8)] {
        for (waits, from_pool) in [(may_wait, 1), (may_wait + 1, 0)] {
            let world = World::new();
            let request = with_lifetime(&world.p256().await, lifetime);
            world.keys.prepare(&request, Duration::ZERO);
            assert_eq!(world.presigned().await, 1);
            world.clock.suspend(Duration::from_secs(waits));
            let assertion = world.keys.take(request).await.unwrap();
            let stats = world.keys.stats();
            assert_eq!(
                (stats.taken_from_pool, stats.expired_unused),
                (from_pool, 1 - from_pool),
                "{lifetime} s, {waits} s later"
            );
            let left = assertion.expires_at.saturating_since(world.clock.now().wall).as_secs();
            assert!(left >= 120.min(u64::from(lifetime) / 3), "{left} s left of {lifetime}");
        }
    }
}

#[tokio::test]
async fn what_would_be_too_old_when_it_is_sent_is_not_signed_ahead() {
    let world = World::new();
    let request = with_lifetime(&world.p256().await, 30);
    world.keys.prepare(&request, Duration::from_secs(16));
    assert_eq!((world.presigned().await, world.keys.stats().signed), (0, 0));
    world.keys.prepare(&request, Duration::from_secs(15));
    assert_eq!(world.presigned().await, 1);
}

#[tokio::test]
async fn every_target_that_is_due_has_an_assertion_of_its_own() {
    let world = World::new();
    let request = world.p256().await;
    for _ in 0..10 {
        world.keys.prepare(&request, SOON);
    }
    assert_eq!(world.presigned().await, 10);
    world.clock.suspend(SOON);
    for _ in 0..10 {
        world.keys.take(request.clone()).await.unwrap();
    }
    let stats = world.keys.stats();
    assert_eq!((stats.taken_from_pool, stats.signed, stats.presigned), (10, 10, 0));
}

#[tokio::test]
async fn a_reserve_that_will_be_too_old_does_not_stand_in_for_what_is_due() {
    let world = World::new();
    let request = world.p256().await;
    world.keys.take(request.clone()).await.unwrap();
    assert_eq!(world.presigned().await, 1, "who missed once has one in reserve");
    world.clock.suspend(Duration::from_secs(470));
    world.keys.prepare(&request, SOON);
    assert_eq!(world.presigned().await, 2);
    world.clock.suspend(SOON);
    world.keys.take(request).await.unwrap();
    let stats = world.keys.stats();
    assert_eq!((stats.taken_from_pool, stats.expired_unused, stats.signed), (1, 1, 3));
}

#[tokio::test]
async fn the_pool_is_emptied_by_a_new_profile_a_changed_skew_and_a_discard() {
    let world = World::new();
    let request = world.p256().await;
    let mut other_profile = request.clone();
    other_profile.profile =
        Arc::new(AssertionProfile { lifetime_seconds: 300, ..request.profile.as_ref().clone() });
    let other_skew = AssertionRequest { skew_millis: 2_001, ..request.clone() };
    for changed in [other_profile, other_skew] {
        world.keys.prepare(&request, SOON);
        assert_eq!(world.presigned().await, 1);
        world.keys.take(changed.clone()).await.unwrap();
        assert_eq!(world.keys.stats().taken_from_pool, 0);
        world.keys.discard(changed.credential);
    }
    let near = AssertionRequest { skew_millis: 1_999, ..request.clone() };
    world.keys.prepare(&request, SOON);
    assert_eq!(world.presigned().await, 1);
    world.keys.take(near).await.unwrap();
    assert_eq!(world.keys.stats().taken_from_pool, 1);
    world.keys.prepare(&request, SOON);
    assert_eq!(world.presigned().await, 1);
    world.keys.discard(request.credential);
    assert_eq!(world.keys.stats().presigned, 0);
}

#[tokio::test]
async fn what_comes_after_a_discard_is_dropped_and_gives_its_place_back() {
    let world = World::with(KeysSettings { max_presigned: 1, ..KeysSettings::default() });
    let request = world.p256().await;
    world.keys.prepare(&request, SOON);
    world.keys.discard(request.credential);
    assert_eq!(world.presigned().await, 0);
    world.keys.prepare(&request, SOON);
    assert_eq!(world.presigned().await, 1);
}

#[tokio::test]
async fn the_pool_is_bounded_however_many_ask_at_the_same_time() {
    let world = World::with(KeysSettings { max_presigned: 4, ..KeysSettings::default() });
    let mut requests = vec![];
    for _ in 0..8 {
        requests.push(world.p256().await);
    }
    for request in requests.iter().chain(&requests) {
        world.keys.prepare(request, SOON);
        let stats = world.keys.stats();
        assert!(stats.presigned + stats.coming <= 4, "{stats:?}");
    }
    assert_eq!(world.presigned().await, 4);
    for request in &requests {
        world.keys.take(request.clone()).await.unwrap();
    }
    assert_eq!(world.keys.stats().taken_from_pool, 4);
}

#[tokio::test]
async fn one_credential_does_not_fill_the_pool() {
    let world = World::new();
    let request = world.p256().await;
    for _ in 0..100 {
        world.keys.prepare(&request, SOON);
    }
    assert_eq!(world.presigned().await, 64);
}

#[tokio::test]
async fn what_expired_makes_room_for_others() {
    let world = World::with(KeysSettings { max_presigned: 1, ..KeysSettings::default() });
    let (one, other) = (world.p256().await, world.p256().await);
    world.keys.prepare(&one, SOON);
    assert_eq!(world.presigned().await, 1);
    world.clock.suspend(Duration::from_secs(600));
    world.keys.prepare(&other, SOON);
    assert_eq!(world.presigned().await, 1);
    world.keys.take(other).await.unwrap();
    assert_eq!(world.keys.stats().taken_from_pool, 1);
}
