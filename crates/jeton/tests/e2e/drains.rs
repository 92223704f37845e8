//! Stops of the real binary, with peers of every kind. By hand: libraries hide what a peer is told, and read what it should not.
#![allow(clippy::print_stdout, reason = "figures, for whoever asks with --nocapture")]

use std::{
    net::{SocketAddr, TcpStream},
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use jeton_proto::v1::{self, watch_tokens_request::Action, watch_tokens_response::Event};
use prost::Message;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::json;
use tokio_stream::StreamExt;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use crate::{
    frames::{
        DATA, END_HEADERS, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, Raw, ask, frame, framed, header_block,
        lives, streams, strict,
    },
    support::{VAULT, World, request, token, until},
};

const BILLING: &str = "identities/billing";
/// What a stop may take after its drain: everything behind the doors ends within bounds of its own.
const MARGIN: Duration = Duration::from_secs(15);

async fn world(drain: Duration) -> World {
    let set = format!("door.drain_deadline_ms={}", drain.as_millis());
    let world = World::with(&["--set", &set], json!({"token_lifetime_seconds": 3600})).await;
    warm(&world).await;
    world
}

/// From here on the token is in memory.
async fn warm(world: &World) {
    token(&mut world.broker.tokens().await, BILLING, VAULT).await.unwrap();
}

fn address(world: &World) -> SocketAddr {
    world.broker.endpoints["grpc"].as_str().unwrap().parse().unwrap()
}

fn a_call(stream: u32) -> Vec<u8> {
    ask(stream, "/jeton.v1.TokenService/GetToken", &request(BILLING, VAULT).encode_to_vec())
}

fn added() -> v1::WatchTokensRequest {
    let add = v1::WatchTokensAdd { id: "a".into(), request: Some(request(BILLING, VAULT)) };
    v1::WatchTokensRequest { action: Some(Action::Add(add)) }
}

/// In the middle of answers that it opens no window for.
fn with_its_window_shut(address: SocketAddr) -> Raw {
    let mut raw = Raw::connect(address, &[(INITIAL_WINDOW_SIZE, 0)]);
    raw.send(&streams().take(50).flat_map(a_call).collect::<Vec<_>>()).unwrap();
    for _ in 0..50 {
        raw.until(HEADERS).unwrap();
    }
    raw
}

/// With a watch of which it lets nothing through, `moving` included.
fn with_a_deaf_watch(address: SocketAddr) -> Raw {
    let mut raw = Raw::connect(address, &[(INITIAL_WINDOW_SIZE, 0)]);
    let head = header_block("/jeton.v1.TokenService/WatchTokens");
    raw.send(&frame(HEADERS, END_HEADERS, 1, &head)).unwrap();
    raw.send(&frame(DATA, 0, 1, &framed(&added().encode_to_vec()))).unwrap();
    raw.until(HEADERS).unwrap();
    raw
}

/// Asks until nothing goes in or out any more.
fn that_never_reads(address: SocketAddr) -> Raw {
    let mut raw = Raw::with_wide_windows(address).unwrap();
    raw.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let _full = streams().map(a_call).find(|call| raw.send(call).is_err());
    raw
}

/// Stops the broker: how that ended, and how long it took.
async fn stopped(mut world: World) -> (World, ExitStatus, Duration) {
    tokio::task::spawn_blocking(move || {
        let start = Instant::now();
        let status = world.broker.process.stop();
        (world, status, start.elapsed())
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_tells_every_peer_at_once_and_ends_in_time_whatever_peers_do() {
    const DRAIN: Duration = Duration::from_secs(3);
    let world = world(DRAIN).await;
    let address = address(&world);
    let silent = TcpStream::connect(address).unwrap();
    let mut stuck = [with_its_window_shut(address), with_a_deaf_watch(address), that_never_reads(address)];
    let mut orderly = Raw::connect(address, &[]);
    orderly.send(&a_call(1)).unwrap();
    orderly.until(DATA).unwrap();
    let start = Instant::now();
    let told = thread::spawn(move || orderly.until(GOAWAY).map(|_| start.elapsed()));
    let (world, status, took) = stopped(world).await;
    let told = told.join().unwrap().expect("GOAWAY comes before the end");
    println!("GOAWAY after {told:?}, the end after {took:?} with {DRAIN:?} for the drain");
    assert!(status.success(), "{status}");
    assert!(took >= DRAIN && took < DRAIN + MARGIN, "{took:?}: these peers hold it as long as they may");
    assert!(told < if strict() { Duration::from_millis(100) } else { DRAIN }, "{told:?}");
    assert!(stuck.iter_mut().all(Raw::ends));
    drop(silent);
    let log = world.broker.process.log();
    let cut: Vec<_> = log.lines().filter(|line| line.contains("a stop cuts connections")).collect();
    let [line] = cut[..] else { panic!("one line, for one door: {log}") };
    assert!(line.contains(r#""door":"data (loopback)""#) && line.contains(r#""level":"WARN""#), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_told_to_move_and_a_peer_that_holds_it_holds_no_stop() {
    const DRAIN: Duration = Duration::from_secs(60);
    let world = world(DRAIN).await;
    let requests = tokio_stream::once(added()).chain(tokio_stream::pending());
    let mut events = world.broker.tokens().await.watch_tokens(requests).await.unwrap().into_inner();
    events.message().await.unwrap().unwrap();
    let stopping = tokio::spawn(stopped(world));
    let moving = events.message().await.unwrap().unwrap();
    assert!(matches!(moving.event, Some(Event::Moving(_))), "{moving:?}");
    let (_world, status, took) = stopping.await.unwrap();
    assert!(status.success() && took < DRAIN / 2, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_not_serving_for_whoever_asks_or_watches_while_a_stop_goes_on() {
    let world = world(Duration::from_secs(30)).await;
    let address = address(&world);
    let mut watches = vec![];
    for (channel, service) in [
        (world.broker.tcp().await, ""),
        (world.broker.tcp().await, "jeton.v1.TokenService"),
        (world.broker.unix("admin_socket").await, ""),
    ] {
        let wanted = HealthCheckRequest { service: service.into() };
        let mut told = HealthClient::new(channel).watch(wanted).await.unwrap().into_inner();
        assert_eq!(told.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        watches.push(told);
    }
    let check = |stream| ask(stream, "/grpc.health.v1.Health/Check", &[]);
    let status =
        |message: &[u8]| HealthCheckResponse::decode(&message[framed(&[]).len()..]).unwrap().status();
    let stuck = with_its_window_shut(address);
    let mut raw = Raw::connect(address, &[]);
    raw.send(&check(1)).unwrap();
    assert_eq!(status(&raw.until(DATA).unwrap().payload), ServingStatus::Serving);
    let stopping = tokio::spawn(stopped(world));
    for mut told in watches {
        assert_eq!(told.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    }
    let answer = tokio::task::spawn_blocking(move || {
        // Its last stream is not fixed as long as it acknowledges no ping.
        while raw.next().unwrap().kind != GOAWAY {}
        raw.send(&check(3)).unwrap();
        loop {
            let next = raw.next().unwrap();
            if next.kind == DATA {
                return next.payload;
            }
        }
    });
    assert_eq!(status(&answer.await.unwrap()), ServingStatus::NotServing);
    drop(stuck);
    assert!(stopping.await.unwrap().1.success());
}

/// A peer that asks without a pause, over all stops: when it is asked to end its connection, it comes anew.
fn follows(address: SocketAddr, over: Arc<AtomicBool>, answers: Arc<AtomicU64>) -> JoinHandle<()> {
    thread::spawn(move || {
        while !over.load(Relaxed) {
            let Ok(raw) = Raw::with_wide_windows(address) else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            let counted = |stream| {
                answers.fetch_add(1, Relaxed);
                a_call(stream)
            };
            let life = lives(raw, Instant::now(), counted);
            assert!(life.failed.is_empty() && life.lost().is_empty(), "{:?} {:?}", life.failed, life.lost());
        }
    })
}

/// `JETON_DRAINS` stops; three, if it says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn stops_under_load_end_in_time_and_fail_nothing_that_was_taken() {
    const DRAIN: Duration = Duration::from_secs(1);
    let number = |name: &str, usual| std::env::var(name).ok().map_or(usual, |n| n.parse().unwrap());
    let (drains, seed) = (number("JETON_DRAINS", 3), number("JETON_SEED", 1));
    let (mut world, mut random) = (world(DRAIN).await, SmallRng::seed_from_u64(seed));
    let (address, set) = (address(&world), format!("door.drain_deadline_ms={}", DRAIN.as_millis()));
    let (over, answers) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let followers: Vec<_> =
        (0..4).map(|_| follows(address, Arc::clone(&over), Arc::clone(&answers))).collect();
    let mut longest = Duration::ZERO;
    for n in 1..=drains {
        let before = answers.load(Relaxed);
        until("all of them ask", || {
            answers.load(Relaxed) > before + 200 || followers.iter().any(JoinHandle::is_finished)
        });
        assert!(!followers.iter().any(JoinHandle::is_finished), "stop {n} of seed {seed}: a call failed");
        let _stuck = match random.random_range(0..4) {
            0 => Some(with_its_window_shut(address)),
            1 => Some(with_a_deaf_watch(address)),
            2 => Some(that_never_reads(address)),
            _ => None,
        };
        tokio::time::sleep(Duration::from_millis(random.random_range(0..100))).await;
        let (stopped, status, took) = stopped(world).await;
        assert!(
            status.success() && took < DRAIN + MARGIN,
            "stop {n} of seed {seed}: {status} after {took:?}"
        );
        world = stopped;
        longest = longest.max(took);
        world.restart(&["--set", &set]);
        assert_eq!(self::address(&world), address, "a port that was drawn is kept");
        warm(&world).await;
    }
    over.store(true, Relaxed);
    assert!(world.broker.process.stop().success());
    followers.into_iter().for_each(|follower| follower.join().unwrap());
    println!("{drains} stops, the longest {longest:?}, {} calls", answers.load(Relaxed));
}
