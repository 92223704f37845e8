//! One request, from its headers to the answer's headers.
//!
//! There are two ways. The short one is for a call whose whole message is here and whose answer is in memory: it ends in one poll. The
//! long one is tonic's: routes, codecs, a timer. What the short way cannot answer at once goes the long way as if it had come there
//! first, its message included; so there is one implementation of everything, and the short way decides nothing by itself.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{body::Incoming, service::Service};
use tokio::{
    sync::Semaphore,
    time::{Sleep, sleep},
};
use tonic::{body::Body, service::Routes};

use super::{Caller, DoorSettings, Drain, accept::Counters, deadline, meter::Meter};

/// Messages beyond this take the long way.
const SHORT_MESSAGE: usize = 8 * 1024;

/// How long a stream may go on talking when a drain has begun.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A shorter way for one call, where the answer is in memory.
pub trait Shortcut: Send + Sync + 'static {
    /// Which call: its path.
    fn path(&self) -> &'static str;

    /// The answer to a request's body (a gRPC message with its prefix), framed likewise; none: it has to go the long way.
    fn answer(&self, caller: &Caller, body: &[u8]) -> Option<Bytes>;
}

/// Everything that the requests of one connection share.
pub(crate) struct Shared {
    pub(crate) caller: Arc<Caller>,
    pub(crate) routes: Routes,
    pub(crate) shortcut: Option<Arc<dyn Shortcut>>,
    pub(crate) settings: Arc<DoorSettings>,
    pub(crate) streaming: fn(&str) -> bool,
    pub(crate) finishing: Option<Arc<Semaphore>>,
    pub(crate) complete: fn(Response<Body>) -> Response<Body>,
    pub(crate) drain: Drain,
    pub(crate) meter: Meter,
    pub(crate) counters: Arc<Counters>,
}

/// The service of one connection.
#[derive(Clone)]
pub(crate) struct Requests(pub(crate) Arc<Shared>);

impl Service<Request<Incoming>> for Requests {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let shared = Arc::clone(&self.0);
        shared.meter.request(header_bytes(&request));
        let short =
            shared.shortcut.as_ref().is_some_and(|shortcut| takes_short_way(&request, shortcut.as_ref()));
        let way = if short {
            Way::Short(Some(Reading { request, head: Bytes::new(), timer: None }))
        } else {
            Way::Long(long(&shared, request, Bytes::new()))
        };
        Answering { shared, way, finished: false }
    }
}

fn takes_short_way<B>(request: &Request<B>, shortcut: &dyn Shortcut) -> bool {
    let grpc =
        |kind: &HeaderValue| matches!(kind.as_bytes(), b"application/grpc" | b"application/grpc+proto");
    request.uri().path() == shortcut.path()
        && request.method() == http::Method::POST
        && request.headers().get(CONTENT_TYPE).is_some_and(grpc)
}

fn header_bytes<B>(request: &Request<B>) -> u64 {
    let named = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    (named.sum::<usize>() + request.uri().path().len()) as u64
}

/// The answer to one request. Dropped before it ended: the peer cancelled.
pub(crate) struct Answering {
    shared: Arc<Shared>,
    way: Way,
    finished: bool,
}

type Routed = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

#[allow(
    clippy::large_enum_variant,
    reason = "the larger one is the usual one, and a box would cost each request an allocation"
)]
enum Way {
    Short(Option<Reading>),
    Long(Routed),
}

/// A message that is not all here yet.
struct Reading {
    request: Request<Incoming>,
    head: Bytes,
    /// Set when the first poll did not bring all of it.
    timer: Option<Pin<Box<Sleep>>>,
}

enum Read {
    /// All of it.
    Whole,
    /// The long way can read the rest.
    TooLong,
    /// The peer is gone.
    Broken,
    /// The deadline passed.
    Late,
}

impl Reading {
    fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<Read> {
        loop {
            let Poll::Ready(next) = Pin::new(self.request.body_mut()).poll_frame(cx) else {
                let timer = self.timer.get_or_insert_with(|| {
                    Box::pin(sleep(deadline::of(&self.request, shared.settings.request_deadline())))
                });
                ready!(timer.as_mut().poll(cx));
                return Poll::Ready(Read::Late);
            };
            match next {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    shared.meter.body(data.len());
                    self.head = if self.head.is_empty() { data } else { joined(&self.head, &data) };
                    if self.head.len() > SHORT_MESSAGE {
                        return Poll::Ready(Read::TooLong);
                    }
                }
                Some(Err(_)) => return Poll::Ready(Read::Broken),
                None => return Poll::Ready(Read::Whole),
            }
            if self.request.body().is_end_stream() {
                return Poll::Ready(Read::Whole);
            }
        }
    }
}

fn joined(head: &[u8], data: &[u8]) -> Bytes {
    let mut joined = BytesMut::with_capacity(head.len() + data.len());
    joined.extend_from_slice(head);
    joined.extend_from_slice(data);
    joined.freeze()
}

impl Future for Answering {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.way {
                Way::Long(routed) => {
                    let response = ready!(routed.as_mut().poll(cx));
                    this.finished = true;
                    return Poll::Ready(Ok(response.map(AnswerBody::Routed)));
                }
                Way::Short(reading) => {
                    let Some(under_way) = reading else { return Poll::Pending };
                    let read = ready!(under_way.poll(cx, &this.shared));
                    let Some(Reading { request, head, .. }) = reading.take() else { return Poll::Pending };
                    match read {
                        Read::Whole => {
                            let shortcut = this.shared.shortcut.as_ref();
                            if let Some(message) = shortcut.and_then(|s| s.answer(&this.shared.caller, &head))
                            {
                                this.finished = true;
                                return Poll::Ready(Ok(whole(message)));
                            }
                        }
                        Read::TooLong => {}
                        Read::Late => {
                            this.finished = true;
                            this.shared.counters.late.fetch_add(1, Relaxed);
                            let answer = (this.shared.complete)(deadline::exceeded());
                            return Poll::Ready(Ok(answer.map(AnswerBody::Routed)));
                        }
                        // Nobody reads this answer; unfinished, it counts as cancelled.
                        Read::Broken => return Poll::Ready(Ok(deadline::exceeded().map(AnswerBody::Routed))),
                    }
                    this.way = Way::Long(long(&this.shared, request, head));
                }
            }
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.meter.cancel();
            self.shared.counters.cancelled.fetch_add(1, Relaxed);
        }
    }
}

/// tonic's way, with the caller at hand and a deadline for what is no stream.
fn long(shared: &Arc<Shared>, request: Request<Incoming>, head: Bytes) -> Routed {
    let wait = (!(shared.streaming)(request.uri().path()))
        .then(|| deadline::of(&request, shared.settings.request_deadline()));
    let shared = Arc::clone(shared);
    let counted = Arc::clone(&shared);
    let mut request = request.map(|rest| Body::new(Replayed { head, rest, shared: counted }));
    request.extensions_mut().insert(Arc::clone(&shared.caller));
    Box::pin(async move {
        let answered = match wait {
            None => routed(&shared, request).await.map(|body| ending(body, &shared.drain)),
            Some(wait) => {
                let answered = tokio::time::timeout(wait, unary(&shared, request)).await;
                answered.unwrap_or_else(|_| {
                    shared.counters.late.fetch_add(1, Relaxed);
                    deadline::exceeded()
                })
            }
        };
        (shared.complete)(answered)
    })
}

async fn routed(shared: &Shared, request: Request<Body>) -> Response<Body> {
    let mut routes = shared.routes.clone();
    // The routes are always ready, and cannot fail.
    let Ok(response) = tower::Service::call(&mut routes, request).await;
    response
}

/// In a task of its own where it has to come to its end.
async fn unary(shared: &Arc<Shared>, request: Request<Body>) -> Response<Body> {
    let Some(finishing) = &shared.finishing else { return routed(shared, request).await };
    let Ok(place) = Arc::clone(finishing).acquire_owned().await else { return deadline::exceeded() };
    let own = Arc::clone(shared);
    let task = shared.drain.track(async move {
        let _place = place;
        routed(&own, request).await
    });
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request died");
        tonic::Status::internal("the request failed inside the broker; its log says more").into_http()
    })
}

/// A stream that has nothing more to say when a drain has begun ends: the drain does not wait for it.
fn ending(body: Body, drain: &Drain) -> Body {
    let drain = drain.clone();
    let begun = Box::pin(async move {
        drain.begun().await;
        sleep(LAST_WORDS).await;
    });
    Body::new(Ending { body, begun: Some(begun) })
}

struct Ending {
    body: Body,
    /// None: it has ended.
    begun: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        let Some(begun) = &mut this.begun else { return Poll::Ready(None) };
        if let Poll::Ready(next) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(next);
        }
        ready!(begun.as_mut().poll(cx));
        this.begun = None;
        let mut trailers = HeaderMap::new();
        let status = tonic::Status::unavailable("this broker is about to stop: connect again");
        Poll::Ready(Some(match status.add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(status),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_none() || self.body.is_end_stream()
    }
}

/// A request's body on the long way: what was read already, then the rest.
struct Replayed {
    head: Bytes,
    rest: Incoming,
    shared: Arc<Shared>,
}

impl http_body::Body for Replayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.head.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.head)))));
        }
        let next = ready!(Pin::new(&mut self.rest).poll_frame(cx));
        if let Some(data) = next.as_ref().and_then(|n| n.as_ref().ok()).and_then(Frame::data_ref) {
            self.shared.meter.body(data.len());
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && self.rest.is_end_stream()
    }
}

/// The body of an answer.
pub(crate) enum AnswerBody {
    /// One message, and the trailers of success behind it.
    Message(Bytes),
    /// The trailers alone.
    Trailers,
    /// Nothing more.
    End,
    /// tonic's.
    Routed(Body),
}

fn whole(message: Bytes) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Message(message));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let (frame, next) = match &mut *self {
            Self::Routed(body) => return Pin::new(body).poll_frame(cx),
            Self::Message(message) => (Frame::data(std::mem::take(message)), Self::Trailers),
            Self::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                (Frame::trailers(trailers), Self::End)
            }
            Self::End => return Poll::Ready(None),
        };
        *self = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Routed(body) => body.is_end_stream(),
            Self::End => true,
            Self::Message(_) | Self::Trailers => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Routed(body) => body.size_hint(),
            // Trailers follow, so no length is announced.
            _ => SizeHint::default(),
        }
    }
}
