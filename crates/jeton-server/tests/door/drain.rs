//! A stop, with peers of every kind.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jeton_server::door::{DoorSettings, LoopbackDev};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    net::TcpStream,
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use crate::{
    frames::{END_STREAM, GOAWAY, HEADERS, Raw},
    log::Log,
    stalls::{that_never_reads, without_a_window},
    support::{Callers, Open, PATIENCE, open, open_for, peer, request, until},
    ways::{WAYS, Way, call},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_does_not_wait_for_streams_that_have_nothing_more_to_say() {
    let door = open(DoorSettings::default()).await;
    let mut peer = peer(door.address).await;
    let mut body = peer.call(request("endless/stream")).await.unwrap().into_body();
    let start = Instant::now();
    door.drain.drain(PATIENCE).await;
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    assert!(body.data().await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "14");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_requests_finish_refuses_new_connections_and_ends_in_time() {
    let door = open(DoorSettings::default()).await;
    let mut good = peer(door.address).await;
    let mut stuck = peer(door.address).await;
    let finishing = tokio::spawn(async move { good.call(request("400")).await.map(|r| r.status()) });
    let holding = tokio::spawn(async move { stuck.call(request("9000")).await.map(|r| r.status()) });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    door.drain.drain(Duration::from_millis(1_500)).await;
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(finishing.await.unwrap().unwrap(), 200);
    assert!(holding.await.unwrap().is_err());
    assert!(TcpStream::connect(door.address).await.is_err(), "nobody listens any more");
}

/// What is logged of a drain that meets peers who never ask, or one that ends when it is told to.
async fn said_of_a_drain(silent: usize, deadline: Duration) -> String {
    let log = Log::of_a_door();
    let callers = Callers { name: log.door, authenticate: Some(Arc::new(LoopbackDev)), ..Callers::default() };
    let door = open_for(DoorSettings::default(), false, callers).await;
    let silent = join_all((0..silent).map(|_| TcpStream::connect(door.address))).await;
    let mut orderly = None;
    if silent.is_empty() {
        orderly.insert(peer(door.address).await).call(request("0")).await.unwrap();
    }
    let there = silent.len().max(1) as u64;
    until("all are there", || (door.stats)().open == there).await;
    door.drain.drain(deadline).await;
    log.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_cuts_says_how_many_connections_at_which_door_and_one_that_cuts_none_is_silent() {
    let text = said_of_a_drain(3, Duration::from_millis(250)).await;
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in ["WARN", "connections=3", "after_seconds=0.25", "door.drain_deadline_ms"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(said_of_a_drain(0, PATIENCE).await, "");
}

/// What a peer sees of a drain, in order, that has one call under way: only when it has been told the last stream it sends the rest.
async fn seen_of_a_drain(door: Open, way: Way) -> Vec<u8> {
    let (address, (asked, heard)) = (door.address, oneshot::channel());
    let order = spawn_blocking(move || {
        let mut raw = Raw::connect(address, &[]);
        // The answer to the second says that the door has the first.
        raw.send(&[way.begun(1, 1_500), call(3, "0")].concat()).unwrap();
        assert_eq!(raw.until(HEADERS).unwrap().stream, 3);
        asked.send(()).unwrap();
        let (mut order, mut frame) = (vec![], raw.next());
        while let Ok(next) = frame {
            raw.acknowledge(&next).unwrap();
            if next.kind == GOAWAY || (next.kind == HEADERS && next.flags & END_STREAM != 0) {
                order.push(next.kind);
                if order == [GOAWAY, GOAWAY] {
                    assert_eq!(next.last_stream(), 3);
                    raw.send(&way.rest(1)).unwrap();
                }
            }
            frame = raw.next();
        }
        order
    });
    heard.await.unwrap();
    door.drain.drain(PATIENCE).await;
    order.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_hear_of_a_drain_before_what_is_under_way_is_answered() {
    for way in WAYS {
        let order = seen_of_a_drain(open(DoorSettings::default()).await, way).await;
        assert_eq!(
            order,
            [GOAWAY, GOAWAY, HEADERS],
            "{way:?}: once to stop, once with the last that is answered"
        );
    }
}

/// A peer that a drain meets, and what has to become of it.
enum Met {
    Asks(JoinHandle<bool>),
    Watches(JoinHandle<bool>),
    /// Until the drain is over.
    Stuck(#[expect(dead_code, reason = "keeps its connection open")] Raw),
    Silent(#[expect(dead_code, reason = "keeps its connection open")] TcpStream),
}

const DRAIN: Duration = Duration::from_millis(2_500);

async fn meets(address: SocketAddr, way: Way, random: &mut SmallRng) -> Met {
    match random.random_range(0..6) {
        0 | 1 => {
            let mut good = peer(address).await;
            let asked = way.begin(&mut good, random.random_range(50..500)).await;
            // Answered: the door has the one before.
            good.call(request("0")).await.unwrap();
            Met::Asks(tokio::spawn(asked.answered_well()))
        }
        2 => {
            let mut watcher = peer(address).await;
            let mut body = watcher.call(request("endless/stream")).await.unwrap().into_body();
            Met::Watches(tokio::spawn(async move {
                let _kept = watcher;
                body.data().await.is_none() && body.trailers().await.unwrap().unwrap()["grpc-status"] == "14"
            }))
        }
        3 => Met::Stuck(spawn_blocking(move || without_a_window(address, |s| way.call(s))).await.unwrap()),
        4 => Met::Stuck(spawn_blocking(move || that_never_reads(address, way)).await.unwrap()),
        _ => Met::Silent(TcpStream::connect(address).await.unwrap()),
    }
}

async fn drains_with_peers_of_every_kind(way: Way, seed: u64) {
    let (door, mut random) = (open(DoorSettings::default()).await, SmallRng::seed_from_u64(seed));
    let mut met = vec![];
    for _ in 0..random.random_range(1..12) {
        met.push(meets(door.address, way, &mut random).await);
    }
    let start = Instant::now();
    door.drain.drain(DRAIN).await;
    assert!(start.elapsed() < DRAIN + PATIENCE / 2, "{way:?}, seed {seed}: {:?}", start.elapsed());
    assert_eq!((door.stats)().open, 0, "{way:?}, seed {seed}");
    timeout(PATIENCE, door.accepting).await.unwrap().unwrap();
    assert!(TcpStream::connect(door.address).await.is_err(), "{way:?}, seed {seed}: somebody listens");
    for peer in met {
        match peer {
            Met::Asks(answered) => assert!(answered.await.unwrap(), "{way:?}, seed {seed}: a request failed"),
            Met::Watches(told) => assert!(told.await.unwrap(), "{way:?}, seed {seed}: a stream was not told"),
            Met::Stuck(_) | Met::Silent(_) => {}
        }
    }
}

async fn drain_twenty_times(way: Way) {
    for seeds in (1..=20).collect::<Vec<_>>().chunks(5) {
        join_all(seeds.iter().map(|seed| drains_with_peers_of_every_kind(way, *seed))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_drains_with_peers_of_every_kind_end_in_time_and_fail_nothing() {
    drain_twenty_times(Way::Long).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_drains_of_hits_end_in_time_and_fail_nothing() {
    drain_twenty_times(Way::Short).await;
}
