//! What it costs to keep a token over a restart: sealed and written in a batch, beside the cipher alone.
#![allow(clippy::expect_used, missing_docs, reason = "a benchmark")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    rand::fill,
};
use benches::{DAY, Size, TOKEN_BYTES, token};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jeton_core::{Clock, SystemClock};
use jeton_engine::{StoredToken, TokenStore, TokenWrite, testing::key};
use jeton_store::{SealingKey, Store};
use tokio::runtime::Runtime;

/// As many as the engine writes at once.
const BATCH: usize = 512;
const SIZE: Size = Size { slots: BATCH, scopes: 1, token_bytes: TOKEN_BYTES, lifetime: DAY };

fn sealing(c: &mut Criterion) {
    let (runtime, folder) = (Runtime::new().expect("a runtime"), tempfile::tempdir().expect("a folder"));
    let sealing = SealingKey::create(&folder.path().join("key")).expect("a key");
    let store =
        runtime.block_on(Store::open(folder.path(), sealing, Arc::new(SystemClock))).expect("a store");
    let mut group = c.benchmark_group("sealing/a token of 1600 bytes");
    group.throughput(Throughput::Elements(1));
    group.bench_function("sealed and written", |b| {
        b.iter_custom(|count| {
            let batches = count.div_ceil(BATCH as u64);
            let took: Duration = (0..batches).map(|_| written(&store, &runtime)).sum();
            took.mul_f64(count as f64 / (batches * BATCH as u64) as f64)
        });
    });
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes"));
    group.bench_function("AES-256-GCM alone", |b| {
        b.iter(|| {
            let (mut nonce, mut bytes) = ([0; 12], vec![7; TOKEN_BYTES]);
            fill(&mut nonce).expect("random");
            let nonce = Nonce::assume_unique_for_key(nonce);
            key.seal_in_place_append_tag(nonce, Aad::from([7; 200]), &mut bytes).expect("sealed");
            black_box(bytes)
        });
    });
    group.finish();
    runtime.block_on(store.close());
}

fn written(store: &Store, runtime: &Runtime) -> Duration {
    let now = SystemClock.now().wall;
    let put = |n| {
        let key = key(n, "a");
        let token = token(&key, n, SIZE);
        let stored = StoredToken {
            key,
            token,
            issued_at: now,
            refresh_at: now + DAY / 2,
            last_used: now,
            earlier_until: None,
        };
        TokenWrite::Put(Box::new(stored))
    };
    let batch = (0..BATCH as u64).map(put).collect();
    let start = Instant::now();
    runtime.block_on(store.write(batch)).expect("written");
    start.elapsed()
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    targets = sealing
}
criterion_main!(benches);
