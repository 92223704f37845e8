//! Connections under load.
//!
//! Each thread has a runtime of its own and a share of the connections. In a closed loop every connection keeps as many requests under
//! way as it is told. At a constant rate the moments of all requests are fixed before the first is sent, and a latency counts from that
//! moment: a server that stalls is charged for everybody who had to wait meanwhile, also for those who could not be sent.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rand::{SeedableRng, rngs::SmallRng};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    task::LocalSet,
};

use crate::{
    record::Record,
    target::{Address, Checker, Target},
    wire::{Client, Outcome},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// Requests that are due on a connection and cannot be sent; more are lost.
const MOST_DUE: usize = 100_000;
/// The pace is kept by looking at the clock when a request is due this soon; timers are coarser.
const SPIN: Duration = Duration::from_micros(1_500);

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// As many as the connections take.
    Closed,
    /// This many a second, over all connections.
    Rate(f64),
}

/// One measurement.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Connections in all.
    pub(crate) connections: usize,
    /// Requests under way on each.
    pub(crate) streams: usize,
    /// How they are sent.
    pub(crate) pace: Pace,
    /// Threads; each takes a processor.
    pub(crate) threads: usize,
    /// The processors for the threads; none: wherever the system puts them.
    pub(crate) cores: Vec<usize>,
    /// Before anything is measured.
    pub(crate) warmup: Duration,
    /// What is measured.
    pub(crate) duration: Duration,
    /// Seeds what is asked.
    pub(crate) seed: u64,
    /// Counts answers while it runs.
    pub(crate) progress: Arc<AtomicU64>,
    /// How far it is.
    pub(crate) stage: Arc<Stage>,
}

/// How far a measurement is, for whoever watches it.
#[derive(Debug, Default)]
pub(crate) struct Stage(Mutex<(bool, bool)>, Condvar);

impl Stage {
    fn begin(&self) {
        self.lock().0 = true;
        self.1.notify_all();
    }

    /// It is over, or never began.
    pub(crate) fn finish(&self) {
        self.lock().1 = true;
        self.1.notify_all();
    }

    /// Whether it is over.
    pub(crate) fn finished(&self) -> bool {
        self.lock().1
    }

    /// Waits until it begins, after connections and warm-up; false: it never does.
    pub(crate) fn begun(&self) -> bool {
        let mut stage = self.lock();
        while !stage.0 && !stage.1 {
            stage = self.1.wait(stage).unwrap_or_else(PoisonError::into_inner);
        }
        stage.0
    }

    fn lock(&self) -> MutexGuard<'_, (bool, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

trait Io: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> Io for T {}
type Socket = Pin<Box<dyn Io>>;

/// Runs a plan to its end.
pub(crate) fn run(target: &Target, plan: &Plan) -> anyhow::Result<Record> {
    let barrier = Arc::new(std::sync::Barrier::new(plan.threads));
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let worker = |index: usize| {
            let barrier = Arc::clone(&barrier);
            scope.spawn(move || thread(target, plan, index, &barrier))
        };
        let threads: Vec<_> = (0..plan.threads).map(worker).collect();
        threads.into_iter().map(|t| t.join().expect("a load thread does not panic")).collect()
    });
    let mut all = Record::new();
    for outcome in outcomes {
        all.add(&outcome?);
    }
    Ok(all)
}

fn thread(
    target: &Target,
    plan: &Plan,
    index: usize,
    barrier: &std::sync::Barrier,
) -> anyhow::Result<Record> {
    if let Some(core) = plan.cores.get(index % plan.cores.len().max(1)) {
        crate::cpu::pin(None, &[*core])?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let share = share(plan.connections, plan.threads, index);
        let connected = connect_all(target, plan, index, share).await;
        // Everybody begins together, also when somebody failed.
        barrier.wait();
        let sockets = connected?;
        Ok(work(target, plan, index, sockets).await)
    })
}

fn share(all: usize, threads: usize, index: usize) -> usize {
    all / threads + usize::from(index < all % threads)
}

async fn connect_all(
    target: &Target,
    plan: &Plan,
    index: usize,
    count: usize,
) -> anyhow::Result<Vec<Socket>> {
    let mut sockets = vec![];
    for n in 0..count {
        let connecting = connect(target, index + n * plan.threads);
        let socket = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        sockets.push(socket.context("a connection takes more than 10 s")??);
    }
    Ok(sockets)
}

async fn connect(target: &Target, caller: usize) -> anyhow::Result<Socket> {
    match &target.address {
        Address::Unix(path) => {
            let context = || format!("connecting to {}", path.display());
            Ok(Box::pin(UnixStream::connect(path).await.with_context(context)?))
        }
        Address::Tcp(address) => {
            let stream =
                TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
            stream.set_nodelay(true)?;
            let Some(tls) = target.tls.get(caller % target.tls.len().max(1)) else {
                return Ok(Box::pin(stream));
            };
            let name = rustls::pki_types::ServerName::try_from("localhost")?;
            let secured = tokio_rustls::TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
            Ok(Box::pin(secured.context("TLS")?))
        }
    }
}

/// What the tasks of one thread share.
struct Shared<'a> {
    target: &'a Target,
    plan: &'a Plan,
    record: RefCell<Record>,
    checker: RefCell<Checker>,
    rng: RefCell<SmallRng>,
    /// The measurement's begin and end.
    begin: Instant,
    end: Instant,
}

/// One connection's requests.
#[derive(Default)]
struct Lane {
    due: RefCell<VecDeque<Intent>>,
    /// The connection is gone, and what is due on it is lost.
    gone: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A request, and the moment at which it was meant to be sent.
#[derive(Clone, Copy)]
struct Intent {
    at: Instant,
    ask: usize,
}

async fn work(target: &Target, plan: &Plan, index: usize, sockets: Vec<Socket>) -> Record {
    let start = Instant::now();
    let shared = Shared {
        target,
        plan,
        record: RefCell::new(Record::new()),
        checker: RefCell::default(),
        rng: RefCell::new(SmallRng::seed_from_u64(plan.seed.wrapping_add(index as u64))),
        begin: start + plan.warmup,
        end: start + plan.warmup + plan.duration,
    };
    let lanes: Vec<Rc<Lane>> = sockets.iter().map(|_| Rc::default()).collect();
    let mut connections: Vec<_> = sockets
        .into_iter()
        .zip(&lanes)
        .map(|(socket, lane)| Connection::new(&shared, socket, Rc::clone(lane)))
        .collect();
    let mut cpu = Duration::ZERO;
    let mut pacer = Pacer { shared: &shared, lanes: &lanes, start, sent: 0, threads: plan.threads, index };
    let watch = async {
        tokio::time::sleep_until(shared.begin.into()).await;
        cpu = thread_cpu();
        if index == 0 {
            plan.stage.begin();
        }
        tokio::time::sleep_until(shared.end.into()).await;
        cpu = thread_cpu() - cpu;
        // Those that have nothing under way notice the end.
        lanes.iter().filter_map(|lane| lane.waker.borrow_mut().take()).for_each(Waker::wake);
    };
    let all = futures_util::future::join_all(connections.iter_mut().map(Connection::run));
    let deadline = tokio::time::sleep_until((shared.end + LAST_ANSWERS).into());
    tokio::select! {
        () = async { tokio::join!(watch, pacer.run(), all); } => {}
        () = deadline => {}
    }
    drop(connections);
    let mut record = shared.record.into_inner();
    (record.elapsed, record.generator_cpu) = (plan.duration, cpu);
    record.token_bytes = shared.checker.into_inner().token_bytes();
    record
}

fn thread_cpu() -> Duration {
    let at = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(at.tv_sec).unwrap_or(0), u32::try_from(at.tv_nsec).unwrap_or(0))
}

/// Keeps the rate.
struct Pacer<'a> {
    shared: &'a Shared<'a>,
    lanes: &'a [Rc<Lane>],
    start: Instant,
    sent: u64,
    threads: usize,
    index: usize,
}

impl Pacer<'_> {
    async fn run(&mut self) {
        let Pace::Rate(rate) = self.shared.plan.pace else { return };
        if self.lanes.is_empty() {
            return;
        }
        let gap = self.threads as f64 / rate;
        // The threads' requests lie between each other's.
        let first = gap * self.index as f64 / self.threads as f64;
        loop {
            let next = self.start + Duration::from_secs_f64(first + gap * self.sent as f64);
            if next >= self.shared.end {
                return;
            }
            let now = Instant::now();
            if next <= now {
                self.send(next, now);
            } else if next - now > SPIN {
                tokio::time::sleep(next - now - SPIN).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    fn send(&mut self, at: Instant, now: Instant) {
        let ask = self.shared.target.draw(&mut *self.shared.rng.borrow_mut());
        let lane = &self.lanes[usize::try_from(self.sent).unwrap_or(0) % self.lanes.len()];
        let lost = match (lane.gone.get(), lane.due.borrow().len()) {
            (true, _) => Some("no connection any more"),
            (_, waiting) if waiting >= MOST_DUE => Some("too many requests are due"),
            _ => None,
        };
        self.sent += 1;
        if let Some(lost) = lost {
            if at >= self.shared.begin {
                let since = now.saturating_duration_since(self.shared.begin);
                self.shared.record.borrow_mut().error(since, lost.into());
            }
            return;
        }
        lane.due.borrow_mut().push_back(Intent { at, ask });
        if let Some(waker) = lane.waker.borrow_mut().take() {
            waker.wake();
        }
        if at >= self.shared.begin {
            let lag = u64::try_from((now - at).as_nanos()).unwrap_or(u64::MAX).max(1);
            self.shared.record.borrow_mut().lag.saturating_record(lag);
        }
    }
}

struct Connection<'a> {
    shared: &'a Shared<'a>,
    socket: Socket,
    lane: Rc<Lane>,
    client: Client,
    sent: usize,
    buffer: Box<[u8]>,
    /// What is under way, by tag.
    under_way: Vec<Option<Intent>>,
    free: Vec<usize>,
    broken: bool,
}

impl<'a> Connection<'a> {
    fn new(shared: &'a Shared<'a>, socket: Socket, lane: Rc<Lane>) -> Self {
        let streams = shared.plan.streams;
        Self {
            shared,
            socket,
            lane,
            client: Client::default(),
            sent: 0,
            buffer: vec![0; 64 * 1024].into(),
            under_way: vec![None; streams],
            free: (0..streams).collect(),
            broken: false,
        }
    }

    async fn run(&mut self) {
        let ended = poll_fn(|cx| self.poll(cx)).await;
        let shared = self.shared;
        self.lane.gone.set(true);
        let early = ended.is_err() && Instant::now() < shared.end;
        let (now, what) =
            (Instant::now(), ended.err().map_or_else(|| "unanswered".into(), |e| e.to_string()));
        let due = std::mem::take(&mut *self.lane.due.borrow_mut());
        let lost = self.under_way.iter().flatten().copied().chain(due);
        let mut record = shared.record.borrow_mut();
        if early {
            record.error(now.saturating_duration_since(shared.begin), format!("connection: {what}"));
        }
        for _ in lost.filter(|i| i.at >= shared.begin && i.at < shared.end) {
            record.error(now.saturating_duration_since(shared.begin), format!("connection: {what}"));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let over = Instant::now() >= self.shared.end;
            self.fill(over);
            if over && self.client.in_flight() == 0 && self.lane.due.borrow().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.poll_write(cx)?;
            if !self.poll_read(cx)? {
                *self.lane.waker.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
    }

    /// Sends what is due, as far as there is room.
    fn fill(&mut self, over: bool) {
        let target = self.shared.target;
        while let Some(&tag) = self.free.last() {
            let next = match self.shared.plan.pace {
                Pace::Closed if over => return,
                Pace::Closed => {
                    let ask = target.draw(&mut *self.shared.rng.borrow_mut());
                    Intent { at: Instant::now(), ask }
                }
                Pace::Rate(_) => match self.lane.due.borrow().front() {
                    Some(next) => *next,
                    None => return,
                },
            };
            let request = &target.asks[next.ask].request;
            if !self.client.ready(request) {
                return;
            }
            self.lane.due.borrow_mut().pop_front();
            self.free.pop();
            self.under_way[tag] = Some(next);
            self.client.send(request, tag as u64);
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.client.out.is_empty() {
            return Ok(());
        }
        while self.sent < self.client.out.len() {
            match self.socket.as_mut().poll_write(cx, &self.client.out[self.sent..]) {
                Poll::Ready(count) => self.sent += count?,
                Poll::Pending => return Ok(()),
            }
        }
        self.client.out.clear();
        self.sent = 0;
        match self.socket.as_mut().poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    /// Whether something came.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        match self.socket.as_mut().poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(false),
            Poll::Ready(read) => read?,
        }
        if buffer.filled().is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server"));
        }
        let (shared, under_way, free) = (self.shared, &mut self.under_way, &mut self.free);
        let now = Instant::now();
        let mut record = shared.record.borrow_mut();
        let mut checker = shared.checker.borrow_mut();
        let ended = |tag: u64, outcome: Outcome<'_>| {
            let tag = usize::try_from(tag).unwrap_or(0);
            let Some(intent) = under_way[tag].take() else { return };
            free.push(tag);
            shared.plan.progress.fetch_add(1, Relaxed);
            if intent.at < shared.begin || intent.at >= shared.end {
                return;
            }
            let at = now.saturating_duration_since(shared.begin);
            let ask = &shared.target.asks[intent.ask];
            match outcome {
                Outcome::Message(message) if checker.right(intent.ask, ask, message) => {
                    record.answer(at, now - intent.at);
                }
                Outcome::Message(_) => record.error(at, "a token of another identity".into()),
                Outcome::Status(code) => record.error(at, format!("grpc-status {code}")),
                Outcome::Reset(code) => record.error(at, format!("stream reset with {code}")),
            }
        };
        self.client
            .receive(buffer.filled(), ended)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if self.client.ended() && self.client.in_flight() == 0 && !self.broken {
            self.broken = true;
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "ended by the server (GOAWAY)"));
        }
        Ok(true)
    }
}
