//! A door with a service behind it, and orderly peers.

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
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use jeton_access::BearerTokens;
use jeton_core::{Clock, SystemClock};
use jeton_server::door::{
    Authenticate, Caller, Calls, Door, DoorSettings, DoorStats, Drain, Listen, Listener, LoopbackDev,
    Protocol, Shortcut, Tls, serve,
};
use tokio::{io::AsyncReadExt, net::TcpStream, task::JoinHandle, time::timeout};
use tonic::{Status, body::Body, server::NamedService, service::Routes};

pub(crate) use crate::frames::{PATIENCE, strict};
use crate::ways::{HIT, Hits};

/// A message as long as a token's, and one that is far longer.
pub(crate) const MESSAGE: &[u8] = &[7; 2_048];
pub(crate) const LARGE: &[u8] = &[7; 256 * 1_024];

/// Answers after as many milliseconds as the path says: `/test.Slow/250`. `message` in the path: with a message, and `large`
/// with a long one; `endless`: with the headers, and then nothing. `caller` in the headers of an answer is who asked. What the short way
/// leaves to it is answered with the request's own body.
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
        if request.uri().path() == HIT {
            self.0.fetch_add(1, Relaxed);
            return Box::pin(async { Ok(Response::new(request.into_body())) });
        }
        let millis = request.uri().path().rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let [endless, message, large] =
            ["endless", "message", "large"].map(|word| request.uri().path().contains(word));
        let done = Arc::clone(&self.0);
        let caller = request.extensions().get::<Arc<Caller>>().unwrap().principal.to_string();
        Box::pin(async move {
            if millis > 0 {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            done.fetch_add(1, Relaxed);
            let mut success = HeaderMap::new();
            success.insert("grpc-status", "0".parse().unwrap());
            if endless {
                return Ok(streamed(stream::pending().boxed()));
            }
            if message {
                let message = Bytes::from_static(if large { LARGE } else { MESSAGE });
                let frames = [Frame::data(message), Frame::trailers(success)];
                return Ok(streamed(stream::iter(frames.map(Ok)).boxed()));
            }
            let answer = Response::builder().header("grpc-status", "0").header("caller", caller);
            Ok(answer.body(Body::empty()).unwrap())
        })
    }
}

fn streamed(frames: stream::BoxStream<'static, Result<Frame<Bytes>, Status>>) -> Response<Body> {
    Response::new(Body::new(StreamBody::new(frames)))
}

pub(crate) struct Open {
    pub(crate) address: SocketAddr,
    pub(crate) drain: Drain,
    /// The accept loop.
    pub(crate) accepting: JoinHandle<()>,
    /// Answered the long way.
    pub(crate) done: Arc<AtomicU32>,
    /// Answered the short way.
    pub(crate) hits: Arc<AtomicU32>,
    pub(crate) stats: Box<dyn Fn() -> DoorStats + Send + Sync>,
}

pub(crate) async fn open(settings: DoorSettings) -> Open {
    open_that(settings, false, None).await
}

pub(crate) async fn open_that(settings: DoorSettings, finishes: bool, tls: Option<Arc<Tls>>) -> Open {
    let known: Arc<dyn Authenticate> = Arc::new(LoopbackDev);
    open_for(settings, finishes, Callers { tls, authenticate: Some(known), ..Callers::default() }).await
}

/// Who may come, and how it is known.
pub(crate) struct Callers {
    /// The door's, in the log.
    pub(crate) name: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) authenticate: Option<Arc<dyn Authenticate>>,
    pub(crate) bearer: Option<Arc<dyn BearerTokens>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) calls: Option<Arc<Calls>>,
}

impl Default for Callers {
    fn default() -> Self {
        let protocol = Protocol::Http2;
        Self {
            name: "test",
            protocol,
            tls: None,
            authenticate: None,
            bearer: None,
            clock: Arc::new(SystemClock),
            calls: None,
        }
    }
}

pub(crate) async fn open_for(settings: DoorSettings, finishes: bool, callers: Callers) -> Open {
    let listener = Listener::bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let (address, drain) = (listener.tcp_address().unwrap(), Drain::default());
    let slow = Slow::default();
    let done = Arc::clone(&slow.0);
    let routes = Routes::new(slow);
    let hits = Arc::<Hits>::default();
    let shortcut: Arc<dyn Shortcut> = Arc::clone(&hits) as _;
    let Callers { name, protocol, tls, authenticate, bearer, clock, calls } = callers;
    let streaming = |path: &str| path.ends_with("/stream");
    let (accepting, stats) = serve(
        Door {
            name,
            listener,
            protocol,
            settings,
            tls,
            authenticate,
            bearer,
            clock,
            routes,
            shortcut: Some(shortcut),
            calls,
            streaming,
            finishes,
            complete: |r| r,
        },
        drain.clone(),
    );
    Open { address, drain, accepting, done, hits: Arc::clone(&hits.0), stats: Box::new(stats) }
}

pub(crate) struct Peer {
    pub(crate) send: SendRequest<Bytes>,
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

pub(crate) async fn peer(address: SocketAddr) -> Peer {
    let (send, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    Peer { send, connection: tokio::spawn(connection) }
}

pub(crate) fn request(path: &str) -> Request<()> {
    let uri = format!("http://localhost/test.Slow/{path}");
    Request::post(uri).header("content-type", "application/grpc").body(()).unwrap()
}

impl Peer {
    pub(crate) async fn call(&mut self, request: Request<()>) -> Result<Response<h2::RecvStream>, h2::Error> {
        self.send = self.send.clone().ready().await?;
        let (answer, _) = self.send.send_request(request, true)?;
        answer.await
    }
}

pub(crate) async fn closes(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 1_024];
    let end = async { while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {} };
    timeout(PATIENCE, end).await.is_ok()
}

/// Waits for what must come to hold.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, held).await.unwrap_or_else(|_| panic!("{what}"));
}
