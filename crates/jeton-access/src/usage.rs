//! One caller's use of the tokens of one key, counted where they are handed out: no lock, no allocation, and no place in memory that two
//! busy threads both write.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{
            AtomicI64, AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
};

use jeton_core::{
    AuditEvent, AuditKind, AuditOutcome, AuditResource, Principal, Target, TokenHash, Uid, Wall,
};

const COUNT: u64 = u32::MAX as u64;
/// So many entries may wait to be written down; then no tokens are handed out until some are.
pub(crate) const MOST_DUE: usize = 1 << 20;
/// Places where busy threads count apart. More threads than these share them.
const PLACES: usize = 8;

thread_local! {
    /// From 1.
    static THREAD: u32 = {
        static THREADS: AtomicU32 = AtomicU32::new(0);
        THREADS.fetch_add(1, Relaxed).wrapping_add(1)
    };
}

/// Counts since it was taken last. The token that was handed out is known by its hash.
#[derive(Debug)]
pub struct Usage {
    pub(crate) of: Used,
    workload: Option<AuditResource>,
    /// The thread that counted first.
    thread: AtomicU32,
    /// Where all count until two threads come within one millisecond.
    together: Counter,
    /// From then on each has its own.
    apart: OnceLock<Box<[Place; PLACES]>>,
    due: Arc<Due>,
}

/// What is counted of one token.
#[derive(Debug)]
struct Counter {
    /// The token's hash in the upper half, how often it was handed out in the lower.
    window: AtomicU64,
    first: AtomicI64,
    last: AtomicI64,
}

/// Alone in its cache lines: processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Place(Counter);

/// Who used what for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Used {
    /// Who.
    pub principal: Principal,
    /// Which identity.
    pub identity: Uid,
    /// For what.
    pub target: Target,
}

/// What is to be written down.
#[derive(Debug, Default)]
pub(crate) struct Due {
    waiting: Mutex<Waiting>,
    /// How many entries.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// What was counted of tokens that others took the place of meanwhile.
    pub(crate) windows: VecDeque<(Arc<Usage>, Window)>,
    /// Usages that have counted something. Each stands here from the first of a window until that is taken.
    pub(crate) usages: VecDeque<Arc<Usage>>,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.usages.is_empty()
    }
}

impl Due {
    pub(crate) fn has_room(&self) -> bool {
        self.count.load(Relaxed) < MOST_DUE
    }

    pub(crate) fn take(&self) -> Waiting {
        self.locked(std::mem::take)
    }

    /// Puts back what was taken and could not be written.
    pub(crate) fn put_back(&self, mut waiting: Waiting) {
        self.locked(|due| {
            // The older ones stay in front.
            waiting.windows.append(&mut due.windows);
            waiting.usages.append(&mut due.usages);
            *due = waiting;
        });
    }

    fn locked<R>(&self, on: impl FnOnce(&mut Waiting) -> R) -> R {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let result = on(&mut waiting);
        self.count.store(waiting.windows.len() + waiting.usages.len(), Relaxed);
        result
    }
}

/// What was counted of one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) token: Option<TokenHash>,
    pub(crate) count: u64,
    pub(crate) first: Wall,
    pub(crate) last: Wall,
}

impl Usage {
    pub(crate) fn new(of: Used, workload: Option<AuditResource>, due: Arc<Due>, now: Wall) -> Self {
        let (together, apart) = (Counter::new(now.as_millis()), OnceLock::new());
        Self { of, workload, thread: AtomicU32::new(0), together, apart, due }
    }

    /// A token was handed out.
    pub fn served(self: &Arc<Self>, token: TokenHash, now: Wall) {
        let counter = self.counter(now);
        if !counter.count(token, now) {
            self.begin(counter, token, now);
        }
    }

    /// This thread's.
    fn counter(&self, now: Wall) -> &Counter {
        let thread = THREAD.with(|thread| *thread);
        if let Some(places) = self.apart.get() {
            return &places[thread as usize % PLACES].0;
        }
        if self.thread.load(Relaxed) == thread { &self.together } else { self.second(thread, now) }
    }

    /// Another thread than the first.
    #[cold]
    fn second(&self, thread: u32, now: Wall) -> &Counter {
        let first = self.thread.compare_exchange(0, thread, Relaxed, Relaxed).is_ok();
        if first || self.together.last() != now {
            return &self.together;
        }
        let place = |_| Place(Counter::new(now.as_millis()));
        let places = self.apart.get_or_init(|| Box::new(std::array::from_fn(place)));
        &places[thread as usize % PLACES].0
    }

    /// The first of a window, or of another token.
    #[cold]
    fn begin(self: &Arc<Self>, counter: &Counter, token: TokenHash, now: Wall) {
        let before = counter.begin(token, now).map(|window| (Arc::clone(self), window));
        self.due.locked(|due| {
            due.windows.extend(before);
            due.usages.push_back(Arc::clone(self));
        });
    }

    fn counters(&self) -> impl Iterator<Item = &Counter> {
        let places = self.apart.get().into_iter().flat_map(|places| places.iter());
        std::iter::once(&self.together).chain(places.map(|place| &place.0))
    }

    /// What was counted, one window for each token, which begins anew.
    pub(crate) fn take(&self) -> Vec<Window> {
        let mut windows: Vec<Window> = Vec::new();
        for window in self.counters().filter_map(Counter::take) {
            match windows.iter_mut().find(|known| known.token == window.token) {
                Some(known) => known.add(window),
                None => windows.push(window),
            }
        }
        windows
    }

    #[cfg(test)]
    pub(crate) fn is_apart(&self) -> bool {
        self.apart.get().is_some()
    }

    /// When it counted last.
    pub(crate) fn last(&self) -> Wall {
        self.counters().map(Counter::last).max().unwrap_or_default()
    }

    /// The event that stands for a window. `name`: the identity's.
    pub(crate) fn event(&self, window: Window, name: &str) -> AuditEvent {
        let mut event = AuditEvent::new(AuditKind::TokenServed, AuditOutcome::Ok);
        event.principal = Some(self.of.principal.clone());
        event.workload.clone_from(&self.workload);
        event.resources = vec![AuditResource::new(name, Some(self.of.identity))];
        event.target = Some(self.of.target.as_str().into());
        event.token = window.token;
        event.count = Some(window.count);
        event.first = Some(window.first);
        event.last = Some(window.last);
        event
    }
}

impl Counter {
    fn new(now: i64) -> Self {
        Self { window: AtomicU64::new(0), first: AtomicI64::new(now), last: AtomicI64::new(now) }
    }

    /// False: the first of a window, or of another token, which is not counted.
    fn count(&self, token: TokenHash, now: Wall) -> bool {
        let mut window = self.window.load(Relaxed);
        // No window is begun here that nobody would take: what was taken meanwhile has no count to go on from.
        while window >> 32 == u64::from(token.bits()) && (1..COUNT).contains(&(window & COUNT)) {
            match self.window.compare_exchange_weak(window, window + 1, AcqRel, Relaxed) {
                Ok(_) => {
                    self.last.store(now.as_millis(), Relaxed);
                    return true;
                }
                Err(other) => window = other,
            }
        }
        false
    }

    /// Counts the first of a window. The answer is what was counted before, if it was not taken.
    fn begin(&self, token: TokenHash, now: Wall) -> Option<Window> {
        let before = self.window.swap(u64::from(token.bits()) << 32 | 1, AcqRel);
        let last = self.last.swap(now.as_millis(), Relaxed);
        let first = self.first.swap(now.as_millis(), Relaxed);
        (before & COUNT > 0).then(|| Window::of(before, first, last))
    }

    fn take(&self) -> Option<Window> {
        let window = self.window.fetch_and(!COUNT, AcqRel);
        let (first, last) = (self.first.load(Acquire), self.last.load(Acquire));
        (window & COUNT > 0).then(|| Window::of(window, first, last))
    }

    fn last(&self) -> Wall {
        Wall::from_millis(self.last.load(Relaxed))
    }
}

impl Window {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        (self.first, self.last) = (self.first.min(other.first), self.last.max(other.last));
    }

    fn of(window: u64, first: i64, last: i64) -> Self {
        Self {
            token: TokenHash::from_bits(u32::try_from(window >> 32).unwrap_or(0)),
            count: window & COUNT,
            first: Wall::from_millis(first),
            last: Wall::from_millis(last.max(first)),
        }
    }
}
