//! One caller's use of one identity for one target, counted where tokens are handed out: no lock, no allocation.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{
        AtomicBool, AtomicI64, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
    mpsc::SyncSender,
};

use jeton_core::{
    AuditEvent, AuditKind, AuditOutcome, AuditResource, Principal, Target, TokenHash, Uid, Wall,
};

const COUNT: u64 = u32::MAX as u64;

/// Counts since it was taken last. The token that was handed out is known by its hash.
#[derive(Debug)]
pub struct Usage {
    pub(crate) of: Used,
    workload: Option<AuditResource>,
    /// The token's hash in the upper half, how often it was handed out in the lower.
    window: AtomicU64,
    first: AtomicI64,
    last: AtomicI64,
    due: Arc<Due>,
}

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

/// Usages that have counted something, for whoever writes them down.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) line: SyncSender<Arc<Usage>>,
    /// Some did not fit into the line: all are to be looked at.
    pub(crate) overflow: AtomicBool,
    /// What was counted of tokens that others took the place of meanwhile.
    pub(crate) before: Mutex<Vec<(Arc<Usage>, Window)>>,
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
        let (window, now) = (AtomicU64::new(0), now.as_millis());
        let (first, last) = (AtomicI64::new(now), AtomicI64::new(now));
        Self { of, workload, window, first, last, due }
    }

    /// A token was handed out.
    pub fn served(self: &Arc<Self>, token: TokenHash, now: Wall) {
        let window = self.window.load(Relaxed);
        if window >> 32 == u64::from(token.bits()) && window & COUNT > 0 {
            self.last.store(now.as_millis(), Relaxed);
            self.window.fetch_add(1, Relaxed);
        } else {
            self.begin(token, now);
        }
    }

    /// The first of a window, or of another token.
    #[cold]
    fn begin(self: &Arc<Self>, token: TokenHash, now: Wall) {
        let before = self.window.swap(u64::from(token.bits()) << 32 | 1, AcqRel);
        let last = self.last.swap(now.as_millis(), Relaxed);
        let first = self.first.swap(now.as_millis(), Relaxed);
        if before & COUNT > 0 {
            let window = Window::of(before, first, last);
            let mut windows = self.due.before.lock().unwrap_or_else(PoisonError::into_inner);
            windows.push((Arc::clone(self), window));
        }
        if self.due.line.try_send(Arc::clone(self)).is_err() {
            self.due.overflow.store(true, Relaxed);
        }
    }

    /// What was counted, which begins anew. None: nothing.
    pub(crate) fn take(&self) -> Option<Window> {
        let window = self.window.fetch_and(!COUNT, AcqRel);
        let (first, last) = (self.first.load(Acquire), self.last.load(Acquire));
        (window & COUNT > 0).then(|| Window::of(window, first, last))
    }

    /// When it counted last.
    pub(crate) fn last(&self) -> Wall {
        Wall::from_millis(self.last.load(Relaxed))
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

impl Window {
    fn of(window: u64, first: i64, last: i64) -> Self {
        Self {
            token: TokenHash::from_bits(u32::try_from(window >> 32).unwrap_or(0)),
            count: window & COUNT,
            first: Wall::from_millis(first),
            last: Wall::from_millis(last.max(first)),
        }
    }
}
