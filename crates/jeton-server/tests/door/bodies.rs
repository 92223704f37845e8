//! Bytes that belong to requests are nobody's misuse, however many.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc, task};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use jeton_core::SystemClock;
use jeton_server::door::{Door, DoorSettings, Drain, Listen, Listener, LoopbackDev, Protocol, serve};
use tonic::{body::Body, server::NamedService, service::Routes};

use crate::support::{peer, request};

/// As little as may be set.
const CAP: u64 = 65_536;
/// Within the window of a stream, so that it goes out at once.
const BODY: &[u8] = &[7; 48 * 1_024];
const CALLS: usize = 200;

/// Reads all of a body, and says how long it was.
#[derive(Clone)]
struct Reads;

impl NamedService for Reads {
    const NAME: &'static str = "test.Slow";
}

impl tower::Service<Request<Body>> for Reads {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            let read = request.into_body().collect().await.unwrap().to_bytes().len();
            let answer = Response::builder().header("grpc-status", "0").header("read", read);
            Ok(answer.body(Body::empty()).unwrap())
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_headers_of_requests_may_be_more_than_what_asks_for_nothing() {
    let listener = Listener::bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let address = listener.tcp_address().unwrap();
    let door = Door {
        name: "test",
        listener,
        protocol: Protocol::Http2,
        settings: DoorSettings { max_idle_bytes_per_second: CAP, ..DoorSettings::default() },
        tls: None,
        authenticate: Some(Arc::new(LoopbackDev)),
        bearer: None,
        clock: Arc::new(SystemClock),
        routes: Routes::new(Reads),
        shortcut: None,
        calls: None,
        streaming: |_| false,
        finishes: false,
        complete: |r| r,
    };
    let (_accepting, stats) = serve(door, Drain::default());
    let mut peer = peer(address).await;
    let mut token = http::HeaderValue::from_static(std::str::from_utf8(&[b'v'; 8 * 1_024]).unwrap());
    // Never in HPACK's table, as a careful client sends it: all of it each time.
    token.set_sensitive(true);
    for _ in 0..CALLS {
        let mut request = request("read");
        request.headers_mut().insert("x-token", token.clone());
        peer.send = peer.send.clone().ready().await.unwrap();
        let (answer, mut body) = peer.send.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(BODY), true).unwrap();
        assert_eq!(answer.await.unwrap().headers()["read"], BODY.len().to_string());
    }
    let stats = stats();
    assert_eq!((stats.misused, stats.open), (0, 1), "{stats:?}");
}
