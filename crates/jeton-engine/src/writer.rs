//! Keeps tokens over a restart, behind everybody's back: in batches, bounded, never delaying a swap.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use jeton_core::TokenKey;

use crate::{Hold, Scope, StoredToken, TokenStore, TokenStoreError, TokenWrite, slot::Slot};

const MAX_BATCH: usize = 512;
const GATHER: Duration = Duration::from_millis(50);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What is to be written. A token is read from its slot when its turn comes, so that many that wait cost no memory of their own, and one
/// that is gone meanwhile is not written at all.
#[derive(Debug)]
pub(crate) enum Pending {
    Put(Weak<Slot>),
    Remove(TokenKey),
    Hold(Hold),
    /// And the answer when it is on disk.
    Revoke(Scope, Stored),
}

pub(crate) type Stored = oneshot::Sender<Result<(), TokenStoreError>>;

impl Pending {
    fn write(self, awaited: &mut Vec<Stored>) -> Option<TokenWrite> {
        match self {
            Self::Put(slot) => {
                let slot = slot.upgrade()?;
                let token = Arc::clone(&slot.token.load().as_ref()?.token);
                Some(TokenWrite::Put(Box::new(StoredToken {
                    key: slot.key.clone(),
                    token: token.issued.clone(),
                    issued_at: token.issued_at,
                    refresh_at: token.refresh_at,
                    last_used: slot.last_used_wall(),
                    earlier_until: slot.earlier_until(),
                })))
            }
            Self::Remove(key) => Some(TokenWrite::Remove(key)),
            Self::Hold(hold) => Some(TokenWrite::Hold(hold)),
            Self::Revoke(scope, stored) => {
                awaited.push(stored);
                Some(TokenWrite::Revoke(scope))
            }
        }
    }
}

/// Where writes are handed in.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Pending>,
    dropped: Arc<AtomicU64>,
}

impl Writer {
    pub(crate) fn new(bound: usize) -> (Self, mpsc::Receiver<Pending>) {
        let (queue, writes) = mpsc::channel(bound);
        (Self { queue, dropped: Arc::default() }, writes)
    }

    /// Hands in a write; when the store cannot follow, it is dropped and counted.
    pub(crate) fn put(&self, write: Pending) {
        if self.queue.try_send(write).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Has every token of a scope forgotten, what is handed in already included; returns when that is on disk.
    pub(crate) async fn revoke(&self, scope: Scope) -> Result<(), TokenStoreError> {
        let stopping = || TokenStoreError("the broker is about to stop".into());
        let (tell, told) = oneshot::channel();
        self.queue.send(Pending::Revoke(scope, tell)).await.map_err(|_| stopping())?;
        told.await.unwrap_or_else(|_| Err(stopping()))
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// Writes until told to stop, then writes what is left.
pub(crate) async fn run(
    mut writes: mpsc::Receiver<Pending>,
    store: Arc<dyn TokenStore>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    let mut failing = false;
    loop {
        let more = tokio::select! {
            got = writes.recv_many(&mut batch, MAX_BATCH) => got > 0,
            () = stop.cancelled() => false,
        };
        if more {
            // A refresh storm brings many at once: a little later they are one batch.
            tokio::time::sleep(GATHER).await;
        }
        while batch.len() < MAX_BATCH
            && let Ok(write) = writes.try_recv()
        {
            batch.push(write);
        }
        if !batch.is_empty() {
            let mut awaited = vec![];
            let batch: Vec<_> = batch.drain(..).filter_map(|pending| pending.write(&mut awaited)).collect();
            let written = write(&*store, batch, failing).await;
            failing = written.is_err();
            // Whoever does not wait any more did not ask to know.
            awaited.into_iter().for_each(|stored| drop(stored.send(written.clone())));
        } else if !more {
            return;
        }
    }
}

async fn write(
    store: &dyn TokenStore,
    batch: Vec<TokenWrite>,
    was_failing: bool,
) -> Result<(), TokenStoreError> {
    let written = tokio::time::timeout(WRITE_TIMEOUT, store.write(batch)).await;
    let written = written.unwrap_or_else(|_| Err(TokenStoreError("no answer within 30 s".into())));
    match (&written, was_failing) {
        (Err(error), false) => {
            tracing::warn!(%error, "tokens are not kept over a restart; serving goes on from memory: make room on the disk of the data directory, or make it writable")
        }
        (Ok(()), true) => tracing::info!("tokens are kept over a restart again"),
        _ => {}
    }
    written
}
