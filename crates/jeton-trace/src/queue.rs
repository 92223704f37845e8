//! What has ended, until it is taken away.

use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use tokio::sync::Notify;

use crate::{Context, Kind, Parent, Value};

/// A span that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its own place.
    pub context: Context,
    /// What it is part of; none: it is the root of its trace.
    pub parent: Option<Parent>,
    /// What was done; one of few.
    pub name: Cow<'static, str>,
    /// On which side of a call.
    pub kind: Kind,
    /// When it began.
    pub started_at: SystemTime,
    /// When it ended: never before it began, whatever was done to the clock.
    pub ended_at: SystemTime,
    /// More about it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Spans, of other traces too, that it has to do with.
    pub links: Vec<Context>,
    /// How many more there were.
    pub dropped_links: u32,
    /// Whether it failed; why is `error.type`.
    pub failed: bool,
}

/// How many spans wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// At most; what ends beyond is dropped.
    pub most: usize,
    /// So many are taken at once.
    pub batch: usize,
}

/// Bounded: whoever ends a span waits for nobody.
#[derive(Debug)]
pub struct Queue {
    bounds: Bounds,
    spans: Mutex<VecDeque<Ended>>,
    filled: Notify,
    dropped: AtomicU64,
}

impl Queue {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, spans: Mutex::default(), filled: Notify::new(), dropped: AtomicU64::new(0) }
    }

    pub(crate) fn push(&self, ended: Ended) {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        if spans.len() >= self.bounds.most {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        spans.push_back(ended);
        let filled = spans.len() >= self.bounds.batch;
        drop(spans);
        if filled {
            self.filled.notify_one();
        }
    }

    /// Those that have waited longest, at most a batch.
    pub fn take(&self) -> Vec<Ended> {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let count = spans.len().min(self.bounds.batch);
        spans.drain(..count).collect()
    }

    /// Waits until there is a whole batch. It may come back once too often.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Spans that found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}
