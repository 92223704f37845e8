//! One connection, from its first byte to its last. This is the seam where a faster door goes in.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rand::Rng;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::{Instant, sleep_until},
};
use tonic::{body::Body, service::Routes};
use tower::Service;

use super::{Caller, DoorSettings, Drain, accept::Counters, deadline};

const WINDOW: Duration = Duration::from_secs(10);

/// What a connection counts for itself.
#[derive(Default)]
struct Marks {
    first_request: AtomicBool,
    cancelled: AtomicU32,
    most_cancelled: u32,
    misused: Notify,
}

/// Serves one connection until its peer, its age, its misuse or a drain ends it.
pub(crate) async fn serve<S>(
    stream: S,
    caller: Arc<Caller>,
    routes: Routes,
    settings: Arc<DoorSettings>,
    streaming: fn(&str) -> bool,
    drain: Drain,
    counters: Arc<Counters>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let marks = Arc::new(Marks { most_cancelled: settings.max_cancelled_requests, ..Marks::default() });
    let service = {
        let (marks, settings, counters) = (Arc::clone(&marks), Arc::clone(&settings), Arc::clone(&counters));
        service_fn(move |mut request: Request<Incoming>| {
            marks.first_request.store(true, Relaxed);
            request.extensions_mut().insert(Arc::clone(&caller));
            let wait = (!streaming(request.uri().path()))
                .then(|| deadline::of(&request, settings.request_deadline()));
            answer(routes.clone(), request, wait, Arc::clone(&marks), Arc::clone(&counters))
        })
    };
    let connection = builder(&settings).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let start = Instant::now();
    let first_deadline = sleep_until(start + settings.first_request_deadline());
    let spread = 0.9 + 0.2 * rand::rng().random::<f64>();
    let age = sleep_until(start + Duration::from_millis(settings.max_age_ms).mul_f64(spread));
    let mut window = tokio::time::interval_at(start + WINDOW, WINDOW);
    let grace = sleep_until(start + Duration::from_secs(86_400 * 365));
    tokio::pin!(first_deadline, age, grace);
    let (mut aged, mut draining, mut started) = (false, false, false);
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = first_deadline.as_mut(), if !started => {
                started = true;
                if !marks.first_request.load(Relaxed) {
                    counters.silent.fetch_add(1, Relaxed);
                    return;
                }
            }
            _ = window.tick() => marks.cancelled.store(0, Relaxed),
            () = marks.misused.notified() => {
                counters.misused.fetch_add(1, Relaxed);
                return;
            }
            () = age.as_mut(), if !aged && !draining => {
                aged = true;
                connection.as_mut().graceful_shutdown();
                grace.as_mut().reset(Instant::now() + Duration::from_millis(settings.age_grace_ms));
            }
            () = drain.begun(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = grace.as_mut(), if aged => return,
            () = drain.cut() => return,
        }
    }
}

fn builder(settings: &DoorSettings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_concurrent_streams)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_frame_size(16 * 1024)
        .max_header_list_size(settings.max_header_bytes)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

async fn answer(
    mut routes: Routes,
    request: Request<Incoming>,
    wait: Option<Duration>,
    marks: Arc<Marks>,
    counters: Arc<Counters>,
) -> Result<Response<Body>, Infallible> {
    let mut watched = Unfinished { marks, counters, finished: false };
    let call = async {
        // The routes are always ready; the error type says that they cannot fail.
        Service::call(&mut routes, request).await
    };
    let answered = match wait {
        Some(wait) => tokio::time::timeout(wait, call).await.unwrap_or_else(|_| {
            watched.counters.late.fetch_add(1, Relaxed);
            Ok(deadline::exceeded())
        }),
        None => call.await,
    };
    watched.finished = true;
    answered
}

/// Dropped before it finished: the peer cancelled.
struct Unfinished {
    marks: Arc<Marks>,
    counters: Arc<Counters>,
    finished: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            if self.marks.cancelled.fetch_add(1, Relaxed) >= self.marks.most_cancelled {
                self.marks.misused.notify_one();
            }
            self.counters.cancelled.fetch_add(1, Relaxed);
        }
    }
}
