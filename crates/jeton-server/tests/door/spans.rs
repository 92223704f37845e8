//! Requests as they are recorded.

use std::sync::{
    Arc,
    mpsc::{Receiver, channel},
};

use jeton_server::door::{Authenticate, Calls, DoorSettings, LoopbackDev, Protocol};
use jeton_trace::{Ended, Kind, Parent, Sampler, Tracer, Value};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Callers, Open, open_for, peer, request};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
const PARENT: Parent = Parent { span_id: 0xb7ad_6b71_6920_3331, remote: true };

async fn open(sampler: Sampler, protocol: Protocol) -> (Open, Receiver<Ended>) {
    let (tell, told) = channel();
    // What ends after its test is of no use.
    let tracer = Tracer::new(sampler, Arc::new(move |ended| drop(tell.send(ended))));
    let known: Arc<dyn Authenticate> = Arc::new(LoopbackDev);
    let calls = Some(Arc::new(Calls::new(["test.Slow/0".to_owned()]).traced(tracer)));
    let callers = Callers { protocol, calls, authenticate: Some(known), ..Callers::default() };
    (open_for(DoorSettings::default(), false, callers).await, told)
}

async fn ended(told: Receiver<Ended>) -> (Ended, Receiver<Ended>) {
    tokio::task::spawn_blocking(|| (told.recv().unwrap(), told)).await.unwrap()
}

fn attributes(ended: &Ended) -> Vec<(&str, String)> {
    let text = |value: &Value| match value {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
    };
    ended.attributes.iter().map(|(key, value)| (*key, text(value))).collect()
}

fn pairs<const N: usize>(expected: [(&'static str, &str); N]) -> Vec<(&'static str, String)> {
    expected.map(|(key, text)| (key, text.to_owned())).into()
}

#[tokio::test]
async fn a_callers_trace_goes_on_in_the_calls_that_it_samples_and_tells_what_the_conventions_ask_for() {
    let (door, told) = open(Sampler::parent_based(0.0), Protocol::Http2).await;
    let mut peer = peer(door.address).await;
    let traced = |path: &str, traceparent: &str| {
        let mut request = request(path);
        let headers = request.headers_mut();
        for (name, value) in [
            ("traceparent", traceparent),
            ("baggage", "canary=1"),
            ("authorization", "Bearer canary"),
            ("x-canary", "canary"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        request
    };
    for unsampled in [request("0"), traced("0", &CALLER.replace("-01", "-00")), traced("0", "canary")] {
        peer.call(unsampled).await.unwrap();
    }
    peer.call(traced("0", CALLER)).await.unwrap();
    let (call, told) = ended(told).await;
    assert_eq!((call.context.trace_id, call.parent, call.kind), (TRACE, Some(PARENT), Kind::Server));
    let expected =
        [("rpc.system.name", "grpc"), ("rpc.method", "test.Slow/0"), ("rpc.response.status_code", "OK")];
    assert_eq!((&*call.name, attributes(&call), call.failed), ("test.Slow/0", pairs(expected), false));
    // A deadline that passes, of a method that nobody knows.
    let mut late = traced("60000/canary/60000", CALLER);
    late.headers_mut().insert("grpc-timeout", "20m".parse().unwrap());
    peer.call(late).await.unwrap();
    let (late, _told) = ended(told).await;
    let expected = [
        ("rpc.system.name", "grpc"),
        ("rpc.method", "_OTHER"),
        ("rpc.response.status_code", "DEADLINE_EXCEEDED"),
        ("error.type", "DEADLINE_EXCEEDED"),
    ];
    assert_eq!((&*late.name, attributes(&late), late.failed), ("_OTHER", pairs(expected), true));
    assert!(!format!("{call:?}{late:?}").contains("canary"));
}

#[tokio::test]
async fn a_call_that_its_caller_cancels_ends_as_cancelled() {
    let (door, told) = open(Sampler::ratio(1.0), Protocol::Http2).await;
    let mut peer = peer(door.address).await;
    peer.send = peer.send.clone().ready().await.unwrap();
    let (answer, mut stream) = peer.send.send_request(request("60000"), true).unwrap();
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    let (call, _told) = ended(told).await;
    assert!(attributes(&call).contains(&("rpc.response.status_code", "CANCELLED".into())) && !call.failed);
}

#[tokio::test]
async fn a_request_over_http1_is_recorded_without_its_parameters_and_headers() {
    let (door, told) = open(Sampler::parent_based(0.0), Protocol::Http1).await;
    let sent = |head: String| async move {
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut all = vec![];
        stream.read_to_end(&mut all).await.unwrap();
    };
    let head = |more: &str| {
        format!("GET /test.Slow/now?secret=canary HTTP/1.1\r\nHost: a\r\nX-Secret: canary\r\n{more}\r\n")
    };
    sent(head("")).await;
    sent(head(&format!("traceparent: {CALLER}\r\n"))).await;
    let (request, told) = ended(told).await;
    let expected = [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("url.path", "/test.Slow/now"),
        ("http.response.status_code", "200"),
    ];
    assert_eq!((request.context.trace_id, request.parent), (TRACE, Some(PARENT)));
    assert_eq!((&*request.name, attributes(&request)), ("GET", pairs(expected)));
    assert!(told.try_recv().is_err(), "the other one is not sampled");
}
