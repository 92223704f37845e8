//! Requests that end otherwise than by their answer.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use jeton_server::door::{Authenticate, Calls, DoorSettings, LoopbackDev};
use tokio::time::timeout;

use crate::support::{Callers, PATIENCE, open, open_for, open_that, peer, request, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_cancels_without_end_is_closed() {
    let door = open(DoorSettings { max_cancelled_requests: 20, ..DoorSettings::default() }).await;
    let mut peer = peer(door.address).await;
    let mut ended = false;
    for _ in 0..400 {
        let Ok(ready) = peer.send.clone().ready().await else {
            ended = true;
            break;
        };
        peer.send = ready;
        let Ok((answer, mut stream)) = peer.send.send_request(request("60000"), true) else {
            ended = true;
            break;
        };
        // Paced, so that each reaches its handler.
        tokio::time::sleep(Duration::from_millis(5)).await;
        stream.send_reset(h2::Reason::CANCEL);
        drop(answer);
    }
    assert!(ended || timeout(PATIENCE, peer.connection).await.is_ok());
    let stats = (door.stats)();
    assert!(stats.misused == 1 && stats.cancelled >= 20 && stats.cancelled < 400, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_leave_take_nobody_along_on_their_connection() {
    let door = open(DoorSettings::default()).await;
    let mut peer = peer(door.address).await;
    let mut staying = vec![];
    let mut leaving = vec![];
    for n in 0..80 {
        peer.send = peer.send.clone().ready().await.unwrap();
        let (answer, stream) = peer.send.send_request(request("1500"), true).unwrap();
        if n % 2 == 0 {
            staying.push(answer);
        } else {
            leaving.push((answer, stream));
        }
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    for (answer, mut stream) in leaving {
        stream.send_reset(h2::Reason::CANCEL);
        drop(answer);
    }
    for answer in staying {
        assert_eq!(answer.await.unwrap().headers()["grpc-status"], "0");
    }
    assert_eq!((door.stats)().cancelled, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_leave_before_they_were_heard_take_nobody_along_either() {
    let door = open(DoorSettings::default()).await;
    let mut peer = peer(door.address).await;
    peer.call(request("0")).await.unwrap();
    peer.send = peer.send.clone().ready().await.unwrap();
    // Without a pause, so that headers and resets arrive together.
    for _ in 0..60 {
        let (answer, mut stream) = peer.send.send_request(request("60000"), true).unwrap();
        stream.send_reset(h2::Reason::CANCEL);
        drop(answer);
    }
    assert_eq!(peer.call(request("0")).await.unwrap().headers()["grpc-status"], "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_request_has_an_end_and_a_stream_has_none() {
    let door = open(DoorSettings { request_deadline_ms: 200, ..DoorSettings::default() }).await;
    let mut peer = peer(door.address).await;
    let late = peer.call(request("60000")).await.unwrap();
    assert_eq!(late.headers()["grpc-status"], "4");
    let mut short = request("60000");
    short.headers_mut().insert("grpc-timeout", "10m".parse().unwrap());
    assert_eq!(peer.call(short).await.unwrap().headers()["grpc-status"], "4");
    assert_eq!(peer.call(request("stream")).await.unwrap().headers()["grpc-status"], "0");
    assert_eq!((door.stats)().late, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_something_comes_to_its_end_although_its_caller_goes_away() {
    for (finishes, expected) in [(true, 2), (false, 0)] {
        let settings = DoorSettings { request_deadline_ms: 150, ..DoorSettings::default() };
        let door = open_that(settings, finishes, None).await;
        let mut peer = peer(door.address).await;
        assert_eq!(
            peer.call(request("400")).await.unwrap().headers()["grpc-status"],
            "4",
            "past its deadline"
        );
        let (answer, mut stream) =
            peer.send.clone().ready().await.unwrap().send_request(request("401"), true).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.send_reset(h2::Reason::CANCEL);
        drop((answer, peer));
        // A drain waits for what has to come to its end.
        door.drain.drain(PATIENCE).await;
        assert_eq!(door.done.load(Relaxed), expected, "finishes: {finishes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_counted_once_with_how_it_ended_and_streams_are_counted_while_they_last() {
    let calls = Arc::new(Calls::new(["test.Slow/now".to_owned(), "test.Slow/60000".to_owned()]));
    let somebody: Arc<dyn Authenticate> = Arc::new(LoopbackDev);
    let callers =
        Callers { authenticate: Some(somebody), calls: Some(Arc::clone(&calls)), ..Callers::default() };
    let door = open_for(DoorSettings::default(), false, callers).await;
    let mut peer = peer(door.address).await;
    for _ in 0..3 {
        peer.send = peer.send.clone().ready().await.unwrap();
        peer.send.send_request(request("now"), true).unwrap().0.await.unwrap();
    }
    peer.send = peer.send.clone().ready().await.unwrap();
    let (answer, mut stream) = peer.send.send_request(request("60000"), true).unwrap();
    until("it is under way", || (door.stats)().streams == 1).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    until("it is not any more", || (door.stats)().streams == 0).await;
    let counted = || {
        let counted = calls.calls().into_iter();
        let mut counted: Vec<_> =
            counted.map(|c| (c.method, c.code, c.took.counts.iter().sum::<u64>())).collect();
        counted.sort();
        counted
    };
    let expected = [("test.Slow/60000", "CANCELLED", 1), ("test.Slow/now", "OK", 3)];
    let expected = expected.map(|(method, code, count)| (method.to_owned(), code, count));
    until("each is counted", || counted() == expected).await;
}
