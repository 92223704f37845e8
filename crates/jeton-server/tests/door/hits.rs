//! The short way, and where it leaves off.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use h2::{SendStream, client::ResponseFuture};
use jeton_server::door::DoorSettings;
use tokio::time::timeout;

use crate::{
    frames::framed,
    support::{MESSAGE, Open, PATIENCE, Peer, open, peer, request, until},
    ways::{MISS, Way},
};

/// A request whose first byte the door has.
async fn begun(door: &Open, peer: &mut Peer, body: &[u8]) -> (ResponseFuture, SendStream<Bytes>) {
    let (answer, mut stream) = peer.send.send_request(request("hit"), false).unwrap();
    stream.send_data(Bytes::copy_from_slice(&body[..1]), false).unwrap();
    until("it is under way", || (door.stats)().streams == 1).await;
    (answer, stream)
}

async fn message(answer: ResponseFuture) -> Vec<u8> {
    let mut body = timeout(PATIENCE, answer).await.unwrap().unwrap().into_body();
    let mut message = vec![];
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        message.extend_from_slice(&data);
    }
    message
}

/// What comes of a request that comes byte by byte, or in large parts.
async fn asked_in_parts(door: &Open, body: &[u8], size: usize) -> Vec<u8> {
    let mut peer = peer(door.address).await;
    let (answer, mut stream) = begun(door, &mut peer, body).await;
    let rest = &body[1..];
    for (n, part) in rest.chunks(size).enumerate() {
        // Alone in a segment, or nearly so.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let last = (n + 1) * size >= rest.len();
        stream.send_data(Bytes::copy_from_slice(part), last).unwrap();
    }
    message(answer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_parts_is_answered_the_short_way_once_it_is_whole() {
    let door = open(DoorSettings::default()).await;
    assert_eq!(asked_in_parts(&door, &framed(b"a token, please"), 1).await, MESSAGE);
    assert_eq!((door.hits.load(Relaxed), door.done.load(Relaxed)), (1, 0));
    until("it is over", || (door.stats)().streams == 0).await;
    assert_eq!((door.stats)().cancelled, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_short_way_cannot_answer_goes_the_long_way_with_all_of_its_message() {
    let door = open(DoorSettings::default()).await;
    let miss = framed(MISS);
    assert_eq!(asked_in_parts(&door, &miss, 1).await, miss);
    // More than is waited for in one piece.
    let long = framed(&[MISS, &[8; 20_000]].concat());
    assert_eq!(asked_in_parts(&door, &long, 3_000).await, long);
    let mut peer = peer(door.address).await;
    let (answer, mut stream) = peer.send.send_request(request("hit"), false).unwrap();
    stream.send_data(miss.clone().into(), true).unwrap();
    assert_eq!(message(answer).await, miss, "all at once");
    assert_eq!((door.hits.load(Relaxed), door.done.load(Relaxed)), (0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_says_that_it_is_not_compressed_takes_the_short_way_and_what_is_compressed_does_not() {
    let door = open(DoorSettings::default()).await;
    let mut peer = peer(door.address).await;
    for (encoding, short) in [("identity", true), ("gzip", false), ("identity,gzip", false), ("", false)] {
        let mut request = request("hit");
        request.headers_mut().insert("grpc-encoding", encoding.parse().unwrap());
        let (hits, done) = (door.hits.load(Relaxed), door.done.load(Relaxed));
        let (answer, mut stream) = peer.send.send_request(request, false).unwrap();
        stream.send_data(framed(b"a token, please").into(), true).unwrap();
        assert_eq!(message(answer).await == MESSAGE, short, "{encoding:?}");
        let came = (door.hits.load(Relaxed) - hits, door.done.load(Relaxed) - done);
        assert_eq!(came, if short { (1, 0) } else { (0, 1) }, "{encoding:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_rest_does_not_come_ends_at_the_requests_deadline_and_the_connection_goes_on() {
    let door = open(DoorSettings { request_deadline_ms: 200, ..DoorSettings::default() }).await;
    let mut peer = peer(door.address).await;
    let (answer, _unfinished) = begun(&door, &mut peer, &framed(b"half")).await;
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "4");
    assert_eq!((door.stats)().late, 1);
    assert!(Way::Short.begin(&mut peer, 0).await.answered_well().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_in_the_middle_of_its_message_is_counted_and_nothing_of_it_is_kept() {
    let door = open(DoorSettings::default()).await;
    let mut staying = peer(door.address).await;
    for left in 1..=3 {
        let asked = Way::Short.begin(&mut staying, 0).await;
        until("it is under way", || (door.stats)().streams == 1).await;
        asked.cancel();
        until("it is not any more", || (door.stats)().streams == 0).await;
        assert_eq!((door.stats)().cancelled, left);
    }
    assert!(Way::Short.begin(&mut staying, 0).await.answered_well().await, "its connection goes on");
    let mut leaving = peer(door.address).await;
    let _asked = Way::Short.begin(&mut leaving, 0).await;
    until("it is under way", || (door.stats)().streams == 1).await;
    leaving.connection.abort();
    until("it is not any more", || (door.stats)().streams == 0).await;
    assert_eq!((door.stats)().cancelled, 4);
}
