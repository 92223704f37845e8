//! The accept loop. It never spins, never grows without bound, and ends when a drain begins.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Response;
use jeton_core::Principal;
use rustls::ServerConfig;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{body::Body, service::Routes};

use super::{
    Authenticate, Caller, DoorSettings, Drain, Listener, Shortcut, authority::Hosted, connection,
    listen::Stream, meter::Meter, request::Shared,
};

/// Out of file descriptors: some will come free, and spinning does not help.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// Calls of a door that may be under way when they go on without their callers.
const MAX_FINISHING: usize = 1_024;
/// TLS handshakes under way: each costs a signature, and a peer nothing.
const MAX_HANDSHAKES: usize = 256;
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// A door and what stands behind it.
pub struct Door {
    /// What it is called in the log.
    pub name: &'static str,
    /// Where it listens.
    pub listener: Listener,
    /// Its bounds.
    pub settings: DoorSettings,
    /// The server's certificate and key; none: plain text.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who peers are.
    pub authenticate: Arc<dyn Authenticate>,
    /// The services.
    pub routes: Routes,
    /// A shorter way for one of their calls.
    pub shortcut: Option<Arc<dyn Shortcut>>,
    /// Which paths are streams, with no deadline of ours.
    pub streaming: fn(&str) -> bool,
    /// Whether a call goes on to its end when its caller goes away or its deadline passes: what changes something must not be left half
    /// done.
    pub finishes: bool,
    /// Gives errors that no service wrote their details.
    pub complete: fn(Response<Body>) -> Response<Body>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) open: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) full: AtomicU64,
    pub(crate) silent: AtomicU64,
    pub(crate) misused: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) late: AtomicU64,
}

/// Numbers of one door.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DoorStats {
    /// Connections open now.
    pub open: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Peers that were not let in.
    pub refused: u64,
    /// Connections closed because a cap was reached.
    pub full: u64,
    /// Connections closed because no request came in time.
    pub silent: u64,
    /// Connections closed because their peer cancelled too much.
    pub misused: u64,
    /// Requests that their peers cancelled.
    pub cancelled: u64,
    /// Requests whose deadline passed.
    pub late: u64,
}

/// Serves a door until a drain begins. The task is the accept loop; connections are the drain's.
pub fn serve(
    door: Door,
    drain: Drain,
) -> (JoinHandle<()>, impl Fn() -> DoorStats + Send + Sync + Clone + 'static) {
    let counters = Arc::<Counters>::default();
    let read = Arc::clone(&counters);
    let stats = move || DoorStats {
        open: read.open.load(Relaxed),
        accepted: read.accepted.load(Relaxed),
        refused: read.refused.load(Relaxed),
        full: read.full.load(Relaxed),
        silent: read.silent.load(Relaxed),
        misused: read.misused.load(Relaxed),
        cancelled: read.cancelled.load(Relaxed),
        late: read.late.load(Relaxed),
    };
    (tokio::spawn(accept(door, drain, counters)), stats)
}

async fn accept(door: Door, drain: Drain, counters: Arc<Counters>) {
    let settings = Arc::new(door.settings.clone());
    let (most, per_principal) = (settings.connections() as u64, Arc::<PerPrincipal>::default());
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let finishing = door.finishes.then(|| Arc::new(Semaphore::new(MAX_FINISHING)));
    let mut log = Seldom::default();
    loop {
        let accepted = tokio::select! {
            accepted = door.listener.accept() => accepted,
            () = drain.begun() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                log.warn(|| tracing::warn!(door = door.name, %error, "a connection cannot be accepted"));
                if exhausted(&error) {
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                continue;
            }
        };
        if counters.open.load(Relaxed) >= most {
            counters.full.fetch_add(1, Relaxed);
            log.warn(|| {
                tracing::warn!(door = door.name, most, "all connections are in use; new ones are closed")
            });
            continue;
        }
        let principal = match door.authenticate.authenticate(&peer) {
            Ok(principal) => principal,
            Err(refusal) => {
                counters.refused.fetch_add(1, Relaxed);
                log.warn(|| tracing::warn!(door = door.name, ?peer, %refusal, "a peer is not let in"));
                continue;
            }
        };
        let Some(place) =
            Place::take(&per_principal, &principal, settings.max_connections_per_principal, &counters)
        else {
            counters.full.fetch_add(1, Relaxed);
            log.warn(|| tracing::warn!(door = door.name, %principal, "a principal has all its connections in use; new ones are closed"));
            continue;
        };
        counters.accepted.fetch_add(1, Relaxed);
        let shared = Arc::new(Shared {
            caller: Arc::new(Caller { principal, peer }),
            routes: door.routes.clone(),
            shortcut: door.shortcut.clone(),
            streaming: door.streaming,
            finishing: finishing.clone(),
            complete: door.complete,
            drain: drain.clone(),
            meter: Meter::new(settings.max_cancelled_requests, settings.max_idle_bytes_per_second),
            settings: Arc::clone(&settings),
            counters: Arc::clone(&counters),
        });
        let (own_drain, since) = (drain.clone(), Instant::now());
        let tls = match &door.tls {
            None => None,
            Some(tls) => match Arc::clone(&handshakes).try_acquire_owned() {
                Ok(handshaking) => Some((Arc::clone(tls), handshaking)),
                Err(_) => {
                    counters.full.fetch_add(1, Relaxed);
                    log.warn(|| {
                        tracing::warn!(
                            door = door.name,
                            "too many handshakes at once; new connections are closed"
                        )
                    });
                    continue;
                }
            },
        };
        let serving = async move {
            match stream {
                Stream::Tcp(stream) => match tls {
                    None => connection::serve(stream, shared, since, own_drain).await,
                    Some((tls, handshaking)) => {
                        if let Some(secured) = handshake(stream, tls, handshaking, &shared, since).await {
                            connection::serve(secured, shared, since, own_drain).await;
                        }
                    }
                },
                Stream::Unix(stream) => {
                    connection::serve(Hosted::new(stream), shared, since, own_drain).await
                }
            }
            drop(place);
        };
        drop(drain.track(serving));
    }
}

/// TLS, within the deadline of the first request. The place among the handshakes is free again when it is done.
async fn handshake(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    handshaking: OwnedSemaphorePermit,
    shared: &Shared,
    since: Instant,
) -> Option<TlsStream<TcpStream>> {
    let deadline = since + shared.settings.first_request_deadline();
    let secured = tokio::time::timeout_at(deadline, TlsAcceptor::from(tls).accept(stream)).await;
    drop(handshaking);
    match secured {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            shared.counters.refused.fetch_add(1, Relaxed);
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            shared.counters.silent.fetch_add(1, Relaxed);
            None
        }
    }
}

fn exhausted(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(
        code,
        Some(
            rustix::io::Errno::MFILE
                | rustix::io::Errno::NFILE
                | rustix::io::Errno::NOBUFS
                | rustix::io::Errno::NOMEM
        )
    )
}

type PerPrincipal = Mutex<HashMap<Principal, usize>>;

/// A connection's place in the counts, given back on drop.
struct Place {
    principal: Principal,
    counts: Arc<PerPrincipal>,
    counters: Arc<Counters>,
}

impl Place {
    fn take(
        counts: &Arc<PerPrincipal>,
        principal: &Principal,
        most: usize,
        counters: &Arc<Counters>,
    ) -> Option<Self> {
        let mut held = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(principal.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        counters.open.fetch_add(1, Relaxed);
        Some(Self {
            principal: principal.clone(),
            counts: Arc::clone(counts),
            counters: Arc::clone(counters),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counters.open.fetch_sub(1, Relaxed);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.principal) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.principal);
            }
        }
    }
}

/// At most one line in a while.
#[derive(Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn warn(&mut self, line: impl FnOnce()) {
        if self.0.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            self.0 = Some(Instant::now());
            line();
        }
    }
}
