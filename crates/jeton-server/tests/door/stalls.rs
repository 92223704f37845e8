//! Peers that do not take what they are owed. They are not closed for it, hold no more than their bounds, and hold nobody else up.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jeton_server::door::DoorSettings;
use tokio::task::spawn_blocking;

use crate::{
    alone::alone,
    floods::{endures, streams},
    frames::{INITIAL_WINDOW_SIZE, REFUSED_STREAM, RST_STREAM, Raw, WINDOW_UPDATE, call, frame},
    support::{PATIENCE, open, until},
};

const CONNECTIONS: usize = 20;
const MAX_STREAMS: u32 = 100;

/// Opens as many streams as there may be, whose answers have nowhere to go, and one more.
pub(crate) fn without_a_window(address: SocketAddr) -> Raw {
    let mut raw = Raw::connect(address, &[(INITIAL_WINDOW_SIZE, 0)]);
    let calls: Vec<u8> = streams().take(MAX_STREAMS as usize + 1).flat_map(|s| call(s, "message")).collect();
    raw.send(&calls).unwrap();
    raw
}

/// Opens its windows for more than any socket holds, and reads nothing of it.
pub(crate) fn that_never_reads(address: SocketAddr) -> Raw {
    const WINDOW: u32 = 1 << 30;
    let mut raw = Raw::connect(address, &[(INITIAL_WINDOW_SIZE, WINDOW)]);
    raw.send(&frame(WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes())).unwrap();
    let calls: Vec<u8> =
        streams().take(MAX_STREAMS as usize).flat_map(|s| call(s, "large-message")).collect();
    raw.send(&calls).unwrap();
    raw
}

/// Many such peers are held within bounds, and a drain ends them.
async fn are_held(name: &str, stalled: impl Fn(SocketAddr) -> Raw + Send + 'static) {
    let door = open(DoorSettings { max_concurrent_streams: MAX_STREAMS, ..DoorSettings::default() }).await;
    let held = Arc::new(Mutex::new(vec![]));
    let holding = Arc::clone(&held);
    endures(name, &door, move |address| {
        let start = Instant::now();
        holding.lock().unwrap().extend((0..CONNECTIONS).map(|_| stalled(address)));
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
    assert_eq!((door.stats)().open, 0);
}

#[test]
fn answers_that_no_window_is_opened_for_are_held_within_the_limit_of_streams() {
    alone(async {
        are_held("no window", |address| {
            let mut raw = without_a_window(address);
            let refused = raw.until(RST_STREAM).unwrap();
            assert_eq!((refused.stream, &refused.payload[..]), (2 * MAX_STREAMS + 1, &REFUSED_STREAM[..]));
            raw
        })
        .await;
    });
}

#[test]
fn a_peer_that_never_reads_is_read_no_further() {
    alone(async { are_held("never reads", that_never_reads).await });
}
