//! One connection, from its first byte to its last.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use h2::{Ping, PingPong, server};
use rand::Rng;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    Answer, DoorSettings, Tls,
    gather::Gather,
    request::Shared,
    standing::{passed, renewal},
    tls::Proof,
    turn::{Driven, Ended},
};

/// How long a connection that has ended goes on sending.
const LAST_BYTES: Duration = Duration::from_millis(500);
/// So often it is looked whether anything was heard of the peer; if not, it is asked whether it is there,
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// and has so long to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection waits for beside its requests.
#[derive(Debug)]
enum Event {
    /// The deadline of the first request.
    First,
    /// The connection is old.
    Age,
    /// The connection's certificate ends soon.
    Renew,
    /// The connection's certificate has ended, or is not trusted any more.
    Over,
    /// A drain began.
    Drain,
    /// The time is up, of the age or of the drain; or the peer is not there.
    Cut,
}

/// How a connection ended.
enum End {
    /// In order, or by an error of its peer: there may be something to send.
    Own,
    /// By our decision.
    Cut,
}

/// Serves one connection until its peer, its age, its certificate, its misuse or a drain ends it. `since`: when it was accepted.
pub(crate) async fn serve<S>(stream: S, shared: Arc<Shared>, since: Instant, proof: Option<(Arc<Tls>, Proof)>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Gather::new(stream);
    let (settings, drain) = (&shared.common.settings, &shared.common.drain);
    let shaken = tokio::select! {
        biased;
        () = drain.cut() => return,
        shaken = timeout_at(since + settings.first_request_deadline(), shake(&stream, settings)) => shaken,
    };
    let Ok(shaken) = shaken else {
        shared.common.counters.silent.fetch_add(1, Relaxed);
        return;
    };
    if let Ok(connection) = shaken
        && let End::Cut = until_it_ends(connection, stream.clone(), &shared, since, proof).await
    {
        return;
    }
    // A peer that does not read its last answers does not keep the connection.
    let _ = timeout(LAST_BYTES, poll_fn(|cx| stream.poll_send(cx))).await;
}

/// The preface and the settings of both sides.
async fn shake<S>(
    stream: &Gather<S>,
    settings: &DoorSettings,
) -> Result<server::Connection<Gather<S>, Answer>, h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut shaking = pin!(builder(settings).handshake(stream.clone()));
    poll_fn(|cx| {
        let shaken = shaking.as_mut().poll(cx);
        // An error shows again where the library reads.
        let _ = stream.poll_send(cx);
        shaken
    })
    .await
}

async fn until_it_ends<S>(
    mut connection: server::Connection<Gather<S>, Answer>,
    stream: Gather<S>,
    shared: &Arc<Shared>,
    since: Instant,
    proof: Option<(Arc<Tls>, Proof)>,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (settings, drain) = (&shared.common.settings, &shared.common.drain);
    let pings = connection.ping_pong();
    let mut driven = Driven::new(connection, stream, Arc::clone(shared));
    let spread = 0.9 + 0.2 * rand::rng().random::<f64>();
    let age = Duration::from_millis(settings.max_age_ms).mul_f64(spread);
    let after = |event, at| async move {
        sleep_until(at).await;
        event
    };
    driven.wait_for(after(Event::First, since + settings.first_request_deadline()));
    driven.wait_for(after(Event::Age, since + age));
    let (begun, cut) = (drain.clone(), drain.clone());
    driven.wait_for(async move {
        begun.begun().await;
        Event::Drain
    });
    driven.wait_for(async move {
        cut.cut().await;
        Event::Cut
    });
    if let Some(pings) = pings {
        driven.wait_for(gone(pings, driven.stream.clone()));
    }
    if let Some(proof) = proof {
        bounded_by(proof, shared, &mut driven);
    }
    let mut ending = false;
    loop {
        let ended = poll_fn(|cx| match driven.poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if shared.meter.misused(driven.stream.received()) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        match ended.await {
            Some(Ended::Connection) => return End::Own,
            Some(Ended::Event(Event::Cut)) => return End::Cut,
            Some(Ended::Event(Event::First)) => {
                if !shared.meter.asked() {
                    shared.common.counters.silent.fetch_add(1, Relaxed);
                    return End::Cut;
                }
            }
            Some(Ended::Event(event)) => {
                if !ending {
                    driven.connection.graceful_shutdown();
                    ending = true;
                }
                let left = match event {
                    Event::Age => Duration::from_millis(settings.age_grace_ms),
                    Event::Over => LAST_BYTES,
                    _ => continue,
                };
                if matches!(event, Event::Over) {
                    shared.standing.end();
                }
                driven.wait_for(after(Event::Cut, Instant::now() + left));
            }
            // It misused its connection.
            None => {
                shared.common.counters.misused.fetch_add(1, Relaxed);
                return End::Cut;
            }
        }
    }
}

/// The peer is asked to come anew before its certificate ends; what it asks afterwards is not answered.
fn bounded_by<S>((tls, proof): (Arc<Tls>, Proof), shared: &Arc<Shared>, driven: &mut Driven<S, Event>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let clock = &shared.common.clock;
    let until = proof.authenticated.until;
    if let Some(until) = until {
        let lead = Duration::from_millis(shared.common.settings.age_grace_ms);
        let soon = passed(Some(renewal(clock.now().wall, until, lead)), Arc::clone(clock));
        driven.wait_for(async {
            soon.await;
            Event::Renew
        });
    }
    let passed = passed(until, Arc::clone(clock));
    driven.wait_for(async move {
        tokio::select! {
            () = passed => {}
            () = tls.withdrawn(proof) => {}
        }
        Event::Over
    });
}

/// Ends when the peer is silent and does not answer pings.
async fn gone<S>(mut pings: PingPong, stream: Gather<S>) -> Event {
    loop {
        let heard = stream.received();
        sleep(PING_INTERVAL).await;
        if stream.received() == heard
            && !matches!(timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await, Ok(Ok(_)))
        {
            return Event::Cut;
        }
    }
}

/// Bytes of all requests of a connection that nobody has read yet.
const WINDOW: u32 = 256 * 1024;

fn builder(settings: &DoorSettings) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(settings.max_concurrent_streams)
        .initial_window_size(64 * 1024)
        .initial_connection_window_size(WINDOW)
        // Each message that waits to be read is charged what it lacks of 256 bytes: as many of 64 and more may wait as the window lets in.
        // The library's own measure ends a connection on which a thousand watched tokens are asked for at once.
        .data_frame_budget(4 * WINDOW as usize)
        .max_frame_size(16 * 1024)
        .max_header_list_size(settings.max_header_bytes)
        // Callers that leave before their requests were looked at: as many as may leave at all, because one that leaves must not take the
        // others on its connection along.
        .max_pending_accept_reset_streams(
            usize::try_from(settings.max_cancelled_requests).unwrap_or(usize::MAX),
        )
        .max_local_error_reset_streams(Some(128));
    builder
}

#[cfg(test)]
mod tests;
