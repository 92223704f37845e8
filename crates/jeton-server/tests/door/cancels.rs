//! Peers that leave in the middle of an answer. What it cost was spent for nothing, so leaving is counted as it is before an answer.

use std::net::SocketAddr;

use jeton_server::door::{DoorSettings, DoorStats};
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    frames::{DATA, HEADERS, INITIAL_WINDOW_SIZE, Raw, reset, streams},
    support::{PATIENCE, open, peer, request, until},
    ways::call,
};

const MOST: u32 = 20;
/// Far more than may leave.
const TRIES: usize = 400;

fn few() -> DoorSettings {
    DoorSettings { max_cancelled_requests: MOST, ..DoorSettings::default() }
}

fn cut_off_in_time(stats: &DoorStats) {
    let most = TRIES as u64 / 2;
    assert!(stats.misused == 1 && (u64::from(MOST)..most).contains(&stats.cancelled), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_opens_and_stops_streams_without_end_is_closed() {
    let door = open(few()).await;
    let mut peer = peer(door.address).await;
    for n in 0..TRIES {
        let Ok(answer) = peer.call(request("endless/stream")).await else { break };
        assert_eq!(answer.status(), 200);
        // Its drop resets the stream, and the door has seen that before it answers what comes after it.
        drop(answer);
        let _ = peer.call(request("0")).await;
        assert!(n + 1 < TRIES, "it goes on");
    }
    assert!(timeout(PATIENCE, peer.connection).await.is_ok());
    cut_off_in_time(&(door.stats)());
}

/// Resets each call when its answer has come as far as this kind of frame.
fn leaves_at(kind: u8, address: SocketAddr, window: u32) -> bool {
    let mut raw = Raw::connect(address, &[(INITIAL_WINDOW_SIZE, window)]);
    for stream in streams().take(TRIES) {
        if raw.send(&call(stream, "message")).is_err() || raw.until(kind).is_err() {
            return true;
        }
        if raw.send(&reset(stream)).is_err() {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_has_answers_made_and_takes_none_or_little_of_them_is_closed() {
    for (kind, window) in [(HEADERS, 0), (DATA, 1)] {
        let door = open(few()).await;
        let address = door.address;
        assert!(spawn_blocking(move || leaves_at(kind, address, window)).await.unwrap(), "window {window}");
        until("it is counted", || (door.stats)().misused == 1).await;
        cut_off_in_time(&(door.stats)());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_stops_no_more_streams_than_it_may_is_served() {
    let door = open(few()).await;
    let mut peer = peer(door.address).await;
    for _ in 0..MOST {
        drop(peer.call(request("endless/stream")).await.unwrap());
    }
    until("all are seen", || (door.stats)().cancelled == u64::from(MOST)).await;
    assert_eq!(peer.call(request("0")).await.unwrap().headers()["grpc-status"], "0");
    assert_eq!((door.stats)().misused, 0);
}
