//! One connection, from its first byte to its last.

use std::{future::poll_fn, sync::Arc, sync::atomic::Ordering::Relaxed, task::Poll, time::Duration};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::Rng;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    DoorSettings, Drain,
    gather::Gather,
    inline::{Driven, Inline, Turn},
    request::{Requests, Shared},
};

/// How long a connection that has ended goes on sending.
const LAST_BYTES: Duration = Duration::from_millis(500);

/// What a connection waits for beside its requests.
#[derive(Debug)]
enum Event {
    /// The deadline of the first request.
    First,
    /// The connection is old.
    Age,
    /// A drain began.
    Drain,
    /// The time is up, of the age or of the drain.
    Cut,
}

/// How a turn of the connection ended it, or what came.
enum Next {
    Turn(Turn<Event>),
    Misused,
}

/// Serves one connection until its peer, its age, its misuse or a drain ends it. `since`: when it was accepted.
pub(crate) async fn serve<S>(stream: S, shared: Arc<Shared>, since: Instant, drain: Drain)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = Arc::clone(&shared.settings);
    let (stream, requests) = (Gather::new(stream), Inline::default());
    let connection = builder(&settings, requests.clone())
        .serve_connection(TokioIo::new(stream.clone()), Requests(Arc::clone(&shared)));
    let mut driven = Driven::new(connection, stream, requests);
    let spread = 0.9 + 0.2 * rand::rng().random::<f64>();
    let age = Duration::from_millis(settings.max_age_ms).mul_f64(spread);
    let after = |event, at| async move {
        sleep_until(at).await;
        event
    };
    driven.wait_for(after(Event::First, since + settings.first_request_deadline()));
    driven.wait_for(after(Event::Age, since + age));
    let (begun, cut) = (drain.clone(), drain);
    driven.wait_for(async move {
        begun.begun().await;
        Event::Drain
    });
    driven.wait_for(async move {
        cut.cut().await;
        Event::Cut
    });
    let mut ending = false;
    loop {
        let next = poll_fn(|cx| match driven.poll(cx) {
            Poll::Ready(turn) => Poll::Ready(Next::Turn(turn)),
            Poll::Pending if shared.meter.misused(driven.stream.read()) => Poll::Ready(Next::Misused),
            Poll::Pending => Poll::Pending,
        });
        match next.await {
            Next::Turn(Turn::Ended) => {
                // A peer that does not read its last answers does not keep the connection.
                let _ = timeout(LAST_BYTES, poll_fn(|cx| driven.stream.poll_send(cx))).await;
                return;
            }
            Next::Turn(Turn::Event(Event::Cut)) => return,
            Next::Turn(Turn::Event(Event::First)) => {
                if !shared.meter.asked() {
                    shared.counters.silent.fetch_add(1, Relaxed);
                    return;
                }
            }
            Next::Turn(Turn::Event(event @ (Event::Age | Event::Drain))) => {
                if !ending {
                    driven.connection.as_mut().graceful_shutdown();
                    ending = true;
                }
                if matches!(event, Event::Age) {
                    let grace = Duration::from_millis(settings.age_grace_ms);
                    driven.wait_for(async move {
                        sleep(grace).await;
                        Event::Cut
                    });
                }
            }
            Next::Misused => {
                shared.counters.misused.fetch_add(1, Relaxed);
                return;
            }
        }
    }
}

fn builder(settings: &DoorSettings, requests: Inline<Event>) -> http2::Builder<Inline<Event>> {
    let mut builder = http2::Builder::new(requests);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_concurrent_streams)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(256 * 1024)
        .max_frame_size(16 * 1024)
        .max_header_list_size(settings.max_header_bytes)
        // Callers that leave before their requests were looked at: as many as may leave at all, because one that leaves must not take the
        // others on its connection along.
        .max_pending_accept_reset_streams(
            usize::try_from(settings.max_cancelled_requests).unwrap_or(usize::MAX),
        )
        .max_local_error_reset_streams(128)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}
