//! The accept loop. It never spins, never grows without bound, and ends when a drain begins.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Response;
use jeton_access::BearerTokens;
use jeton_core::{Clock, Principal};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{body::Body, service::Routes};

use super::{
    Authenticate, AuthenticationFailure, Calls, DoorSettings, Drain, Listener, Peer, Shortcut, Tls,
    authority::Hosted,
    calls::CallsOf,
    connection, http1,
    listen::Stream,
    places::{Place, Places},
    request::{Common, Shared},
    tls::Proof,
};
use crate::seldom::Seldom;

/// Out of file descriptors: some will come free, and spinning does not help.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// Calls of a door that may be under way when they go on without their callers.
const MAX_FINISHING: usize = 1_024;
/// TLS handshakes under way: each costs a signature, and a peer nothing.
const MAX_HANDSHAKES: usize = 256;

/// What is spoken at a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, for gRPC.
    Http2,
    /// HTTP/1.1, a request for each connection.
    Http1,
}

impl Protocol {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http1 => b"http/1.1",
        }
    }
}

/// A door and what stands behind it.
pub struct Door {
    /// What it is called in the log.
    pub name: &'static str,
    /// Where it listens.
    pub listener: Listener,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Its bounds.
    pub settings: DoorSettings,
    /// The certificate that it shows, and those that it takes; none: plain text.
    pub tls: Option<Arc<Tls>>,
    /// Who peers are by where they come from; none: their certificates or their tokens tell, and nothing else.
    pub authenticate: Option<Arc<dyn Authenticate>>,
    /// Judges the bearer tokens of requests; none: such headers mean nothing here.
    pub bearer: Option<Arc<dyn BearerTokens>>,
    /// Tells when credentials end.
    pub clock: Arc<dyn Clock>,
    /// The services.
    pub routes: Routes,
    /// A shorter way for one of their calls.
    pub shortcut: Option<Arc<dyn Shortcut>>,
    /// Where calls are counted with how long they took; none: they are not.
    pub calls: Option<Arc<Calls>>,
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

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) open: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) full: AtomicU64,
    pub(crate) silent: AtomicU64,
    pub(crate) misused: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) unauthenticated: AtomicU64,
    /// Requests under way that took more than one poll.
    pub(crate) streams: AtomicU64,
    failures: [AtomicU64; AuthenticationFailure::NAMES.len()],
}

impl Counters {
    pub(crate) fn not_let_in(&self, why: AuthenticationFailure) {
        self.failures[why as usize].fetch_add(1, Relaxed);
    }
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
    /// Requests of nobody: without a credential, or with one that is not good.
    pub unauthenticated: u64,
    /// Requests under way.
    pub streams: u64,
    /// Peers and requests that were not let in, in the order of [`AuthenticationFailure::NAMES`].
    pub failures: [u64; AuthenticationFailure::NAMES.len()],
}

/// Serves a door until a drain begins. The task is the accept loop; connections are the drain's.
pub fn serve(
    door: Door,
    drain: Drain,
) -> (JoinHandle<()>, impl Fn() -> DoorStats + Send + Sync + Clone + 'static) {
    let counters = Arc::<Counters>::default();
    drain.ends(door.name, Arc::clone(&counters));
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
        unauthenticated: read.unauthenticated.load(Relaxed),
        streams: read.streams.load(Relaxed),
        failures: std::array::from_fn(|n| read.failures[n].load(Relaxed)),
    };
    (tokio::spawn(Accepting::new(door, drain, counters).run()), stats)
}

/// The loop's own.
struct Accepting {
    listener: Listener,
    tls: Option<Arc<Tls>>,
    authenticate: Option<Arc<dyn Authenticate>>,
    common: Arc<Common>,
    places: Arc<Places>,
    handshakes: Arc<Semaphore>,
    most: u64,
}

impl Accepting {
    fn new(door: Door, drain: Drain, counters: Arc<Counters>) -> Self {
        let settings = Arc::new(door.settings);
        Self {
            listener: door.listener,
            authenticate: door.authenticate,
            places: Places::new(Arc::clone(&settings), Arc::clone(&counters)),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            most: settings.connections() as u64,
            common: Arc::new(Common {
                name: door.name,
                protocol: door.protocol,
                secured: door.tls.is_some(),
                routes: door.routes,
                hits: hits(door.calls.as_deref(), door.shortcut.as_deref()),
                shortcut: door.shortcut,
                calls: door.calls,
                bearer: door.bearer,
                clock: door.clock,
                settings,
                streaming: door.streaming,
                finishing: door.finishes.then(|| Arc::new(Semaphore::new(MAX_FINISHING))),
                complete: door.complete,
                drain,
                counters,
                log: Seldom::default(),
            }),
            tls: door.tls,
        }
    }

    async fn run(self) {
        let name = self.common.name;
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.common.drain.begun() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer),
                Err(error) => {
                    self.common.log.line("accept", (), |left_out| {
                        tracing::warn!(door = name, %error, left_out, "a connection cannot be accepted: where descriptors ran out, raise the process's limit or lower door.max_connections");
                    });
                    if exhausted(&error) {
                        tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Serves it in a task of its own, or lets it go.
    fn take(&self, stream: Stream, peer: Peer) {
        let (counters, log, name) = (&self.common.counters, &self.common.log, self.common.name);
        let most = self.most;
        if counters.open.load(Relaxed) >= most {
            counters.full.fetch_add(1, Relaxed);
            return log.line("all full", (), |left_out| {
                tracing::warn!(door = name, most, left_out, "all connections are in use; new ones are closed: raise door.max_connections, or see who keeps them");
            });
        }
        let principal =
            match self.authenticate.as_ref().map(|it| it.authenticate(&peer, stream.socket())).transpose() {
                Ok(principal) => principal,
                Err(refusal) => {
                    return self.common.refused(&peer, AuthenticationFailure::Place, &refusal);
                }
            };
        let Some(place) = self.places.take(&peer, principal.as_ref()) else {
            return self.common.full(&peer, principal.as_ref());
        };
        let handshake = match &self.tls {
            None => None,
            Some(tls) => match Arc::clone(&self.handshakes).try_acquire_owned() {
                Ok(under_way) => Some((Arc::clone(tls), under_way)),
                Err(_) => {
                    counters.full.fetch_add(1, Relaxed);
                    return log.line("handshakes", (), |left_out| {
                        tracing::warn!(door = name, left_out, "too many handshakes at once; new connections are closed: have callers keep their connections");
                    });
                }
            },
        };
        counters.accepted.fetch_add(1, Relaxed);
        let arrival =
            Arrival { common: Arc::clone(&self.common), peer, principal, place, since: Instant::now() };
        drop(self.common.drain.track(arrival.serve(stream, handshake)));
    }
}

/// A connection that has a place.
struct Arrival {
    common: Arc<Common>,
    peer: Peer,
    principal: Option<Principal>,
    place: Place,
    since: Instant,
}

impl Arrival {
    async fn serve(mut self, stream: Stream, handshake: Option<(Arc<Tls>, OwnedSemaphorePermit)>) {
        match (stream, handshake) {
            (Stream::Tcp(stream), None) => self.connected(stream, None).await,
            (Stream::Unix(stream), _) => self.connected(Hosted::new(stream), None).await,
            (Stream::Tcp(stream), Some((tls, under_way))) => {
                let Some((secured, proof)) = self.handshake(stream, &tls, under_way).await else { return };
                let Some(proof) = proof else { return self.connected(secured, None).await };
                if !self.place.becomes(&proof.authenticated.principal) {
                    return self.common.full(&self.peer, Some(&proof.authenticated.principal));
                }
                self.connected(secured, Some((tls, proof))).await;
            }
        }
    }

    async fn connected<S>(self, stream: S, proof: Option<(Arc<Tls>, Proof)>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let Self { common, peer, principal, place, since } = self;
        let shown = proof.as_ref().map(|(_, proof)| proof.authenticated.clone());
        let shared = Arc::new(Shared::new(common, peer, principal, shown));
        match shared.common.protocol {
            Protocol::Http2 => connection::serve(stream, shared, since, proof).await,
            Protocol::Http1 => http1::serve(stream, shared).await,
        }
        drop(place);
    }

    /// TLS, within the deadline of the first request. The place among the handshakes is free again when it is done.
    async fn handshake(
        &self,
        stream: TcpStream,
        tls: &Tls,
        under_way: OwnedSemaphorePermit,
    ) -> Option<(TlsStream<TcpStream>, Option<Proof>)> {
        let deadline = self.since + self.common.settings.first_request_deadline();
        let (config, verifier) = match tls.handshake(self.common.protocol.alpn()) {
            Ok(Some(begun)) => begun,
            Ok(None) => {
                self.refused(&"there is no server certificate yet");
                return None;
            }
            Err(error) => {
                self.refused(&error);
                return None;
            }
        };
        let secured = tokio::time::timeout_at(deadline, TlsAcceptor::from(config).accept(stream)).await;
        drop(under_way);
        match (secured, verifier.verdict().transpose()) {
            (Ok(Ok(stream)), Ok(proof)) => return Some((stream, proof)),
            (Ok(_), Err(reason)) => self.refused(&reason),
            (Ok(Err(error)), Ok(_)) => self.refused(&error),
            (Err(_), _) => _ = self.common.counters.silent.fetch_add(1, Relaxed),
        }
        None
    }

    fn refused(&self, reason: &dyn std::fmt::Display) {
        self.common.refused(&self.peer, AuthenticationFailure::Handshake, reason);
    }
}

/// What is answered the short way: the calls of its one method.
fn hits(calls: Option<&Calls>, shortcut: Option<&dyn Shortcut>) -> Option<Arc<CallsOf>> {
    Some(Arc::clone(calls?.of(shortcut?.path())))
}

impl Common {
    /// The reason is for the operator; the peer sees its connection closed.
    fn refused(&self, peer: &Peer, why: AuthenticationFailure, reason: &dyn std::fmt::Display) {
        self.counters.not_let_in(why);
        self.log.line("refused", peer.subject(), |left_out| {
            tracing::warn!(door = self.name, %peer, %reason, left_out, "a peer is not let in");
        });
        self.counters.refused.fetch_add(1, Relaxed);
    }

    fn full(&self, peer: &Peer, principal: Option<&Principal>) {
        self.counters.full.fetch_add(1, Relaxed);
        self.log.line("full", (peer.subject(), principal), |left_out| match principal {
            Some(principal) => {
                tracing::warn!(door = self.name, %principal, left_out, "a principal has all its connections in use; new ones are closed: have it keep them, or raise the limit in [door]");
            }
            None => {
                tracing::warn!(door = self.name, %peer, left_out, "an address has all its connections in use; new ones are closed: raise the limit in [door] if these are many callers");
            }
        });
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
