//! Sealing stays off the threads that serve.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use jeton_access::AccessStore;
use jeton_core::Wall;
use jeton_engine::{
    StoredToken, TokenStore, TokenWrite,
    testing::{issued, key},
};
use tokio::{runtime, task::spawn_blocking, time::timeout};

use crate::open;

fn put(n: u64) -> TokenWrite {
    let (key, at) = (key(n, "a"), Wall::from_secs(1_767_225_600));
    let token = issued(&key, 1, Duration::from_secs(3_600));
    TokenWrite::Put(Box::new(StoredToken {
        key,
        token,
        issued_at: at,
        refresh_at: at,
        last_used: at,
        earlier_until: None,
    }))
}

/// Whoever seals where it serves needs no thread for blocking work, and so would be done long before the other commits.
#[test]
fn tokens_are_sealed_on_the_threads_for_blocking_work() {
    let folder = tempfile::tempdir().unwrap();
    let runtime =
        runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(open(folder.path()).await);
        let (release, held) = mpsc::channel::<()>();
        let only = spawn_blocking(move || held.recv());
        let writing = tokio::spawn({
            let store = Arc::clone(&store);
            async move { TokenStore::write(&*store, vec![put(1)]).await }
        });
        for _ in 0..100 {
            AccessStore::commit(&*store, vec![]).await.unwrap();
        }
        assert!(!writing.is_finished());
        release.send(()).unwrap();
        only.await.unwrap().unwrap();
        writing.await.unwrap().unwrap();
        store.close().await;
    });
}

#[test]
fn what_is_written_after_a_write_that_was_given_up_opens_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let runtime =
        runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let store = open(folder.path()).await;
        // The first write of a day stalls when it has made its key, and the engine does not wait for ever.
        let (release, held) = mpsc::channel::<()>();
        let only = spawn_blocking(move || held.recv());
        let given_up = timeout(Duration::from_secs(1), TokenStore::write(&store, vec![put(1)])).await;
        assert!(given_up.is_err());
        release.send(()).unwrap();
        only.await.unwrap().unwrap();
        TokenStore::write(&store, vec![put(2)]).await.unwrap();
        store.close().await;
        let kept = TokenStore::load(&open(folder.path()).await).await.unwrap();
        assert_eq!((kept.tokens.len(), kept.unreadable), (1, 0));
    });
}
