//! What each caller may ask beside hits: misses and new keys, forced refreshes, watches, and requests that wait. A hit is asked nothing here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jeton_core::{CallerLimits, Mono, Now, Principal, Uid};

use crate::{EngineSettings, TokenError};

/// Callers whose standing is remembered; one that owes nothing is forgotten first.
const MAX_CALLERS: usize = 100_000;
const MINUTE: f64 = 60.0;

/// Whose limits count: a caller, and the terms under which it asks where they are not the usual ones.
#[derive(Debug, Clone)]
pub struct Account {
    /// Who asks.
    pub principal: Principal,
    /// The role assignment that has limits of its own, and those. What is asked by it is counted apart.
    pub terms: Option<(Uid, CallerLimits)>,
}

impl From<Principal> for Account {
    fn from(principal: Principal) -> Self {
        Self { principal, terms: None }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Callers {
    usual: Limits,
    known: Known,
}

type Key = (Principal, Option<Uid>);
type Known = Arc<Mutex<HashMap<Key, Standing>>>;

#[derive(Debug, Clone, Copy)]
struct Limits {
    misses_per_second: u32,
    miss_burst: u32,
    forced_per_minute: u32,
    watches: u32,
    waiting: u32,
}

#[derive(Debug)]
struct Standing {
    limits: Limits,
    misses: Bucket,
    forced: Bucket,
    watches: u32,
    waiting: u32,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: f64,
    at: Mono,
}

/// What is counted while it lasts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lasting {
    Watch,
    Waiting,
}

/// One that lasts; given back on drop.
#[derive(Debug)]
pub(crate) struct Held {
    known: Known,
    key: Key,
    what: Lasting,
}

impl Callers {
    pub(crate) fn new(settings: &EngineSettings) -> Self {
        let usual = Limits {
            misses_per_second: settings.misses_per_second,
            miss_burst: settings.miss_burst,
            forced_per_minute: settings.forced_refreshes_per_minute,
            watches: settings.max_watches_per_caller,
            waiting: settings.max_waiting_per_caller,
        };
        Self { usual, known: Arc::default() }
    }

    /// Charges a miss or a new key.
    pub(crate) fn miss(&self, account: &Account, now: Now) -> Result<(), TokenError> {
        self.with(account, now, |standing| {
            let (rate, burst) = standing.limits.misses();
            standing.misses.take(rate, burst, now.mono).map_err(|retry_after| TokenError::OverLimit {
                what: "tokens that are not in memory",
                limit: "misses_per_second",
                retry_after,
            })
        })
    }

    /// Charges a forced refresh.
    pub(crate) fn forced(&self, account: &Account, now: Now) -> Result<(), TokenError> {
        self.with(account, now, |standing| {
            let (rate, burst) = standing.limits.forced();
            standing.forced.take(rate, burst, now.mono).map_err(|retry_after| TokenError::OverLimit {
                what: "refreshes forced by reports of rejected tokens",
                limit: "forced_refreshes_per_minute",
                retry_after,
            })
        })
    }

    /// Counts one that lasts.
    pub(crate) fn enter(&self, account: &Account, what: Lasting, now: Now) -> Result<Held, TokenError> {
        self.with(account, now, |standing| {
            let most = match what {
                Lasting::Watch => standing.limits.watches,
                Lasting::Waiting => standing.limits.waiting,
            };
            let count = standing.count(what);
            if *count >= most {
                return Err(what.over());
            }
            *count += 1;
            Ok(())
        })?;
        Ok(Held { known: Arc::clone(&self.known), key: key(account), what })
    }

    fn with<R>(
        &self,
        account: &Account,
        now: Now,
        act: impl FnOnce(&mut Standing) -> Result<R, TokenError>,
    ) -> Result<R, TokenError> {
        let (mut known, key) = (locked(&self.known), key(account));
        if known.len() >= MAX_CALLERS && !known.contains_key(&key) {
            known.retain(|_, standing| standing.owes(now.mono));
            if known.len() >= MAX_CALLERS {
                return Err(TokenError::Overloaded {
                    what: "too many callers ask for tokens that are not in memory",
                    retry_after: Duration::from_secs(1),
                });
            }
        }
        let limits = self.usual.under(account.terms.map(|(_, own)| own).unwrap_or_default());
        let standing = known.entry(key).or_insert_with(|| Standing::new(limits, now.mono));
        standing.limits = limits;
        act(standing)
    }
}

impl Limits {
    fn under(self, own: CallerLimits) -> Self {
        Self {
            misses_per_second: own.misses_per_second.unwrap_or(self.misses_per_second).max(1),
            miss_burst: own.miss_burst.unwrap_or(self.miss_burst).max(1),
            forced_per_minute: own.forced_refreshes_per_minute.unwrap_or(self.forced_per_minute).max(1),
            watches: own.max_watches.unwrap_or(self.watches),
            waiting: own.max_waiting.unwrap_or(self.waiting),
        }
    }

    /// A second, and at once.
    fn misses(self) -> (f64, f64) {
        (self.misses_per_second.into(), self.miss_burst.into())
    }

    fn forced(self) -> (f64, f64) {
        (f64::from(self.forced_per_minute) / MINUTE, self.forced_per_minute.into())
    }
}

impl Standing {
    fn new(limits: Limits, now: Mono) -> Self {
        let full = |(_, burst)| Bucket { level: burst, at: now };
        let (misses, forced) = (full(limits.misses()), full(limits.forced()));
        Self { limits, misses, forced, watches: 0, waiting: 0 }
    }

    fn count(&mut self, what: Lasting) -> &mut u32 {
        match what {
            Lasting::Watch => &mut self.watches,
            Lasting::Waiting => &mut self.waiting,
        }
    }

    /// Whether forgetting it would forgive something.
    fn owes(&self, now: Mono) -> bool {
        let lacks = |bucket: Bucket, (rate, burst)| bucket.filled(rate, burst, now) < burst;
        self.watches + self.waiting > 0
            || lacks(self.misses, self.limits.misses())
            || lacks(self.forced, self.limits.forced())
    }
}

impl Bucket {
    fn filled(&self, rate: f64, burst: f64, now: Mono) -> f64 {
        (self.level + now.saturating_since(self.at).as_secs_f64() * rate).min(burst)
    }

    /// Takes one out; the error says when there is one.
    fn take(&mut self, rate: f64, burst: f64, now: Mono) -> Result<(), Duration> {
        self.level = self.filled(rate, burst, now);
        self.at = now;
        if self.level >= 1.0 {
            self.level -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.level) / rate).max(Duration::from_millis(1)))
    }
}

impl Lasting {
    fn over(self) -> TokenError {
        match self {
            Self::Watch => TokenError::OverLimit {
                what: "tokens watched at once",
                limit: "max_watches_per_caller",
                retry_after: Duration::from_secs(30),
            },
            Self::Waiting => TokenError::OverLimit {
                what: "requests that wait for an authority",
                limit: "max_waiting_per_caller",
                retry_after: Duration::from_secs(1),
            },
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(standing) = locked(&self.known).get_mut(&self.key) {
            let count = standing.count(self.what);
            *count = count.saturating_sub(1);
        }
    }
}

fn key(account: &Account) -> Key {
    (account.principal.clone(), account.terms.map(|(assignment, _)| assignment))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
