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

use h2::{RecvStream, server::SendResponse};
use http::{HeaderName, HeaderValue, Request, Response, header::CONTENT_TYPE};
use jeton_access::{Authenticated, BearerTokens};
use jeton_core::{Clock, Principal};
use jeton_trace::Span;
use tokio::{
    sync::Semaphore,
    time::{Instant, error::Elapsed, timeout_at},
};
use tonic::{Code, body::Body, service::Routes};

use super::{
    Answer, Caller, Calls, DoorSettings, Drain, Moment, Peer, Protocol,
    accept::Counters,
    caller::{Asker, Named},
    calls::{CallsOf, Timed},
    deadline,
    ending::ending,
    incoming::{Incoming, Read, Reading},
    meter::{CANCEL_WINDOW, Meter},
    not_grpc::NotGrpc,
    outgoing,
    spans::call_ended,
    standing::Standing,
};
use crate::{correlation, seldom::Seldom};

static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// A shorter way for one call, where the answer is in memory.
pub trait Shortcut: Send + Sync + 'static {
    /// Which call: its path.
    fn path(&self) -> &'static str;

    /// The answer to a request's body (a gRPC message with its prefix), framed likewise; none: it has to go the long way.
    fn answer(&self, caller: &Caller, body: &[u8], moment: &mut Moment) -> Option<Answer>;

    /// So many were answered, before and past their refresh; told now and then, where calls are counted.
    fn answered(&self, fresh: u64, stale: u64);
}

/// Everything that the connections of one door share.
pub(crate) struct Common {
    pub(crate) name: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) secured: bool,
    pub(crate) routes: Routes,
    pub(crate) shortcut: Option<Arc<dyn Shortcut>>,
    pub(crate) calls: Option<Arc<Calls>>,
    /// Those of the short way.
    pub(crate) hits: Option<Arc<CallsOf>>,
    pub(crate) bearer: Option<Arc<dyn BearerTokens>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Arc<DoorSettings>,
    pub(crate) streaming: fn(&str) -> bool,
    pub(crate) finishing: Option<Arc<Semaphore>>,
    pub(crate) complete: fn(Response<Body>) -> Response<Body>,
    pub(crate) drain: Drain,
    pub(crate) counters: Arc<Counters>,
    pub(crate) log: Seldom,
}

/// Everything that the requests of one connection share.
pub(crate) struct Shared {
    pub(crate) common: Arc<Common>,
    pub(crate) peer: Peer,
    /// None: each request has to tell by a token.
    pub(crate) caller: Option<Arc<Caller>>,
    pub(crate) standing: Standing,
    pub(crate) meter: Meter,
}

impl Shared {
    /// What a certificate proved is over what the peer's place says.
    pub(crate) fn new(
        common: Arc<Common>,
        peer: Peer,
        principal: Option<Principal>,
        proven: Option<Authenticated>,
    ) -> Self {
        let known = proven.or_else(|| principal.map(|principal| Authenticated { principal, until: None }));
        let caller = known.map(|Authenticated { principal, until }| {
            Arc::new(Caller { principal, peer: peer.clone(), until })
        });
        let meter = Meter::new(&common.settings);
        Self { peer, caller, standing: Standing::default(), meter, common }
    }

    fn short_answer(
        &self,
        caller: &Caller,
        message: &[u8],
        moment: &mut Moment,
        span: &Span,
    ) -> Option<Answer> {
        let fresh = moment.fresh();
        let answer = self.common.shortcut.as_ref()?.answer(caller, message, moment)?;
        if span.is_recording() {
            span.text("jeton.lookup.result", if moment.fresh() > fresh { "fresh" } else { "stale" });
        }
        Some(answer)
    }
}

/// Takes a request. None: that was all; otherwise what is left to do, cancelled by its drop.
pub(crate) fn take(
    shared: &Arc<Shared>,
    request: Request<RecvStream>,
    respond: SendResponse<Answer>,
    moment: &mut Moment,
    cx: &mut Context<'_>,
) -> Option<impl Future<Output = ()> + Send + use<>> {
    shared.meter.request();
    let named = shared.named(&request, moment);
    // One reading for all requests of a turn.
    let timed = shared.common.calls.as_ref().map(|calls| (calls, moment.began()));
    let span = timed.map_or(Span::NONE, |(calls, _)| calls.call(request.uri().path(), request.headers()));
    let shortcut = shared.common.shortcut.as_deref();
    let short = shortcut.is_some_and(|shortcut| takes_short_way(&request, shortcut));
    let (head, stream) = request.into_parts();
    let mut reading = Reading::new(stream);
    let mut unread = false;
    if short && !matches!(named, Named::Nobody(_)) {
        match reading.poll(cx, &shared.meter) {
            Poll::Ready(Read::Whole) => {
                if let Some(caller) = named.caller()
                    && let Some(answer) = shared.short_answer(caller, &reading.head, moment, &span)
                {
                    call_ended(&span, Code::Ok);
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
    let not_grpc = if short { None } else { NotGrpc::of(&head) };
    let timed = timed.map(|(calls, began)| {
        let of = if not_grpc.is_some() { calls.of_none() } else { calls.of(head.uri.path()) };
        Timed::new(of, began, span)
    });
    let asker = named.kept();
    shared.common.counters.streams.fetch_add(1, Relaxed);
    let (shared, began) = (Arc::clone(shared), Instant::now());
    let exchange = Exchange { shared, asker, not_grpc, short, unread, began, answered: false, timed };
    Some(exchange.run(Request::from_parts(head, reading), respond))
}

fn takes_short_way<B>(request: &Request<B>, shortcut: &dyn Shortcut) -> bool {
    let grpc =
        |kind: &HeaderValue| matches!(kind.as_bytes(), b"application/grpc" | b"application/grpc+proto");
    request.uri().path() == shortcut.path()
        && request.method() == http::Method::POST
        && request.headers().get(CONTENT_TYPE).is_some_and(grpc)
        // Whoever compresses is answered alike, whether the token is in memory or not, and one small message compressed or not.
        && request.headers().get(&ENCODING).is_none_or(|encoding| encoding == "identity")
}

/// A request under way. Dropped before its answer began: its peer cancelled it.
struct Exchange {
    shared: Arc<Shared>,
    asker: Asker,
    not_grpc: Option<NotGrpc>,
    /// Whether it may take the short way.
    short: bool,
    /// Whether the message of the short way is not all here.
    unread: bool,
    began: Instant,
    /// Whether its answer has begun.
    answered: bool,
    timed: Option<Timed>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.shared.common.counters.streams.fetch_sub(1, Relaxed);
        if !self.answered {
            self.shared.cancelled();
        }
    }
}

impl Shared {
    fn cancelled(&self) {
        self.meter.cancel();
        self.common.counters.cancelled.fetch_add(1, Relaxed);
    }

    /// The peer left in the middle of an answer. For a stream that has lasted this is how it ends; of those there are no more in the time in
    /// which cancelling is counted than streams at once. Whoever leaves earlier had the work done for nothing.
    fn left(&self, began: Instant) {
        if began.elapsed() < CANCEL_WINDOW {
            self.cancelled();
        }
    }
}

impl Common {
    fn late(&self) -> Response<Body> {
        self.counters.late.fetch_add(1, Relaxed);
        deadline::exceeded()
    }
}

/// What comes of a request on the way.
enum Outcome {
    /// The short way's bytes.
    Short(Answer),
    /// Anything else.
    Response(Response<Body>),
    /// Nobody is there to hear it.
    Gone,
}

impl Exchange {
    /// Everything that takes more than one poll.
    async fn run(mut self, request: Request<Reading>, mut respond: SendResponse<Answer>) {
        let known = match &self.asker {
            Asker::Known(caller) => Some(&caller.principal),
            Asker::Unverified | Asker::Nobody(_) => None,
        };
        let now = self.shared.common.clock.now().wall;
        let span = self.timed.as_ref().map_or(Span::NONE, |timed| timed.span.clone());
        let outcome = correlation::request(now, known, span, self.outcome(request));
        let outcome = tokio::select! {
            biased;
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
            outcome = outcome => outcome,
        };
        self.answered = !matches!(outcome, Outcome::Gone);
        let sent = match outcome {
            Outcome::Short(answer) => outgoing::message(respond, answer).map(|()| Code::Ok),
            Outcome::Response(response) => outgoing::response(respond, response).await,
            Outcome::Gone => return,
        };
        match (sent, &mut self.timed) {
            (Ok(code), Some(timed)) => timed.code = code,
            (Ok(_), None) => {}
            (Err(error), _) => {
                tracing::debug!(%error, "an answer did not reach its caller");
                self.shared.left(self.began);
            }
        }
    }

    async fn outcome(&self, mut request: Request<Reading>) -> Outcome {
        let (shared, common) = (&self.shared, &*self.shared.common);
        let told = |response| Outcome::Response((common.complete)(response));
        let end = Instant::now() + deadline::of(&request, common.settings.request_deadline());
        if let Some(not_grpc) = self.not_grpc {
            tracing::debug!(reason = ?not_grpc, "a request is no call of gRPC");
            // Whoever is not done with sending may not look for an answer yet.
            return match self.rest(&mut request, end).await {
                Ok(Read::Broken) => Outcome::Gone,
                _ => Outcome::Response(not_grpc.answer(request.method())),
            };
        }
        let caller = match &self.asker {
            Asker::Known(caller) => Arc::clone(caller),
            Asker::Nobody(why) => return told(common.unauthenticated(shared, *why, None)),
            Asker::Unverified => match timeout_at(end, shared.verified(&request)).await {
                Ok(Ok(caller)) => {
                    correlation::is_from(&caller.principal);
                    caller
                }
                Ok(Err(response)) => return told(response),
                Err(_) => return told(common.late()),
            },
        };
        if self.unread {
            match self.rest(&mut request, end).await {
                Ok(Read::Whole | Read::TooLong) => {}
                Ok(Read::Broken) => return Outcome::Gone,
                Err(_) => return told(common.late()),
            }
        }
        // What waited for nothing was tried at once.
        let waited = self.unread || matches!(self.asker, Asker::Unverified);
        if self.short && waited {
            let message = &request.body().head;
            let mut moment = Moment::default();
            if let Some(answer) = shared.short_answer(&caller, message, &mut moment, &jeton_trace::current())
            {
                shared.count(&moment);
                return Outcome::Short(answer);
            }
        }
        Outcome::Response(long(shared, request, caller, end).await)
    }

    /// Reads what is left of a short message.
    async fn rest(&self, request: &mut Request<Reading>, end: Instant) -> Result<Read, Elapsed> {
        timeout_at(end, poll_fn(|cx| request.body_mut().poll(cx, &self.shared.meter))).await
    }
}

/// tonic's way, with the caller at hand and a deadline for what is no stream.
async fn long(
    shared: &Arc<Shared>,
    request: Request<Reading>,
    caller: Arc<Caller>,
    end: Instant,
) -> Response<Body> {
    let (common, streams) = (&shared.common, (shared.common.streaming)(request.uri().path()));
    let mut request = request.map(|reading| Body::new(Incoming { reading, shared: Arc::clone(shared) }));
    let until = caller.until;
    request.extensions_mut().insert(caller);
    let answered = if streams {
        routed(common, request).await.map(|body| ending(body, shared, until))
    } else {
        timeout_at(end, unary(shared, request)).await.unwrap_or_else(|_| common.late())
    };
    (common.complete)(answered)
}

pub(crate) async fn routed(common: &Common, request: Request<Body>) -> Response<Body> {
    let mut routes = common.routes.clone();
    // The routes are always ready, and cannot fail.
    let Ok(response) = tower::Service::call(&mut routes, request).await;
    response
}

/// In a task of its own where it has to come to its end.
async fn unary(shared: &Arc<Shared>, request: Request<Body>) -> Response<Body> {
    let Some(finishing) = &shared.common.finishing else { return routed(&shared.common, request).await };
    let Ok(place) = Arc::clone(finishing).acquire_owned().await else { return deadline::exceeded() };
    let own = Arc::clone(&shared.common);
    let work = jeton_trace::current().within(correlation::carried(async move {
        let _place = place;
        routed(&own, request).await
    }));
    let task = shared.common.drain.track(work);
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request died: report it with this line");
        tonic::Status::internal("the request failed inside the broker; its log says more").into_http()
    })
}
