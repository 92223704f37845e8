use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll as Polled},
};

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use http::{Request, Response};
use jeton_access::{Authenticated, BearerTokens, Rejected};
use jeton_core::{BoxFuture, Principal, SystemClock, Wall};
use jeton_testkit::{ManualClock, START};
use tokio::{io::duplex, sync::oneshot, task::JoinHandle};
use tonic::{body::Body, server::NamedService, service::Routes};

use super::*;
use crate::door::{
    ClientCertificates, Drain, Moment, Peer, Protocol, Shortcut, meter::CANCEL_WINDOW, request::Common,
};
use crate::seldom::Seldom;

/// More than what is between the two sides of a connection.
const LARGE: &[u8] = &[7; 1 << 20];

/// Answers at once, by `large` with more than a peer takes that does not read; a stream says nothing and does not end.
#[derive(Clone)]
struct Service;

impl NamedService for Service {
    const NAME: &'static str = "test.Service";
}

impl tower::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Polled<Result<(), Infallible>> {
        Polled::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let [streams, large] = ["/stream", "/large"].map(|end| request.uri().path().ends_with(end));
        Box::pin(async move {
            if large {
                return Ok(Response::new(Body::new(http_body_util::Full::from(LARGE))));
            }
            let silent = http_body_util::StreamBody::new(futures_util::stream::pending::<
                Result<http_body::Frame<Bytes>, tonic::Status>,
            >());
            Ok(if streams {
                Response::new(Body::new(silent))
            } else {
                Response::builder().header("grpc-status", "0").body(Body::empty()).unwrap()
            })
        })
    }
}

/// Knows the answer to everything that is asked there, and its last byte otherwise than others.
struct Short(&'static [u8]);

impl Shortcut for Short {
    fn path(&self) -> &'static str {
        "/test.Service/short"
    }

    fn answer(&self, _: &crate::door::Caller, _: &[u8], _: &mut Moment) -> Option<Answer> {
        Some(Answer::ending(Bytes::from_static(self.0), 8))
    }

    fn answered(&self, _: u64, _: u64) {}
}

fn common(clock: Arc<dyn jeton_core::Clock>, bearer: Option<Arc<dyn BearerTokens>>) -> Arc<Common> {
    Arc::new(Common {
        protocol: Protocol::Http2,
        name: "test",
        routes: Routes::new(Service),
        shortcut: Some(Arc::new(Short(LARGE))),
        secured: false,
        calls: None,
        hits: None,
        bearer,
        clock,
        settings: Arc::default(),
        streaming: |path| path.ends_with("/stream"),
        finishing: None,
        complete: crate::grpc::complete,
        drain: Drain::default(),
        counters: Arc::default(),
        log: Seldom::default(),
    })
}

fn from() -> Peer {
    Peer::Tcp { remote: ([127, 0, 0, 1], 1).into() }
}

fn shared() -> Arc<Shared> {
    let common = common(Arc::new(SystemClock), None);
    Arc::new(Shared::new(common, from(), Some(Principal::loopback_dev()), None))
}

fn called(path: &str) -> http::request::Builder {
    let call = Request::post(format!("http://localhost/test.Service/{path}"));
    call.header("content-type", "application/grpc")
}

/// A call that nobody serves.
const NOTHING: &str = "test.None/Call";

/// A peer that has asked once, and goes on reading until it is told to stop. The first of the two is the door's side.
async fn peer(path: &str) -> (JoinHandle<()>, oneshot::Sender<()>) {
    let (near, far) = duplex(64 * 1024);
    let served = tokio::spawn(serve(near, shared(), Instant::now(), None));
    let mut wide = h2::client::Builder::new();
    wide.initial_window_size(1 << 30).initial_connection_window_size(1 << 30);
    let (mut send, mut connection) = wide.handshake::<_, Bytes>(far).await.unwrap();
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            _ = &mut connection => {}
            _ = stopped => {}
        }
        // It is there, and does nothing.
        std::future::pending::<()>().await;
        drop(connection);
    });
    let request =
        Request::post(format!("http://localhost/{path}")).header("content-type", "application/grpc");
    let (answer, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
    answer.await.unwrap();
    // The last handle of a client would end its connection.
    std::mem::forget(send);
    (served, stop)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_silent_and_answers_no_ping_is_let_go_and_one_that_answers_stays() {
    let (silent, stop) = peer(NOTHING).await;
    stop.send(()).unwrap();
    assert!(timeout(PING_INTERVAL, silent).await.is_err(), "it is asked first");
    let (mut silent, stop) = peer(NOTHING).await;
    stop.send(()).unwrap();
    // What it asked was heard in the first interval.
    let both = 2 * PING_INTERVAL + PING_TIMEOUT + Duration::from_secs(1);
    timeout(both, &mut silent).await.expect("it is let go").unwrap();
    let (mut there, _stop) = peer(NOTHING).await;
    assert!(timeout(10 * both, &mut there).await.is_err(), "it answers");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_its_answer_is_let_go_as_one_that_is_not_there() {
    for path in ["test.Service/large", "test.Service/short"] {
        let (unread, stop) = peer(path).await;
        stop.send(()).unwrap();
        let both = 2 * PING_INTERVAL + PING_TIMEOUT + Duration::from_secs(1);
        timeout(both, unread).await.expect("it is let go").unwrap();
    }
}

/// How long a connection lives whose peer does nothing, or holds on to a stream whatever it is told.
async fn lived(holds: bool) -> Duration {
    let (start, (near, far)) = (Instant::now(), duplex(64 * 1024));
    let served = tokio::spawn(serve(near, shared(), start, None));
    let (mut send, connection) = h2::client::handshake(far).await.unwrap();
    let _connection = tokio::spawn(connection);
    let path = if holds { "stream" } else { "call" };
    let request = called(path).body(()).unwrap();
    let _held = send.send_request(request, true).unwrap().0.await.unwrap();
    served.await.unwrap();
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_at_half_an_hour_give_or_take_a_tenth_and_is_cut_half_a_minute_later() {
    let (youngest, oldest) = (Duration::from_secs(27 * 60), Duration::from_secs(33 * 60));
    let (grace, tick) = (Duration::from_secs(30), Duration::from_secs(1));
    let mut ages = vec![];
    for _ in 0..20 {
        let age = lived(false).await;
        assert!((youngest..oldest + tick).contains(&age), "{age:?}");
        ages.push(age);
        let held = lived(true).await;
        assert!((youngest + grace..oldest + grace + tick).contains(&held), "{held:?}");
    }
    let spread = *ages.iter().max().unwrap() - *ages.iter().min().unwrap();
    assert!(spread > (oldest - youngest) / 4, "they do not all end at once: {spread:?}");
}

/// A caller with a certificate, whose end the manual clock can reach, or with tokens.
struct Caller {
    clock: ManualClock,
    tls: Arc<Tls>,
    send: SendRequest<Bytes>,
    served: JoinHandle<()>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Caller {
    async fn until(until: Option<Wall>, bearer: Option<Arc<dyn BearerTokens>>) -> Self {
        let (clock, tls) = (ManualClock::default(), Tls::new(ClientCertificates::Optional, 1));
        let common = common(Arc::new(clock.clone()), bearer);
        let proven = until.map(|until| Authenticated {
            principal: "spiffe://prod.example/api".parse().unwrap(),
            until: Some(until),
        });
        let proof = proven.clone().map(|it| (Arc::clone(&tls), Proof::assumed(it, &tls)));
        let shared = Arc::new(Shared::new(common, from(), None, proven));
        let (near, far) = duplex(64 * 1024);
        let served = tokio::spawn(serve(near, shared, Instant::now(), proof));
        let (send, connection) = h2::client::handshake(far).await.unwrap();
        Self { clock, tls, send, served, connection: tokio::spawn(connection) }
    }

    /// The answer; an error is the library's, which knows that the connection ends.
    async fn ask(&mut self, path: &str, token: Option<&str>) -> Result<Response<RecvStream>, h2::Error> {
        let mut request = called(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.send = self.send.clone().ready().await?;
        self.send.send_request(request.body(()).unwrap(), true)?.0.await
    }
}

fn status(answer: &Response<RecvStream>) -> &str {
    answer.headers()["grpc-status"].to_str().unwrap()
}

/// How a stream ended.
async fn end(mut stream: Response<RecvStream>) -> (String, bool) {
    assert!(stream.body_mut().data().await.is_none_or(|data| data.is_err()), "it says nothing");
    let trailers = stream.body_mut().trailers().await.unwrap().expect("trailers");
    (trailers["grpc-status"].to_str().unwrap().to_owned(), trailers.contains_key("grpc-status-details-bin"))
}

/// UNAUTHENTICATED, with its details.
fn unauthenticated() -> (String, bool) {
    ("16".to_owned(), true)
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_asked_to_end_before_its_certificate_does_and_is_cut_with_it() {
    let mut caller = Caller::until(Some(START + Duration::from_secs(300)), None).await;
    assert_eq!(status(&caller.ask("call", None).await.unwrap()), "0");
    let stream = caller.ask("stream", None).await.unwrap();
    let clock = caller.clock.clone();
    clock.advance(Duration::from_secs(269)).await;
    assert_eq!(status(&caller.ask("call", None).await.unwrap()), "0", "there is time");
    clock.advance(Duration::from_secs(2)).await;
    assert!(caller.ask("call", None).await.is_err(), "GOAWAY: what is new goes elsewhere");
    assert!(!caller.served.is_finished(), "what is under way goes on");
    let ended = tokio::spawn(end(stream));
    clock.advance(Duration::from_secs(28)).await;
    assert!(!ended.is_finished(), "the stream goes on to the end");
    clock.advance(Duration::from_secs(2)).await;
    assert_eq!(ended.await.unwrap(), unauthenticated());
    caller.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_expired_while_the_machine_slept_is_good_for_nothing() {
    let mut caller = Caller::until(Some(START + Duration::from_secs(300)), None).await;
    assert_eq!(status(&caller.ask("call", None).await.unwrap()), "0");
    let ended = tokio::spawn(end(caller.ask("stream", None).await.unwrap()));
    caller.clock.suspend(Duration::from_secs(400));
    let refused = caller.ask("call", None).await.unwrap();
    assert_eq!(status(&refused), "16");
    assert!(!format!("{:?}", refused.headers()).contains("certificate"), "why is not the caller's business");
    // Timers stood still; it is looked again within seconds.
    caller.clock.advance(Duration::from_secs(16)).await;
    assert_eq!(ended.await.unwrap(), unauthenticated());
    caller.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_goes_takes_along_the_connections_that_it_let_in() {
    let mut caller = Caller::until(Some(START + Duration::from_secs(3_600)), None).await;
    let ended = tokio::spawn(end(caller.ask("stream", None).await.unwrap()));
    caller.tls.trust(0, None);
    assert_eq!(ended.await.unwrap(), unauthenticated());
    caller.served.await.unwrap();
    let _ = caller.connection.await.unwrap();
}

/// Knows one token, until a time; and verifies another.
#[derive(Debug)]
struct One(Wall);

impl BearerTokens for One {
    fn remembered(&self, token: &str, now: Wall) -> Option<Authenticated> {
        let found = Authenticated { principal: "oidc://issuer/one".parse().unwrap(), until: Some(self.0) };
        (token == "known" && now < self.0).then_some(found)
    }

    fn verify<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Authenticated, Rejected>> {
        Box::pin(async { Err(Rejected::Credential("it has expired".into())) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_token_by_which_it_was_asked_for_and_the_connection_goes_on() {
    let tokens = Arc::new(One(START + Duration::from_secs(60)));
    let certificate = START + Duration::from_secs(3_600);
    let mut caller = Caller::until(Some(certificate), Some(tokens)).await;
    let by_token = tokio::spawn(end(caller.ask("stream", Some("known")).await.unwrap()));
    let by_certificate = tokio::spawn(end(caller.ask("stream", None).await.unwrap()));
    caller.clock.advance(Duration::from_secs(59)).await;
    assert!(!by_token.is_finished());
    caller.clock.advance(Duration::from_secs(2)).await;
    assert_eq!(by_token.await.unwrap(), unauthenticated());
    assert!(!by_certificate.is_finished());
    // The certificate does not stand in for a token that has run out.
    assert_eq!(status(&caller.ask("call", Some("known")).await.unwrap()), "16");
    assert_eq!(status(&caller.ask("call", None).await.unwrap()), "0");
}

#[tokio::test(start_paused = true)]
async fn streams_that_have_lasted_are_stopped_at_will_and_short_ones_are_counted() {
    let settings = DoorSettings::default();
    let most = settings.max_cancelled_requests.min(settings.max_concurrent_streams);
    let mut caller = Caller::until(Some(START + Duration::from_secs(3_600)), None).await;
    for lasting in [CANCEL_WINDOW, Duration::ZERO] {
        let mut streams = vec![];
        for _ in 0..most {
            streams.push(caller.ask("stream", None).await.unwrap());
        }
        caller.clock.advance(lasting).await;
        drop(streams);
        assert_eq!(status(&caller.ask("call", None).await.unwrap()), "0", "after {lasting:?}");
    }
    drop(caller.ask("stream", None).await.unwrap());
    timeout(LAST_BYTES, caller.served).await.expect("that was one too many").unwrap();
}

#[tokio::test]
async fn an_answer_with_another_last_byte_arrives_whole_through_any_window() {
    for window in [1, 2, 333, 999, 1_000, 65_535] {
        let mut common = Arc::into_inner(common(Arc::new(SystemClock), None)).unwrap();
        common.shortcut = Some(Arc::new(Short(&[7; 1_000])));
        let shared = Arc::new(Shared::new(Arc::new(common), from(), Some(Principal::loopback_dev()), None));
        let (near, far) = duplex(64 * 1024);
        tokio::spawn(serve(near, shared, Instant::now(), None));
        let mut client = h2::client::Builder::new();
        client.initial_window_size(window);
        let (mut send, connection) = client.handshake::<_, Bytes>(far).await.unwrap();
        tokio::spawn(connection);
        let request = called("short").body(()).unwrap();
        let mut answer = send.send_request(request, true).unwrap().0.await.unwrap().into_body();
        let mut whole = vec![];
        while let Some(data) = answer.data().await {
            let data = data.unwrap();
            answer.flow_control().release_capacity(data.len()).unwrap();
            whole.extend_from_slice(&data);
        }
        assert!(whole[..999] == [7; 999] && whole[999..] == [8], "window {window}");
    }
}

#[tokio::test]
async fn a_thousand_small_messages_that_wait_together_end_no_connection() {
    let (near, far) = duplex(64 * 1024);
    tokio::spawn(serve(near, shared(), Instant::now(), None));
    let (mut send, connection) = h2::client::handshake(far).await.unwrap();
    tokio::spawn(connection);
    // Nobody reads what this one says.
    let (begun, mut words) = send.send_request(called("stream").body(()).unwrap(), false).unwrap();
    begun.await.unwrap();
    for _ in 0..1_000 {
        words.send_data(Bytes::from_static(&[0; 60]), false).unwrap();
    }
    // Whatever was sent before is there when these are answered.
    for _ in 0..1_000 {
        send.clone().send_request(called("short").body(()).unwrap(), true).unwrap().0.await.unwrap();
    }
}
