//! Keeps tokens over a restart, behind everybody's back: in batches, bounded, never delaying a swap.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use jeton_core::TokenKey;

use crate::{Hold, StoredToken, TokenStore, TokenWrite, slot::Slot};

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
}

impl Pending {
    fn write(self) -> Option<TokenWrite> {
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
                })))
            }
            Self::Remove(key) => Some(TokenWrite::Remove(key)),
            Self::Hold(hold) => Some(TokenWrite::Hold(hold)),
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
            let batch: Vec<_> = batch.drain(..).filter_map(Pending::write).collect();
            failing = write(&*store, batch, failing).await;
        } else if !more {
            return;
        }
    }
}

async fn write(store: &dyn TokenStore, batch: Vec<TokenWrite>, was_failing: bool) -> bool {
    let failure = match tokio::time::timeout(WRITE_TIMEOUT, store.write(batch)).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("no answer within 30 s".to_owned()),
    };
    match (&failure, was_failing) {
        (Some(error), false) => {
            tracing::warn!(%error, "tokens are not kept over a restart; serving goes on from memory")
        }
        (None, true) => tracing::info!("tokens are kept over a restart again"),
        _ => {}
    }
    failure.is_some()
}
