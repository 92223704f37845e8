//! Requests that are no calls of gRPC (PROTOCOL-HTTP2, "Requests").

use std::sync::{Arc, atomic::Ordering::Relaxed};

use http::{Method, Request, Response, header::CONTENT_TYPE};
use jeton_server::door::{Authenticate, Calls, DoorSettings, LoopbackDev};

use tokio::time::timeout;

use crate::support::{Callers, Open, PATIENCE, Peer, open, open_for, peer, request};

/// The call that has a short way, one that has not, and a stream.
const PATHS: [&str; 3] = ["hit", "now", "endless/stream"];

async fn door(authenticate: Option<Arc<dyn Authenticate>>) -> (Open, Peer, Arc<Calls>) {
    let calls = Arc::new(Calls::new(PATHS.map(|path| format!("test.Slow/{path}"))));
    let callers = Callers { authenticate, calls: Some(Arc::clone(&calls)), ..Callers::default() };
    let door = open_for(DoorSettings::default(), false, callers).await;
    let peer = peer(door.address).await;
    (door, peer, calls)
}

fn known() -> Option<Arc<dyn Authenticate>> {
    Some(Arc::new(LoopbackDev))
}

fn with_method(path: &str, method: Method) -> Request<()> {
    let mut request = request(path);
    *request.method_mut() = method;
    request
}

fn of_kind(path: &str, kind: Option<&'static str>) -> Request<()> {
    let mut request = request(path);
    request.headers_mut().remove(CONTENT_TYPE);
    request.headers_mut().extend(kind.map(|kind| (CONTENT_TYPE, kind.parse().unwrap())));
    request
}

/// The status, and what is told with it; none of it is gRPC's.
async fn refused(peer: &mut Peer, request: Request<()>, tells: &str) -> (u16, String, String) {
    let answer: Response<_> = peer.call(request).await.unwrap();
    let (head, mut body) = answer.into_parts();
    assert!(!head.headers.contains_key("grpc-status"), "{head:?}");
    let mut text = vec![];
    while let Some(data) = body.data().await {
        text.extend(data.unwrap());
    }
    assert_eq!(body.trailers().await.unwrap(), None);
    let told = head.headers.get(tells).map(|told| told.to_str().unwrap().to_owned());
    (head.status.as_u16(), told.unwrap_or_default(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_a_post_and_every_other_method_is_told_so() {
    let (door, mut peer, calls) = door(known()).await;
    for path in PATHS {
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let told = refused(&mut peer, with_method(path, method.clone()), "allow").await;
            assert_eq!((told.0, told.1.as_str()), (405, "POST"), "{method} {path}");
            assert_eq!(told.2.is_empty(), method == Method::HEAD, "{method} {path}: {}", told.2);
        }
    }
    assert_eq!((door.done.load(Relaxed), door.hits.load(Relaxed)), (0, 0));
    // It counts against no method's calls.
    let counted: Vec<_> = calls.calls().into_iter().map(|ended| (ended.method, ended.code)).collect();
    assert_eq!(counted, [("_OTHER".to_owned(), "UNKNOWN")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_has_a_content_type_of_grpc_and_every_other_is_told_so() {
    let (door, mut peer, _) = door(known()).await;
    let kinds = [
        "text/html",
        "application/json",
        "application/x-protobuf",
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpcs",
        "application/grp",
        "",
    ];
    for kind in kinds.map(Some).into_iter().chain([None]) {
        for path in PATHS {
            let told = refused(&mut peer, of_kind(path, kind), "accept").await;
            assert_eq!((told.0, told.1.as_str()), (415, "application/grpc"), "{kind:?} {path}");
            assert!(told.2.contains("application/grpc"), "{}", told.2);
        }
    }
    assert_eq!((door.done.load(Relaxed), door.hits.load(Relaxed)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_grpcs_content_type_is_taken() {
    let (_door, mut peer, _) = door(known()).await;
    for kind in [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc+json",
        "application/grpc;charset=utf-8",
        "application/grpc ; charset=utf-8",
        "application/grpc+proto; charset=utf-8",
        "Application/gRPC",
    ] {
        let answer = peer.call(of_kind("now", Some(kind))).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["grpc-status"]),
            (200, &"0".parse().unwrap())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_is_refused_before_it_is_asked_whose_it_is() {
    let (door, mut peer, _) = door(None).await;
    // A 200 of gRPC's would be a success to whoever does not speak it.
    assert_eq!(refused(&mut peer, with_method("now", Method::GET), "allow").await.0, 405);
    assert_eq!(refused(&mut peer, of_kind("now", Some("text/html")), "accept").await.0, 415);
    assert_eq!((door.stats)().unauthenticated, 0);
    assert_eq!(peer.call(request("now")).await.unwrap().headers()["grpc-status"], "16");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_is_refused_when_it_is_all_here_or_is_long_or_does_not_come() {
    let (ended, long, silent) = (b"form".as_slice(), [b'f'; 9_000].as_slice(), b"".as_slice());
    for (body, ends, deadline) in [(ended, true, 60_000), (long, false, 60_000), (silent, false, 200)] {
        let settings = DoorSettings { request_deadline_ms: deadline, ..DoorSettings::default() };
        let door = open(settings).await;
        let mut peer = peer(door.address).await;
        let (answer, mut stream) = peer.send.send_request(of_kind("now", None), false).unwrap();
        if body != silent {
            // The answer to the next one says that the door has this one.
            peer.call(request("now")).await.unwrap();
            assert_eq!((door.stats)().streams, 1, "it waits for the rest");
            stream.send_data(body.into(), ends).unwrap();
        }
        assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 415, "{} bytes", body.len());
    }
}
