//! A broker that does what a test says, behind connections in memory: with tokio's paused time nothing depends on the machine.

mod service;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::stream;
use jeton_client::{Builder, Client};
use jeton_proto::v1::{self, token_service_server::TokenServiceServer, watch_tokens_response::Event};
use prost_types::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, copy_bidirectional, duplex},
    sync::{Notify, mpsc},
    task::AbortHandle,
    time::Instant,
};
use tonic::{Code, Request, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt};

/// A token's life.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const BILLING: &str = "identities/billing";
pub(crate) const SCOPE: &str = "orders.read";

type Key = (String, String);
type Answer = Result<v1::WatchTokensResponse, Status>;

/// What the broker answers instead of a token, or of a watch.
#[derive(Clone)]
pub(crate) enum Instead {
    Refuse(Status),
    Hang,
}

#[derive(Clone)]
pub(crate) struct Broker(Arc<Shared>);

struct Shared {
    start: Instant,
    state: Mutex<State>,
    changed: Notify,
    connections: mpsc::UnboundedSender<io::Result<DuplexStream>>,
    asked: AtomicU64,
    opened: AtomicU64,
    reported: AtomicU64,
}

#[derive(Default)]
struct State {
    down: bool,
    wires: Vec<AbortHandle>,
    /// The serial of each key's token, and when it was issued.
    tokens: HashMap<Key, (u64, Duration)>,
    watches: Vec<Watch>,
    get: Option<Instead>,
    watch: Option<Instead>,
    /// Watches open, and nothing is read from them.
    deaf: bool,
    /// What an added key gets instead of its token.
    refuse_key: Option<(Code, &'static str)>,
    outcome: v1::ReportOutcome,
    /// The bearer token that calls must bring.
    bearer: Option<&'static str>,
}

struct Watch {
    number: u64,
    answers: mpsc::UnboundedSender<Answer>,
    added: HashMap<String, Key>,
}

impl Broker {
    /// A broker and its world, on the present runtime.
    pub(crate) fn start() -> Self {
        let (connections, incoming) = mpsc::unbounded_channel();
        let shared = Shared {
            start: Instant::now(),
            state: Mutex::default(),
            changed: Notify::new(),
            connections,
            asked: AtomicU64::default(),
            opened: AtomicU64::default(),
            reported: AtomicU64::default(),
        };
        let broker = Self(Arc::new(shared));
        let incoming = stream::unfold(incoming, |mut incoming| async {
            let next = incoming.recv().await?;
            Some((next, incoming))
        });
        let server = Server::builder().add_service(TokenServiceServer::new(broker.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        broker
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    /// Of a client that lives in this broker's world.
    pub(crate) fn builder(&self) -> Builder {
        let (transport, clock) = (self.clone(), self.clone());
        let epoch = wall(Duration::ZERO);
        Client::builder()
            .transport(move || transport.connect())
            .clock(move || (epoch + clock.now(), clock.now()))
    }

    fn connect(&self) -> io::Result<DuplexStream> {
        let mut state = self.state();
        if state.down {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = duplex(64 * 1024);
        self.serve(&mut state, far);
        Ok(near)
    }

    /// Takes a connection that came otherwise; dropped while the broker is down.
    pub(crate) fn accept(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let mut state = self.state();
        if !state.down {
            self.serve(&mut state, stream);
        }
    }

    fn serve(&self, state: &mut State, mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let (mut near, far) = duplex(64 * 1024);
        let wire = tokio::spawn(async move {
            let _ = copy_bidirectional(&mut stream, &mut near).await;
        });
        state.wires.push(wire.abort_handle());
        let _ = self.0.connections.send(Ok(far));
    }

    /// SIGKILL: connections break, and nobody listens.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        state.down = true;
        state.wires.drain(..).for_each(|wire| wire.abort());
        state.watches.clear();
    }

    pub(crate) fn restart(&self) {
        self.state().down = false;
    }

    /// Tells all watchers to move, and ends their streams.
    pub(crate) fn drain(&self) {
        let moving = Event::Moving(v1::WatchTokensMoving::default());
        for watch in self.state().watches.drain(..) {
            let answer = v1::WatchTokensResponse { id: String::new(), event: Some(moving.clone()) };
            let _ = watch.answers.send(Ok(answer));
        }
    }

    /// Forgets what it was asked to send, and says nothing.
    pub(crate) fn forget_watches(&self) {
        self.state().watches.iter_mut().for_each(|watch| watch.added.clear());
    }

    /// Ends all streams without a word.
    pub(crate) fn end_streams(&self) {
        self.state().watches.clear();
    }

    /// Another token, and a word to whoever watches; its secret.
    pub(crate) fn refresh(&self, identity: &str) -> String {
        let (key, now) = ((identity.to_owned(), SCOPE.to_owned()), self.now());
        let mut state = self.state();
        let serial = state.tokens.get(&key).map_or(0, |(serial, _)| serial + 1);
        state.tokens.insert(key.clone(), (serial, now));
        let token = Event::Token(response(&key, serial, now));
        state.tell(&key, &token);
        secret(&key, serial)
    }

    pub(crate) fn fail(&self, identity: &str, code: Code, reason: &str) {
        let key = (identity.to_owned(), SCOPE.to_owned());
        self.state().tell(&key, &Event::Failure(failure(code, reason)));
    }

    pub(crate) fn instead_of_tokens(&self, instead: Option<Instead>) {
        self.state().get = instead;
        self.0.changed.notify_waiters();
    }

    pub(crate) fn instead_of_watches(&self, instead: Option<Instead>) {
        self.state().watch = instead;
        self.0.changed.notify_waiters();
    }

    pub(crate) fn read_nothing(&self) {
        self.state().deaf = true;
    }

    pub(crate) fn refuse_keys(&self, refusal: Option<(Code, &'static str)>) {
        self.state().refuse_key = refusal;
    }

    pub(crate) fn want_bearer(&self, bearer: &'static str) {
        self.state().bearer = Some(bearer);
    }

    pub(crate) fn answer_reports(&self, outcome: v1::ReportOutcome) {
        self.state().outcome = outcome;
    }

    /// How often GetToken was called.
    pub(crate) fn asked(&self) -> u64 {
        self.0.asked.load(SeqCst)
    }

    /// How often WatchTokens was called.
    pub(crate) fn opened(&self) -> u64 {
        self.0.opened.load(SeqCst)
    }

    pub(crate) fn reported(&self) -> u64 {
        self.0.reported.load(SeqCst)
    }

    /// The identities that are watched.
    pub(crate) fn watched(&self) -> Vec<String> {
        let mut state = self.state();
        state.watches.retain(|watch| !watch.answers.is_closed());
        let mut all: Vec<_> = state
            .watches
            .iter()
            .flat_map(|w| w.added.values().map(|(identity, _)| identity.clone()))
            .collect();
        all.sort();
        all
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.0.start.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn authenticate<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let wanted = self.state().bearer.map(|bearer| format!("Bearer {bearer}"));
        let shown = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        match wanted {
            Some(wanted) if shown != Some(&wanted) => {
                Err(refusal(Code::Unauthenticated, "UNAUTHENTICATED", None))
            }
            _ => Ok(()),
        }
    }

    /// Holds a call back as long as the test says so.
    async fn held(&self, instead: impl Fn(&State) -> Option<Instead>) -> Result<(), Status> {
        loop {
            let changed = self.0.changed.notified();
            let now = instead(&self.state());
            match now {
                None => return Ok(()),
                Some(Instead::Refuse(status)) => return Err(status),
                Some(Instead::Hang) => changed.await,
            }
        }
    }
}

impl State {
    fn tell(&mut self, key: &Key, event: &Event) {
        let over = matches!(event, Event::Failure(failure) if !failure.reason.starts_with("AUTHORITY_"));
        for watch in &mut self.watches {
            let ids: Vec<_> =
                watch.added.iter().filter(|(_, of)| *of == key).map(|(id, _)| id.clone()).collect();
            for id in ids {
                if over {
                    watch.added.remove(&id);
                }
                let _ = watch.answers.send(Ok(v1::WatchTokensResponse { id, event: Some(event.clone()) }));
            }
        }
    }
}

/// What such a broker sends with a refusal.
pub(crate) fn refusal(code: Code, reason: &str, retry: Option<Duration>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "jeton", HashMap::from([("correlation_id".to_owned(), "c-1".to_owned())]));
    if let Some(delay) = retry {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, "in the broker's words", details)
}

/// Waits for what must come to hold, in simulated time; how long it took.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < 2 * HOUR, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    start.elapsed()
}

fn failure(code: Code, reason: &str) -> v1::Failure {
    v1::Failure { code: code as i32, reason: reason.to_owned(), ..Default::default() }
}

fn wall(since: Duration) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000) + since
}

pub(crate) fn secret((identity, scope): &Key, serial: u64) -> String {
    format!("{identity} {scope} {serial}")
}

fn response(key: &Key, serial: u64, issued: Duration) -> v1::GetTokenResponse {
    let at = |since| Some(Timestamp::from(wall(since)));
    let token = v1::Token {
        access_token: secret(key, serial),
        token_type: "Bearer".into(),
        identity: key.0.clone(),
        scopes: vec![key.1.clone()],
        issued_at: at(issued),
        refresh_at: at(issued + HOUR / 2),
        expires_at: at(issued + HOUR),
        ..Default::default()
    };
    v1::GetTokenResponse { token: Some(token), state: 1 }
}

fn key_of(request: &v1::GetTokenRequest) -> Key {
    (request.identity.clone(), request.scopes.first().cloned().unwrap_or_default())
}
