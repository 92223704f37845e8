//! Peers that do not take what they are owed. They are not closed for it, hold no more than their bounds, and hold nobody else up.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use jeton_server::door::DoorSettings;
use tokio::task::spawn_blocking;

use crate::{
    alone::alone,
    floods::endures,
    frames::{
        DATA, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, REFUSED_STREAM, RST_STREAM, Raw, settings, streams,
    },
    support::{MESSAGE, PATIENCE, open, until},
    ways::{WAYS, Way},
};

const CONNECTIONS: usize = 20;
const MAX_STREAMS: u32 = 100;

/// Opens as many streams as there may be, whose answers have nowhere to go, and one more.
pub(crate) fn without_a_window(address: SocketAddr, ask: impl Fn(u32) -> Vec<u8>) -> Raw {
    let mut raw = Raw::connect(address, &[(INITIAL_WINDOW_SIZE, 0)]);
    let calls: Vec<u8> = streams().take(MAX_STREAMS as usize + 1).flat_map(ask).collect();
    raw.send(&calls).unwrap();
    raw
}

/// Opens its windows for more than any socket holds, and reads nothing of it.
pub(crate) fn that_never_reads(address: SocketAddr, way: Way) -> Raw {
    let mut raw = Raw::with_wide_windows(address).unwrap();
    let calls: Vec<u8> = streams().take(MAX_STREAMS as usize).flat_map(|s| way.large(s)).collect();
    raw.send(&calls).unwrap();
    raw
}

/// Many such peers are held within bounds, and a drain ends them.
async fn are_held(name: &str, way: Way, stalled: impl Fn(SocketAddr, Way) -> Raw + Send + 'static) {
    let door = open(DoorSettings { max_concurrent_streams: MAX_STREAMS, ..DoorSettings::default() }).await;
    let held = Arc::new(Mutex::new(vec![]));
    let holding = Arc::clone(&held);
    endures(&format!("{name}, {way:?}"), &door, move |address| {
        let start = Instant::now();
        holding.lock().unwrap().extend((0..CONNECTIONS).map(|_| stalled(address, way)));
        std::thread::sleep(Duration::from_secs(1));
        start.elapsed()
    })
    .await;
    let peers = u64::try_from(held.lock().unwrap().len()).unwrap();
    until("all of them are held, and nobody else", || (door.stats)().open == peers).await;
    let start = Instant::now();
    door.drain.drain(Duration::from_millis(500)).await;
    assert!(start.elapsed() < PATIENCE / 2, "the drain took {:?}", start.elapsed());
    let ended = spawn_blocking(move || held.lock().unwrap().iter_mut().all(Raw::ends));
    assert!(ended.await.unwrap());
    assert_eq!((door.stats)().open, 0); // All that were let in.
    let hits = if way == Way::Short { peers * u64::from(MAX_STREAMS) } else { 0 };
    assert_eq!(u64::from(door.hits.load(Relaxed)), hits);
}

/// Answers that would take hundreds of megabytes, had each of them bytes of its own.
fn with_all_streams_taken(address: SocketAddr, way: Way) -> Raw {
    let mut raw = without_a_window(address, |stream| way.large(stream));
    let refused = raw.until(RST_STREAM).unwrap();
    assert_eq!((refused.stream, &refused.payload[..]), (2 * MAX_STREAMS + 1, &REFUSED_STREAM[..]));
    raw
}

#[test]
fn answers_that_no_window_is_opened_for_are_held_within_the_limit_of_streams() {
    alone(async { are_held("no window", Way::Long, with_all_streams_taken).await });
}

#[test]
fn hits_that_no_window_is_opened_for_are_held_within_the_limit_of_streams() {
    alone(async { are_held("no window", Way::Short, with_all_streams_taken).await });
}

#[test]
fn a_peer_that_never_reads_is_read_no_further() {
    alone(async { are_held("never reads", Way::Long, that_never_reads).await });
}

#[test]
fn a_peer_that_never_reads_its_hits_is_read_no_further() {
    alone(async { are_held("never reads", Way::Short, that_never_reads).await });
}

/// What each stream was answered, for a peer that opens its windows when no more streams are let in: a little first, then for all.
fn taken_late(mut raw: Raw) -> BTreeMap<u32, (Vec<u8>, bool)> {
    const A_LITTLE: u32 = 600;
    let (mut headers, mut taken, mut whole) = (loona_hpack::Decoder::new(), BTreeMap::new(), 0);
    while whole < MAX_STREAMS {
        let frame = raw.next().unwrap();
        raw.acknowledge(&frame).unwrap();
        let (message, well): &mut (Vec<u8>, bool) = taken.entry(frame.stream).or_default();
        match frame.kind {
            RST_STREAM => {
                taken.remove(&frame.stream);
                raw.send(&settings(&[(INITIAL_WINDOW_SIZE, A_LITTLE)])).unwrap();
            }
            DATA => {
                message.extend(&frame.payload);
                let all: usize = taken.values().map(|(message, _)| message.len()).sum();
                if all == (MAX_STREAMS * A_LITTLE) as usize {
                    raw.send(&settings(&[(INITIAL_WINDOW_SIZE, 1 << 16)])).unwrap();
                    raw.widen(0, 1 << 20).unwrap();
                }
            }
            HEADERS => {
                let fields = headers.decode(&frame.payload).unwrap();
                if frame.flags & END_STREAM != 0 {
                    *well = fields.iter().any(|(name, value)| name == b"grpc-status" && value == b"0");
                    whole += 1;
                }
            }
            _ => {}
        }
    }
    taken.remove(&0);
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_whose_window_is_opened_late_come_whole() {
    for way in WAYS {
        let door =
            open(DoorSettings { max_concurrent_streams: MAX_STREAMS, ..DoorSettings::default() }).await;
        let taken =
            spawn_blocking(move || taken_late(without_a_window(door.address, |stream| way.call(stream))));
        let expected = streams().take(MAX_STREAMS as usize).map(|stream| (stream, (MESSAGE.to_vec(), true)));
        assert!(taken.await.unwrap() == expected.collect(), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_whose_window_stays_shut_is_cut_with_its_connections_age() {
    for way in WAYS {
        let settings = DoorSettings { max_age_ms: 1_000, age_grace_ms: 500, ..DoorSettings::default() };
        let door = open(settings).await;
        let mut raw = spawn_blocking(move || without_a_window(door.address, |s| way.call(s))).await.unwrap();
        until("it is there", || (door.stats)().open == 1).await;
        assert!(spawn_blocking(move || raw.ends()).await.unwrap(), "{way:?}");
        until("nothing of it is held", || (door.stats)().open + (door.stats)().streams == 0).await;
    }
}
