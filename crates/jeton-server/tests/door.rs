//! The accept loop against raw peers: silent ones, greedy ones, ones that cancel, ones that never let go. Margins are wide: what
//! is shown is that something happens, and that it does not take for ever.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use jeton_server::door::{
    Door, DoorError, DoorSettings, DoorStats, Drain, Listen, Listener, LoopbackDev, serve,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tonic::{body::Body, server::NamedService, service::Routes};

const PATIENCE: Duration = Duration::from_secs(20);

/// Answers after as many milliseconds as the path says: `/test.Slow/250`.
#[derive(Clone, Default)]
struct Slow(Arc<AtomicU32>);

impl NamedService for Slow {
    const NAME: &'static str = "test.Slow";
}

impl tower::Service<Request<Body>> for Slow {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let millis = request.uri().path().rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let endless = request.uri().path().contains("endless");
        let done = Arc::clone(&self.0);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            done.fetch_add(1, Relaxed);
            if endless {
                // The headers, and then nothing.
                let silent = http_body_util::StreamBody::new(futures_util::stream::pending::<
                    Result<http_body::Frame<Bytes>, tonic::Status>,
                >());
                return Ok(Response::new(Body::new(silent)));
            }
            Ok(Response::builder().header("grpc-status", "0").body(Body::empty()).unwrap())
        })
    }
}

struct Open {
    address: SocketAddr,
    drain: Drain,
    done: Arc<AtomicU32>,
    stats: Box<dyn Fn() -> DoorStats + Send + Sync>,
}

async fn open(settings: DoorSettings) -> Open {
    open_that(settings, false, None).await
}

async fn open_that(settings: DoorSettings, finishes: bool, tls: Option<Arc<rustls::ServerConfig>>) -> Open {
    let listener = Listener::bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let (address, drain) = (listener.tcp_address().unwrap(), Drain::default());
    let slow = Slow::default();
    let done = Arc::clone(&slow.0);
    let (authenticate, routes) = (Arc::new(LoopbackDev), Routes::new(slow));
    let streaming = |path: &str| path.ends_with("/stream");
    let (_, stats) = serve(
        Door {
            name: "test",
            listener,
            settings,
            tls,
            authenticate,
            routes,
            shortcut: None,
            streaming,
            finishes,
            complete: |r| r,
        },
        drain.clone(),
    );
    Open { address, drain, done, stats: Box::new(stats) }
}

struct Peer {
    send: SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

async fn peer(address: SocketAddr) -> Peer {
    let (send, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    Peer { send, connection: tokio::spawn(connection) }
}

fn request(path: &str) -> Request<()> {
    let uri = format!("http://localhost/test.Slow/{path}");
    Request::post(uri).header("content-type", "application/grpc").body(()).unwrap()
}

impl Peer {
    async fn call(&mut self, request: Request<()>) -> Result<Response<h2::RecvStream>, h2::Error> {
        self.send = self.send.clone().ready().await?;
        let (answer, _) = self.send.send_request(request, true)?;
        answer.await
    }
}

async fn closes(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 1_024];
    let end = async { while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {} };
    timeout(PATIENCE, end).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_for_nothing_is_closed_and_one_that_asked_is_not() {
    let door = open(DoorSettings { first_request_deadline_ms: 300, ..DoorSettings::default() }).await;
    let mut silent = TcpStream::connect(door.address).await.unwrap();
    let mut good = peer(door.address).await;
    good.call(request("0")).await.unwrap();
    // The preface alone is no request either.
    let only_preface = peer(door.address).await;
    assert!(closes(&mut silent).await);
    assert!(timeout(PATIENCE, only_preface.connection).await.is_ok());
    assert_eq!(good.call(request("0")).await.unwrap().status(), 200);
    assert_eq!((door.stats)().silent, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_tls_stands_the_same_door_and_a_handshake_that_never_ends_is_closed() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    let settings = DoorSettings { first_request_deadline_ms: 1_500, ..DoorSettings::default() };
    let door = open_that(settings, false, Some(Arc::new(server))).await;
    let mut silent = TcpStream::connect(door.address).await.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(door.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let secured = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let (send, connection) = h2::client::handshake(secured).await.unwrap();
    let mut peer = Peer { send, connection: tokio::spawn(connection) };
    for _ in 0..3 {
        assert_eq!(peer.call(request("0")).await.unwrap().headers()["grpc-status"], "0");
    }
    assert!(closes(&mut silent).await);
    assert_eq!((door.stats)().silent, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_a_cap_are_closed_and_a_place_comes_free_again() {
    let settings = DoorSettings { max_connections_per_principal: 2, ..DoorSettings::default() };
    let door = open(settings).await;
    let (mut first, mut second) = (peer(door.address).await, peer(door.address).await);
    first.call(request("0")).await.unwrap();
    second.call(request("0")).await.unwrap();
    let mut third = TcpStream::connect(door.address).await.unwrap();
    assert!(closes(&mut third).await);
    assert_eq!((door.stats)().full, 1);
    first.connection.abort();
    drop(first);
    for _ in 0..200 {
        if (door.stats)().open < 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    peer(door.address).await.call(request("0")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_over_their_limit_are_refused_and_the_connection_goes_on() {
    let door = open(DoorSettings::default()).await;
    let mut peer = peer(door.address).await;
    peer.call(request("0")).await.unwrap();
    let mut large = request("0");
    for n in 0..8 {
        let name: http::HeaderName = format!("x-filler-{n}").parse().unwrap();
        large.headers_mut().insert(name, "x".repeat(4_096).parse().unwrap());
    }
    let refused = peer.call(large).await;
    assert!(refused.is_err() || refused.is_ok_and(|r| r.status() == 431));
    assert_eq!(peer.call(request("0")).await.unwrap().status(), 200);
}

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
async fn a_drain_does_not_wait_for_streams_that_have_nothing_more_to_say() {
    let door = open(DoorSettings::default()).await;
    let mut peer = peer(door.address).await;
    let mut body = peer.call(request("endless/stream")).await.unwrap().into_body();
    let start = Instant::now();
    door.drain.drain(PATIENCE).await;
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    assert!(body.data().await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "14");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_sends_what_asks_for_nothing_is_closed() {
    use tokio::io::AsyncWriteExt;
    let door = open(DoorSettings { max_idle_bytes_per_second: 65_536, ..DoorSettings::default() }).await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let ping = b"\0\0\x08\x06\0\0\0\0\0pingpong".repeat(1_000);
    let (mut reading, mut writing) = stream.split();
    let flood = async {
        // Ends when the door has closed.
        while writing.write_all(&ping).await.is_ok() {}
    };
    let answers = async {
        let mut buffer = vec![0; 65_536];
        while reading.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    };
    timeout(PATIENCE, async { tokio::join!(flood, answers) }).await.expect("the door closes");
    assert_eq!((door.stats)().misused, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_is_asked_to_end_and_what_is_in_flight_finishes() {
    let door =
        open(DoorSettings { max_age_ms: 1_000, age_grace_ms: 10_000, ..DoorSettings::default() }).await;
    let mut peer = peer(door.address).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    // Under way when the age comes.
    assert_eq!(peer.call(request("1000")).await.unwrap().status(), 200);
    assert!(timeout(PATIENCE, peer.connection).await.unwrap().unwrap().is_ok(), "GOAWAY, and an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_whose_peer_holds_on_is_cut_after_its_grace() {
    let door = open(DoorSettings { max_age_ms: 1_000, age_grace_ms: 300, ..DoorSettings::default() }).await;
    let mut peer = peer(door.address).await;
    let start = Instant::now();
    let held = peer.call(request("60000")).await;
    assert!(
        held.is_err() && start.elapsed() < Duration::from_secs(9),
        "{held:?} after {:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_requests_finish_refuses_new_connections_and_ends_in_time() {
    let door = open(DoorSettings::default()).await;
    let mut good = peer(door.address).await;
    let mut stuck = peer(door.address).await;
    let finishing = tokio::spawn(async move { good.call(request("400")).await.map(|r| r.status()) });
    let holding = tokio::spawn(async move { stuck.call(request("9000")).await.map(|r| r.status()) });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    door.drain.drain(Duration::from_millis(1_500)).await;
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(finishing.await.unwrap().unwrap(), 200);
    assert!(holding.await.unwrap().is_err());
    assert!(TcpStream::connect(door.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_socket_that_is_served_is_not_taken_over_and_a_stale_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let listen = Listen::Unix { path: path.clone(), mode: 0o600 };
    let first = Listener::bind(&listen).await.unwrap();
    assert!(matches!(Listener::bind(&listen).await, Err(DoorError::Served(_))));
    drop(first);
    assert!(!path.exists(), "the file goes with its listener");
    // Left by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists() && UnixStream::connect(&path).await.is_err());
    Listener::bind(&listen).await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Listener::bind(&Listen::Tcp(taken.local_addr().unwrap())).await.unwrap_err().to_string();
    assert!(
        error.contains(&taken.local_addr().unwrap().to_string()) && error.contains("another address"),
        "{error}"
    );
}
