//! Connections under load.
//!
//! Each thread has a runtime of its own and a share of the connections. In a closed loop every connection keeps as many requests under
//! way as it is told. At a constant rate the moments of all requests are fixed before the first is sent, and a latency counts from that
//! moment: a server that stalls is charged for everybody who had to wait meanwhile, also for those who could not be sent.

mod connect;
mod connection;
mod pace;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    task::Waker,
    time::{Duration, Instant},
};

pub(crate) use connect::one_answer;
use connect::{Connected, connect_all};
use connection::Connection;
use pace::Pacer;
use rand::{SeedableRng, rngs::SmallRng};
use tokio::task::LocalSet;

use crate::{
    check::Checker,
    cpu,
    record::{Record, ThreadUse},
    target::Target,
};

/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

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
    let connecting = || {
        if let Some(core) = plan.cores.get(index % plan.cores.len().max(1)) {
            cpu::pin(None, &[*core])?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = LocalSet::new();
        let share = share(plan.connections, plan.threads, index);
        let connected = tasks.block_on(&runtime, connect_all(target, plan, index, share))?;
        anyhow::Ok((runtime, tasks, connected))
    };
    let connected = connecting();
    // Everybody begins together, also when somebody failed.
    barrier.wait();
    let (runtime, tasks, connected) = connected?;
    Ok(tasks.block_on(&runtime, work(target, plan, index, connected)))
}

fn share(all: usize, threads: usize, index: usize) -> usize {
    all / threads + usize::from(index < all % threads)
}

/// What the tasks of one thread share.
struct Shared<'a> {
    target: &'a Target,
    plan: &'a Plan,
    record: RefCell<Record>,
    checker: RefCell<Checker>,
    rng: RefCell<SmallRng>,
    /// Everything that is due by the pace was handed out; a generator that is late does so after the end.
    handed_out: Cell<bool>,
    /// A connection sent or received something; who looks at the clock meanwhile is not idle.
    worked: Cell<bool>,
    /// How long the pace was kept by looking at the clock, so far.
    spun: Cell<Duration>,
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

async fn work(target: &Target, plan: &Plan, index: usize, connected: Vec<Connected>) -> Record {
    let start = Instant::now();
    let shared = Shared {
        target,
        plan,
        record: RefCell::new(Record::new()),
        checker: RefCell::default(),
        rng: RefCell::new(SmallRng::seed_from_u64(plan.seed.wrapping_add(index as u64))),
        handed_out: Cell::new(false),
        worked: Cell::new(false),
        spun: Cell::default(),
        begin: start + plan.warmup,
        end: start + plan.warmup + plan.duration,
    };
    let lanes: Vec<Rc<Lane>> = connected.iter().map(|_| Rc::default()).collect();
    let mut connections: Vec<_> = connected
        .into_iter()
        .zip(&lanes)
        .enumerate()
        .map(|(n, (connected, lane))| {
            Connection::new(&shared, index + n * plan.threads, connected, Rc::clone(lane))
        })
        .collect();
    let mut generator = ThreadUse::default();
    let mut pacer = Pacer::new(&shared, &lanes, start, index);
    // Those that have nothing under way notice the end.
    let wake = || lanes.iter().filter_map(|lane| lane.waker.borrow_mut().take()).for_each(Waker::wake);
    let pace = async {
        pacer.run().await;
        shared.handed_out.set(true);
        wake();
    };
    let watch = async {
        tokio::time::sleep_until(shared.begin.into()).await;
        let before = (Instant::now(), cpu::used_by_this_thread(), shared.spun.get());
        if index == 0 {
            plan.stage.begin();
        }
        tokio::time::sleep_until(shared.end.into()).await;
        generator = ThreadUse {
            watched: before.0.elapsed(),
            share: cpu::used_by_this_thread().since(before.1),
            spun: shared.spun.get() - before.2,
        };
        wake();
    };
    let mut in_time = true;
    let all = futures_util::future::join_all(connections.iter_mut().map(Connection::run));
    let deadline = tokio::time::sleep_until((shared.end + LAST_ANSWERS).into());
    tokio::select! {
        () = async { tokio::join!(watch, pace, all); } => {}
        () = deadline => in_time = false,
    }
    if !in_time {
        connections.iter_mut().for_each(|connection| connection.lose("unanswered 3 s after the end"));
        pacer.give_up();
    }
    drop(connections);
    let mut record = shared.record.into_inner();
    (record.elapsed, record.generator) = (plan.duration, generator);
    record.token_bytes = shared.checker.into_inner().token_bytes();
    record
}
