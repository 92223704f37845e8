//! Connections that grow old.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jeton_server::door::DoorSettings;
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    frames::{Raw, lives},
    support::{PATIENCE, open, peer, request},
    ways::{WAYS, Way, call},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_is_asked_to_end_and_what_is_in_flight_finishes() {
    let settings = DoorSettings { max_age_ms: 4_000, age_grace_ms: 20_000, ..DoorSettings::default() };
    let door = open(settings).await;
    join_all(WAYS.map(|way| {
        let address = door.address;
        async move {
            let mut peer = peer(address).await;
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            // Under way when the age comes.
            assert!(way.begin(&mut peer, 4_000).await.answered_well().await, "{way:?}");
            let ended = timeout(PATIENCE, peer.connection).await.unwrap().unwrap();
            assert!(ended.is_ok(), "{way:?}: GOAWAY, and an orderly end");
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_whose_peer_holds_on_is_cut_after_its_grace() {
    let door = open(DoorSettings { max_age_ms: 1_000, age_grace_ms: 300, ..DoorSettings::default() }).await;
    let mut peer = peer(door.address).await;
    let start = Instant::now();
    let held = peer.call(request("60000")).await;
    assert!(
        held.is_err() && start.elapsed() < Duration::from_secs(9),
        "{held:?} after {:?}",
        start.elapsed()
    );
}

async fn lives_its_age(way: Way) {
    let age = Duration::from_secs(2);
    let settings = DoorSettings { max_age_ms: 2_000, age_grace_ms: 20_000, ..DoorSettings::default() };
    let door = open(settings).await;
    let ask = move |stream| match way {
        Way::Long => call(stream, "20"),
        Way::Short => way.call(stream),
    };
    let peers: Vec<_> = (0..20)
        .map(|_| {
            spawn_blocking(move || {
                let start = Instant::now();
                lives(Raw::with_wide_windows(door.address).unwrap(), start, ask)
            })
        })
        .collect();
    let mut lives = vec![];
    for peer in peers {
        lives.push(peer.await.unwrap());
    }
    for life in &lives {
        assert!(life.asked_to_end >= age.mul_f64(0.9), "{:?}", life.asked_to_end);
        assert!(life.asked_to_end < age.mul_f64(1.1) + Duration::from_secs(5), "{:?}", life.asked_to_end);
        assert!(
            life.ended < PATIENCE,
            "the connection ends when nothing is under way, and not after its grace"
        );
        assert!(life.failed.is_empty() && life.lost().is_empty(), "{:?} {:?}", life.failed, life.lost());
        assert!(!life.answered.is_empty());
    }
    let asked = || lives.iter().map(|life| life.asked_to_end);
    let spread = asked().max().unwrap() - asked().min().unwrap();
    assert!(spread > age.mul_f64(0.05), "they do not all end at once: {spread:?}");
    let hits = if way == Way::Short { lives.iter().map(|life| life.answered.len()).sum() } else { 0 };
    assert_eq!(door.hits.load(Relaxed) as usize, hits);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_asked_to_end_at_their_age_give_or_take_a_tenth_and_no_request_fails() {
    lives_its_age(Way::Long).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_hits_are_asked_to_end_at_their_age_just_as_well_and_no_hit_fails() {
    lives_its_age(Way::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_has_all_of_its_grace_and_is_then_cut_whatever_its_peer_does() {
    let settings = DoorSettings { max_age_ms: 1_000, age_grace_ms: 1_000, ..DoorSettings::default() };
    let door = open(settings).await;
    let lived = spawn_blocking(move || {
        let start = Instant::now();
        let mut raw = Raw::connect(door.address, &[]);
        raw.send(&call(1, "60000")).unwrap();
        assert!(raw.ends());
        start.elapsed()
    });
    let lived = lived.await.unwrap();
    assert!((Duration::from_millis(1_900)..Duration::from_secs(9)).contains(&lived), "{lived:?}");
}
