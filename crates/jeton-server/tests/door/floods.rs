//! Peers that send more than anybody has to, each while a good caller goes on asking on a connection of its own.
//!
//! The caller's latency is compared within one run, by its median and with a wide margin: attacker, caller and door share a process and a
//! few cores here, and the tail says more of the scheduler than of the door. It is printed beside it (`--nocapture`), and judged only
//! where it is asked for (`JETON_STRICT`).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use jeton_server::door::DoorSettings;

use crate::{
    alone::{alone, resident_kb},
    frames::{
        CONTINUATION, DATA, END_HEADERS, HEADERS, INITIAL_WINDOW_SIZE, PING, PRIORITY, Raw, frame,
        header_block, reset, settings, streams,
    },
    support::{Open, PATIENCE, open, peer, request, strict},
    ways::{Way, call},
};

/// How long a good caller is watched, without a flood and with one that begins anew whenever it is cut off.
const WATCHED: Duration = Duration::from_secs(1);
const MOST_GROWTH_KB: u64 = 32 * 1024;
const MOST_SLOWER: u32 = 10;
/// The promise, for a machine with nothing else to do: a peer that misuses its connection is closed in time, and the tail of others' calls
/// stays.
const CLOSED: Duration = Duration::from_secs(5);
const STRICTLY_SLOWER: u32 = 3;
/// What a machine that is busy with something else may take of its own accord.
const NOT_JUDGED: Duration = Duration::from_millis(25);
/// For floods that are a trickle where the door is slow itself: it can only count what it has read.
const LOW: u64 = 65_536;

/// What a flood sends: once, and then again and again.
struct Flood {
    opening: Vec<u8>,
    parts: Box<dyn Iterator<Item = Vec<u8>> + Send>,
    pause: Duration,
}

impl Flood {
    fn of(parts: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Self {
        Self { opening: vec![], parts: Box::new(parts), pause: Duration::ZERO }
    }

    /// Goes on until the door closes; how long that took.
    fn attack(self, address: SocketAddr) -> Duration {
        let start = Instant::now();
        let mut raw = Raw::connect(address, &[]);
        let mut reading = raw.other_end();
        // Or the door would wait for it to be read.
        let reader = std::thread::spawn(move || reading.ends());
        let mut sent = raw.send(&self.opening);
        for part in self.parts {
            if sent.is_err() || reader.is_finished() {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "the flood goes on");
            std::thread::sleep(self.pause);
            sent = raw.send(&part);
        }
        assert!(reader.join().unwrap(), "the connection is not closed");
        start.elapsed()
    }
}

/// Asks one after another until told to stop, or for as long; the latencies, sorted.
pub(crate) async fn asks(door: &Open, on: impl Fn() -> bool) -> Vec<Duration> {
    let mut good = peer(door.address).await;
    let mut latencies = vec![];
    while on() {
        let start = Instant::now();
        assert_eq!(good.call(request("0")).await.unwrap().headers()["grpc-status"], "0");
        latencies.push(start.elapsed());
    }
    latencies.sort_unstable();
    latencies
}

pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

/// Every attack ends, memory stays, and a good caller goes on.
pub(crate) async fn endures(
    name: &str,
    door: &Open,
    attack: impl Fn(SocketAddr) -> Duration + Send + 'static,
) {
    let begun = Instant::now();
    let quiet = asks(door, || begun.elapsed() < WATCHED).await;
    let before = resident_kb().0;
    let (done, address, begun) = (Arc::new(AtomicBool::new(false)), door.address, Instant::now());
    let finished = Arc::clone(&done);
    let attacks = tokio::task::spawn_blocking(move || {
        let mut lasted = vec![];
        while begun.elapsed() < WATCHED {
            lasted.push(attack(address));
        }
        finished.store(true, Relaxed);
        lasted
    });
    let loud = asks(door, || !done.load(Relaxed) && begun.elapsed() < 3 * PATIENCE).await;
    let lasted = attacks.await.unwrap();
    let growth = resident_kb().1.saturating_sub(before);
    println!(
        "{name}: {} attacks, the longest {:?}; memory +{growth} KiB; the good caller p50 {:?} p99 {:?} of {} quiet, p50 {:?} p99 {:?} of {} under it",
        lasted.len(),
        lasted.iter().max().unwrap(),
        percentile(&quiet, 50),
        percentile(&quiet, 99),
        quiet.len(),
        percentile(&loud, 50),
        percentile(&loud, 99),
        loud.len(),
    );
    if strict() {
        let longest = lasted.iter().max().unwrap();
        assert!(*longest <= CLOSED, "{longest:?} until the door closes");
        let (before, beside) = (percentile(&quiet, 99), percentile(&loud, 99));
        assert!(
            beside <= (before * STRICTLY_SLOWER).max(NOT_JUDGED),
            "p99 {beside:?}, and {before:?} before"
        );
    }
    assert!(growth <= MOST_GROWTH_KB, "{growth} KiB more are resident");
    goes_on(&quiet, &loud);
}

/// Half of a good caller's calls take about as long as before.
pub(crate) fn goes_on(quiet: &[Duration], loud: &[Duration]) {
    let (still, under) = (percentile(quiet, 50), percentile(loud, 50));
    assert!(
        under < (still * MOST_SLOWER).max(NOT_JUDGED),
        "half of the calls took more than {under:?}, and {still:?} before"
    );
}

async fn is_cut_off(name: &str, flood: impl Fn() -> Flood + Send + 'static) {
    is_cut_off_by(DoorSettings::default(), name, flood).await;
}

async fn is_cut_off_by(settings: DoorSettings, name: &str, flood: impl Fn() -> Flood + Send + 'static) {
    let door = open(settings).await;
    endures(name, &door, move |address| flood().attack(address)).await;
}

/// A request on a stream.
type Ask = fn(u32) -> Vec<u8>;

/// Requests that are reset, each after so long.
async fn resets(name: &str, pause: Duration, ask: Ask) {
    let parts = move || streams().map(move |stream| [ask(stream), reset(stream)].concat());
    is_cut_off(name, move || Flood { pause, ..Flood::of(parts()) }).await;
}

const PACE: Duration = Duration::from_millis(10);

/// Under way the long way; the short way, with half a message; and with all of it, so that the answer is there as soon as the reset.
fn kinds() -> [(&'static str, Ask); 3] {
    [
        ("requests", |stream| Way::Long.begun(stream, 60_000)),
        ("halves", |stream| Way::Short.begun(stream, 0)),
        ("hits", |stream| Way::Short.call(stream)),
    ]
}

#[test]
fn requests_that_are_cancelled_at_once() {
    alone(async {
        for (kind, ask) in kinds() {
            resets(&format!("reset burst, {kind}"), Duration::ZERO, ask).await;
        }
    });
}

#[test]
fn requests_that_are_cancelled_at_a_steady_pace() {
    alone(async {
        // A hit is over when it is read: one that is reset costs as much as one that is not.
        for (kind, ask) in &kinds()[..2] {
            resets(&format!("paced resets, {kind}"), PACE, *ask).await;
        }
    });
}

#[test]
fn requests_without_end_over_the_limit_of_streams() {
    alone(async { is_cut_off("too many streams", || Flood::of(streams().map(|s| call(s, "60000")))).await });
}

#[test]
fn headers_that_never_end() {
    alone(async {
        is_cut_off("continuation", || Flood {
            opening: frame(HEADERS, 0, 1, &header_block("/test.Slow/0")),
            ..repeated(&frame(CONTINUATION, 0, 1, b"\0\x01a\x01b"))
        })
        .await;
    });
}

/// The same frame again and again, a thousand at a time.
fn repeated(frame: &[u8]) -> Flood {
    Flood::of(std::iter::repeat(frame.repeat(1_000)))
}

#[test]
fn pings() {
    alone(async { is_cut_off("ping", || repeated(&frame(PING, 0, 0, &[1; 8]))).await });
}

#[test]
fn settings_without_end() {
    alone(async { is_cut_off("settings", || repeated(&settings(&[]))).await });
}

#[test]
fn settings_that_resize_the_windows_of_open_streams() {
    alone(async {
        is_cut_off_by(
            DoorSettings { max_idle_bytes_per_second: LOW, ..DoorSettings::default() },
            "window settings",
            || Flood {
                // Each is looked at for each frame. Not as many as there may be: without optimisation the flood would be a trickle.
                opening: streams().take(10).flat_map(|s| call(s, "60000")).collect(),
                ..repeated(
                    &[settings(&[(INITIAL_WINDOW_SIZE, 1)]), settings(&[(INITIAL_WINDOW_SIZE, 2)])].concat(),
                )
            },
        )
        .await;
    });
}

#[test]
fn priorities() {
    alone(async { is_cut_off("priority", || repeated(&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]))).await });
}

/// Of a request whose answer is long in coming.
fn parts_of_a_body(part: &[u8]) -> Flood {
    Flood {
        opening: frame(HEADERS, END_HEADERS, 1, &header_block("/test.Slow/60000")),
        ..repeated(&frame(DATA, 0, 1, part))
    }
}

#[test]
fn empty_parts_of_a_body() {
    alone(async { is_cut_off("empty data", || parts_of_a_body(&[])).await });
}

#[test]
fn parts_of_a_body_of_one_byte() {
    alone(async { is_cut_off("bytes", || parts_of_a_body(&[0])).await });
}

#[test]
fn frames_that_are_small_and_many_although_their_bytes_are_few() {
    // A thousand in 20 ms at most, from a peer that has asked for something.
    alone(async {
        let pause = Duration::from_millis(20);
        is_cut_off_by(
            DoorSettings { max_idle_bytes_per_second: LOW, ..DoorSettings::default() },
            "paced settings",
            move || Flood { opening: call(1, "0"), pause, ..repeated(&settings(&[])) },
        )
        .await;
    });
}
