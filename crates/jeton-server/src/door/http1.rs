//! A connection of HTTP/1.1: one request, one answer, and it ends.
//!
//! Those who come here (SDKs that ask for a token now and then) keep the token, and not the connection. So none is kept open for them:
//! nothing has to be told apart from a peer that dawdles, and no request is lost on a connection that is just being closed.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use jeton_trace::Span;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use tonic::body::Body;

use super::{
    AuthenticationFailure, RequestKind,
    accept::Counters,
    request::{Shared, routed},
    spans::request_ended,
};
use crate::correlation;

/// From the connection, or the end of its handshake, to the end of the headers.
const HEADERS_WITHIN: Duration = Duration::from_secs(2);
/// For the last byte of the answer to reach a peer that is slow to read.
const READ_WITHIN: Duration = Duration::from_secs(3);
const MAX_HEAD_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 32;

/// Serves the one request of a connection. Everything in it has a bound: the whole ends in time whatever the peer does.
pub(crate) async fn serve<S>(stream: S, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answering = HEADERS_WITHIN + shared.common.settings.request_deadline();
    let until = Instant::now() + answering;
    let service = service_fn(|request| answer(&shared, request, until));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        // Whoever has said everything may close its side before it is answered.
        .half_close(true)
        .keep_alive(false);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        biased;
        () = shared.common.drain.cut() => return,
        ended = timeout_at(until + READ_WITHIN, connection) => ended,
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.is_timeout() => _ = shared.common.counters.silent.fetch_add(1, Relaxed),
        Ok(Err(error)) => tracing::debug!(%error, "a connection of HTTP/1.1 ended early"),
        Err(_) => _ = shared.common.counters.silent.fetch_add(1, Relaxed),
    }
}

async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
    until: Instant,
) -> Result<Response<Body>, std::convert::Infallible> {
    let (began, method) = (Instant::now(), request.method().clone());
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(shared.peer.clone());
    if let Some(caller) = &shared.caller {
        request.extensions_mut().insert(Arc::clone(caller));
    }
    let common = &shared.common;
    let span = common.calls.as_ref().map_or(Span::NONE, |calls| calls.request(&request, common.secured));
    let _under_way = UnderWay::new(&common.counters);
    let caller = shared.caller.as_ref().map(|caller| &caller.principal);
    let now = common.clock.now().wall;
    let routed = correlation::request(now, caller, span.clone(), routed(common, request));
    let answered = timeout_at(until, routed).await;
    let answered = answered.unwrap_or_else(|_| {
        common.counters.late.fetch_add(1, Relaxed);
        let mut late = Response::new(Body::empty());
        *late.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        late.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from_static("1"));
        late
    });
    request_ended(&span, answered.status().as_u16());
    if let Some(why) = answered.extensions().get::<AuthenticationFailure>() {
        common.counters.not_let_in(*why);
    }
    if let Some(calls) = &common.calls {
        let kind = RequestKind::new(common.name, &method, common.secured, answered.status().as_u16());
        calls.requested(kind, began.elapsed());
    }
    Ok(answered)
}

/// Counted while it is there, however it ends.
struct UnderWay<'a>(&'a Counters);

impl<'a> UnderWay<'a> {
    fn new(counters: &'a Counters) -> Self {
        counters.streams.fetch_add(1, Relaxed);
        Self(counters)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}
