//! The near cache: the current token of each key that was asked for.
//!
//! A hit takes no lock and no memory: one look-up, one load, two clocks. Whatever changes something holds `writes`. Who follows the
//! cache (the watch, the polls) is woken by `changed` and looks at all of it, so nothing gets lost on the way.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicI64, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use jeton_proto::v1;
use tokio::sync::Notify;

use crate::{
    clock::{Clock, Moment},
    error::Error,
    target::{Asked, Key},
    token::{Issued, Token},
};

/// What nobody asks for any more is not kept fresh: a watch counts as use at the broker.
const IDLE: i64 = 3_600_000;
/// Uses are remembered to about a second, so that callers of one token do not write to one cache line.
const USE_SHIFT: u32 = 10;

pub(crate) struct Near {
    entries: papaya::HashMap<Key, Arc<Entry>, RandomState>,
    writes: Mutex<()>,
    max_keys: usize,
    next_id: AtomicU64,
    /// Counts tokens that were taken back: what was asked for before is not taken in.
    taken_back: AtomicU64,
    pub(crate) changed: Notify,
    pub(crate) clock: Clock,
}

pub(crate) struct Entry {
    /// Names it in a watch.
    pub(crate) id: u64,
    pub(crate) key: Key,
    token: ArcSwap<Issued>,
    /// When it was used last, shifted.
    used: AtomicI64,
    /// Whether an open watch sends its tokens.
    pub(crate) watched: AtomicBool,
    /// A resource refused the token, and the new one is not in yet.
    rejected: AtomicBool,
    /// Boot time before which it is not asked for ahead of its end.
    ask_after: AtomicI64,
}

/// When a question went out, for [`Near::take_in`].
#[derive(Clone, Copy)]
pub(crate) struct Since(u64);

impl Near {
    pub(crate) fn new(max_keys: usize, clock: Clock) -> Self {
        Self {
            entries: papaya::HashMap::builder().hasher(RandomState::default()).build(),
            writes: Mutex::default(),
            max_keys,
            next_id: AtomicU64::default(),
            taken_back: AtomicU64::default(),
            changed: Notify::new(),
            clock,
        }
    }

    /// The token, if it is here and may be served.
    pub(crate) fn token(&self, asked: &Asked<'_>) -> Option<Token> {
        self.entries.pin().get(asked).and_then(|entry| entry.serve(self.clock.now()))
    }

    /// The same for a key.
    pub(crate) fn token_of(&self, key: &Key) -> Option<Token> {
        self.entries.pin().get(key).and_then(|entry| entry.serve(self.clock.now()))
    }

    pub(crate) fn since(&self) -> Since {
        Since(self.taken_back.load(Acquire))
    }

    /// Takes in an answer, and begins to follow its key. `None`: some token was taken back since it was asked for, maybe this one.
    pub(crate) fn take_in(&self, key: &Key, token: v1::Token, since: Since) -> Result<Option<Token>, Error> {
        let now = self.clock.now();
        let issued = Arc::new(Issued::new(key.clone(), token, now)?);
        let _writing = self.writing();
        if self.taken_back.load(Acquire) != since.0 {
            return Ok(None);
        }
        let entries = self.entries.pin();
        if let Some(entry) = entries.get(key) {
            entry.swap(issued, now);
            return Ok(Some(Token(entry.token.load_full())));
        }
        if entries.len() >= self.max_keys
            && let Some(entry) = entries.values().min_by_key(|entry| entry.used.load(Relaxed))
        {
            entries.remove(&entry.key);
        }
        let entry = Entry {
            id: self.next_id.fetch_add(1, Relaxed),
            key: key.clone(),
            token: ArcSwap::new(Arc::clone(&issued)),
            used: AtomicI64::new(now.boot >> USE_SHIFT),
            watched: AtomicBool::new(false),
            rejected: AtomicBool::new(false),
            ask_after: AtomicI64::new(0),
        };
        entries.insert(key.clone(), Arc::new(entry));
        self.changed.notify_one();
        Ok(Some(Token(issued)))
    }

    /// A token that came by itself.
    pub(crate) fn renew(&self, entry: &Entry, token: v1::Token) -> Result<(), Error> {
        let now = self.clock.now();
        let issued = Issued::new(entry.key.clone(), token, now)?;
        let _writing = self.writing();
        entry.swap(Arc::new(issued), now);
        Ok(())
    }

    /// The broker no longer lets this caller have it.
    pub(crate) fn take_back(&self, entry: &Arc<Entry>) {
        let _writing = self.writing();
        self.taken_back.fetch_add(1, Release);
        self.remove(entry);
    }

    /// A resource refused the token: until another is in, the key is due.
    pub(crate) fn reject(&self, token: &Token) {
        let _writing = self.writing();
        let entries = self.entries.pin();
        if let Some(entry) = entries.get(&token.0.key)
            && entry.token.load().same(&token.0)
        {
            entry.rejected.store(true, Relaxed);
            entry.ask_after.store(0, Relaxed);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.pin().values().cloned().collect()
    }

    pub(crate) fn has(&self, entry: &Arc<Entry>) -> bool {
        self.entries.pin().get(&entry.key).is_some_and(|ours| Arc::ptr_eq(ours, entry))
    }

    /// Lets go of what nobody asked for in a long time.
    pub(crate) fn sweep(&self) {
        let now = self.clock.now();
        for entry in self.entries() {
            if now.boot - (entry.used.load(Relaxed) << USE_SHIFT) > IDLE {
                let _writing = self.writing();
                self.remove(&entry);
                self.changed.notify_one();
            }
        }
    }

    fn remove(&self, entry: &Arc<Entry>) {
        if self.has(entry) {
            self.entries.pin().remove(&entry.key);
        }
    }

    fn writing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn serve(&self, now: Moment) -> Option<Token> {
        let issued = self.token.load();
        if !issued.serves(now) {
            return None;
        }
        let at = now.boot >> USE_SHIFT;
        if self.used.load(Relaxed) != at {
            self.used.store(at, Relaxed);
        }
        Some(Token(Arc::clone(&issued)))
    }

    /// The newer of the two stays. Only with `writes` held.
    fn swap(&self, issued: Arc<Issued>, now: Moment) {
        let current = self.token.load();
        if issued.issued_at < current.issued_at && current.serves(now) {
            return;
        }
        if !issued.same(&current) {
            self.rejected.store(false, Relaxed);
            self.ask_after.store(0, Relaxed);
        }
        self.token.store(issued);
    }

    /// Whether it should be asked for: somebody uses it, and the broker has or will have another that nobody sends. A watch that has
    /// said nothing for half of the time between refresh and end is not waited for any longer.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        if now.boot < self.ask_after.load(Relaxed) {
            return false;
        }
        let (token, watched) = (self.token.load(), self.watched.load(Relaxed));
        let used = self.used.load(Relaxed) > token.received.boot >> USE_SHIFT;
        let late = token.refresh_at.midpoint(token.expires_at);
        let due = if watched { late } else { token.refresh_at };
        (self.rejected.load(Relaxed) && !watched) || (used && now.wall >= due)
    }

    pub(crate) fn current(&self) -> Token {
        Token(self.token.load_full())
    }

    pub(crate) fn is_rejected(&self) -> bool {
        self.rejected.load(Relaxed)
    }

    /// Not asked for ahead of its end before that.
    pub(crate) fn asked(&self, now: Moment, pause: Duration) {
        let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        self.ask_after.store(now.boot.saturating_add(pause), Relaxed);
    }
}
