//! Connections that grow old.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use jeton_server::door::DoorSettings;
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    floods::streams,
    frames::{GOAWAY, HEADERS, RST_STREAM, Raw, call},
    support::{PATIENCE, open, peer, request},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_is_asked_to_end_and_what_is_in_flight_finishes() {
    let door =
        open(DoorSettings { max_age_ms: 1_000, age_grace_ms: 10_000, ..DoorSettings::default() }).await;
    let mut peer = peer(door.address).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    // Under way when the age comes.
    assert_eq!(peer.call(request("1000")).await.unwrap().status(), 200);
    assert!(timeout(PATIENCE, peer.connection).await.unwrap().unwrap().is_ok(), "GOAWAY, and an orderly end");
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

/// What a peer saw that asked without a pause until its connection ended.
struct Life {
    asked_to_end: Duration,
    ended: Duration,
    /// The last stream that the door said it would answer.
    last: u32,
    answered: Vec<u32>,
    failed: Vec<u32>,
}

fn lives(address: SocketAddr) -> Life {
    let start = Instant::now();
    let mut raw = Raw::connect(address, &[]);
    let (mut streams, mut headers) = (streams(), loona_hpack::Decoder::new());
    let mut life = Life {
        asked_to_end: Duration::ZERO,
        ended: Duration::ZERO,
        last: 0,
        answered: vec![],
        failed: vec![],
    };
    raw.send(&call(streams.next().unwrap(), "20")).unwrap();
    while let Ok(frame) = raw.next() {
        raw.acknowledge(&frame).unwrap_or_default();
        match frame.kind {
            GOAWAY => {
                life.last = frame.last_stream();
                if life.asked_to_end.is_zero() {
                    life.asked_to_end = start.elapsed();
                }
            }
            HEADERS => {
                let fields = headers.decode(&frame.payload).unwrap();
                let well =
                    fields.iter().any(|(name, value)| &name[..] == b"grpc-status" && &value[..] == b"0");
                if well {
                    life.answered.push(frame.stream)
                } else {
                    life.failed.push(frame.stream)
                }
                // One that has read no GOAWAY yet, or has not taken it in, goes on asking.
                let _ = raw.send(&call(streams.next().unwrap(), "20"));
            }
            RST_STREAM => life.failed.push(frame.stream),
            _ => {}
        }
    }
    life.ended = start.elapsed();
    life
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_asked_to_end_at_their_age_give_or_take_a_tenth_and_no_request_fails() {
    let age = Duration::from_secs(2);
    let settings = DoorSettings { max_age_ms: 2_000, age_grace_ms: 20_000, ..DoorSettings::default() };
    let door = open(settings).await;
    let peers: Vec<_> = (0..20).map(|_| spawn_blocking(move || lives(door.address))).collect();
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
        // In order, and none left out: everything up to the last one that the door took.
        let taken: Vec<u32> = streams().take_while(|stream| *stream <= life.last).collect();
        assert!(
            life.failed.is_empty() && life.answered == taken,
            "{:?} of {:?}",
            life.answered.last(),
            life.last
        );
    }
    let asked = || lives.iter().map(|life| life.asked_to_end);
    let spread = asked().max().unwrap() - asked().min().unwrap();
    assert!(spread > age.mul_f64(0.05), "they do not all end at once: {spread:?}");
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
