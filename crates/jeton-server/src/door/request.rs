//! One request, from its headers to the end of its answer.
//!
//! There are two ways. The short one is for a call whose whole message is here and whose answer is in memory: it ends where it began. The
//! long one is tonic's: routes, codecs, a timer. What the short way cannot answer at once goes the long way as if it had come there
//! first, its message included; so there is one implementation of everything, and the short way decides nothing by itself.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use tokio::{sync::Semaphore, time::timeout};
use tonic::{body::Body, service::Routes};

use super::{
    Caller, DoorSettings, Drain, Moment,
    accept::Counters,
    deadline,
    ending::ending,
    incoming::{Incoming, Read, Reading},
    meter::Meter,
    outgoing,
};

/// A shorter way for one call, where the answer is in memory.
pub trait Shortcut: Send + Sync + 'static {
    /// Which call: its path.
    fn path(&self) -> &'static str;

    /// The answer to a request's body (a gRPC message with its prefix), framed likewise; none: it has to go the long way.
    fn answer(&self, caller: &Caller, body: &[u8], moment: &mut Moment) -> Option<Bytes>;
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

impl Shared {
    fn short_answer(&self, message: &[u8], moment: &mut Moment) -> Option<Bytes> {
        self.shortcut.as_ref()?.answer(&self.caller, message, moment)
    }
}

/// Takes a request. None: that was all; otherwise what is left to do, cancelled by its drop.
pub(crate) fn take(
    shared: &Arc<Shared>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    moment: &mut Moment,
    cx: &mut Context<'_>,
) -> Option<impl Future<Output = ()> + Send + use<>> {
    shared.meter.request(header_bytes(&request));
    let short = shared.shortcut.as_ref().is_some_and(|shortcut| takes_short_way(&request, shortcut.as_ref()));
    let (head, stream) = request.into_parts();
    let mut reading = Reading::new(stream);
    let mut unread = false;
    if short {
        match reading.poll(cx, &shared.meter) {
            Poll::Ready(Read::Whole) => {
                if let Some(answer) = shared.short_answer(&reading.head, moment) {
                    // An error: the peer is gone.
                    let _ = outgoing::message(respond, answer);
                    return None;
                }
            }
            Poll::Ready(Read::TooLong) => {}
            Poll::Ready(Read::Broken) => {
                shared.cancelled();
                return None;
            }
            Poll::Pending => unread = true,
        }
    }
    Some(exchange(Exchange::new(shared), Request::from_parts(head, reading), respond, unread))
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

/// A request under way. Dropped before there was an answer: its peer cancelled it.
struct Exchange {
    shared: Arc<Shared>,
    answered: bool,
}

impl Exchange {
    fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), answered: false }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.answered {
            self.shared.cancelled();
        }
    }
}

impl Shared {
    fn cancelled(&self) {
        self.meter.cancel();
        self.counters.cancelled.fetch_add(1, Relaxed);
    }

    fn late(&self) -> Response<Body> {
        self.counters.late.fetch_add(1, Relaxed);
        deadline::exceeded()
    }
}

/// Everything that takes more than one poll. `unread`: the message of the short way is not all here.
async fn exchange(
    mut exchange: Exchange,
    mut request: Request<Reading>,
    mut respond: SendResponse<Bytes>,
    unread: bool,
) {
    let shared = Arc::clone(&exchange.shared);
    if unread {
        let wait = deadline::of(&request, shared.settings.request_deadline());
        let read = timeout(wait, poll_fn(|cx| request.body_mut().poll(cx, &shared.meter))).await;
        match read {
            Ok(Read::Whole) => {
                if let Some(answer) = shared.short_answer(&request.body().head, &mut Moment::default()) {
                    exchange.answered = true;
                    let _ = outgoing::message(respond, answer);
                    return;
                }
            }
            Ok(Read::TooLong) => {}
            Ok(Read::Broken) => return,
            Err(_) => {
                exchange.answered = true;
                let _ = outgoing::response(respond, (shared.complete)(shared.late())).await;
                return;
            }
        }
    }
    let response = tokio::select! {
        biased;
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
        response = long(&shared, request) => response,
    };
    exchange.answered = true;
    if let Err(error) = outgoing::response(respond, response).await {
        tracing::debug!(%error, "an answer did not reach its caller");
    }
}

/// tonic's way, with the caller at hand and a deadline for what is no stream.
async fn long(shared: &Arc<Shared>, request: Request<Reading>) -> Response<Body> {
    let wait = (!(shared.streaming)(request.uri().path()))
        .then(|| deadline::of(&request, shared.settings.request_deadline()));
    let mut request = request.map(|reading| Body::new(Incoming { reading, shared: Arc::clone(shared) }));
    request.extensions_mut().insert(Arc::clone(&shared.caller));
    let answered = match wait {
        None => routed(shared, request).await.map(|body| ending(body, &shared.drain)),
        Some(wait) => timeout(wait, unary(shared, request)).await.unwrap_or_else(|_| shared.late()),
    };
    (shared.complete)(answered)
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
