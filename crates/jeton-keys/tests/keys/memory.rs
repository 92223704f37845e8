//! Parsed keys: bounded, parsed once, and gone when they are discarded.

use std::sync::Arc;

use jeton_core::{Assertions, BoxFuture, KeyKind, SigningAlgorithm};
use jeton_keys::{Keys, KeysSettings};
use jeton_lifecycle::{
    IdentityStore, Recorded, Registry, SecretId, StoreError, Write, testing::MemoryIdentityStore,
};
use secrecy::SecretSlice;
use tokio::sync::Semaphore;

use crate::World;

#[tokio::test]
async fn a_key_is_parsed_once_for_all_its_signatures_also_where_others_were_there_first() {
    let world = World::with(KeysSettings { max_parsed_keys: 2, ..KeysSettings::default() });
    for credential in 1..=5 {
        let request = world.p256().await;
        for _ in 0..20 {
            world.keys.take(request.clone()).await.unwrap();
            let stats = world.keys.stats();
            assert!(stats.kept <= 2, "{stats:?}");
            assert_eq!(stats.parsed, credential, "{stats:?}");
        }
    }
}

/// Opens secrets only where a permit lets it.
#[derive(Clone)]
struct Gated {
    store: MemoryIdentityStore,
    gate: Arc<Semaphore>,
}

impl IdentityStore for Gated {
    fn load(&self) -> BoxFuture<'_, Result<Registry, StoreError>> {
        self.store.load()
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.commit(writes)
    }

    fn secret(&self, id: SecretId) -> BoxFuture<'_, Result<Option<SecretSlice<u8>>, StoreError>> {
        Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            self.store.secret(id).await
        })
    }

    fn recorded(&self, request_id: String) -> BoxFuture<'_, Result<Option<Recorded>, StoreError>> {
        self.store.recorded(request_id)
    }
}

#[tokio::test]
async fn a_key_that_is_discarded_while_it_is_opened_leaves_nothing_behind() {
    let world = World::new();
    let request = world.request(&world.credential(KeyKind::P256).await, SigningAlgorithm::Es256);
    let (store, gate) = (world.store.clone(), Arc::new(Semaphore::new(0)));
    let gated = Arc::new(Gated { store, gate: Arc::clone(&gate) });
    let keys = Keys::start(KeysSettings::default(), gated, Arc::new(world.clock.clone())).unwrap();
    let taking = {
        let (keys, request) = (keys.clone(), request.clone());
        tokio::spawn(async move { keys.take(request).await })
    };
    // It now waits at the gate: a current-thread runtime runs it until it cannot go on.
    tokio::task::yield_now().await;
    keys.discard(request.credential);
    gate.add_permits(2);
    taking.await.unwrap().unwrap();
    let stats = keys.stats();
    assert_eq!((stats.parsed, stats.kept, stats.presigned, stats.coming), (1, 0, 0, 0));
    keys.take(request).await.unwrap();
    assert_eq!((keys.stats().parsed, keys.stats().kept), (2, 1));
}
