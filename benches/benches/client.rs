//! A warm token of the Rust client, beside the look-up that is in it, and beside the call that it spares.
#![allow(clippy::expect_used, missing_docs, reason = "a benchmark")]

use std::{collections::HashMap, hint::black_box, sync::Arc, time::Duration};

use benches::{AtOnce, Before, DAY, Peer, Size, TOKEN_BYTES, World, names, open_door};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use foldhash::fast::RandomState;
use jeton_client::Client;
use jeton_core::SystemClock;
use jeton_engine::EngineSettings;
use tokio::runtime::Builder;

/// As many as one stream watches.
const SIZE: Size = Size { slots: 1_000, scopes: 10, token_bytes: TOKEN_BYTES, lifetime: DAY };

fn warm(c: &mut Criterion) {
    let server = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (source, clock) = (Arc::new(AtOnce::new(SIZE)), Arc::new(SystemClock));
    let world = World::with(SIZE, EngineSettings::default(), source, Before::default(), clock, &server);
    let door = server.block_on(open_door(&world));
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let asked: Vec<_> = (0..SIZE.slots).map(|n| names(n * 997 % SIZE.slots, SIZE)).collect();
    let client = runtime.block_on(async {
        let client = Client::builder().endpoint(format!("http://{door}")).build().expect("a client");
        for (identity, scope) in &asked {
            client.token(identity, scope).await.expect("a token");
        }
        client
    });
    for keys in [1, SIZE.slots] {
        let mut group = c.benchmark_group(format!("client/a warm token, {keys} keys in turn"));
        group.throughput(Throughput::Elements(1));
        let asked = &asked[..keys];
        let mut next = (0..asked.len()).cycle();
        let mut turn = || &asked[next.next().expect("it has no end")];
        group.bench_function("client.token(identity, scope)", |b| {
            let client = &client;
            b.iter_custom(|count| {
                runtime.block_on(async move {
                    let start = std::time::Instant::now();
                    for (identity, scope) in asked.iter().cycle().take(count as usize) {
                        black_box(client.token(identity, scope).await.expect("it is warm"));
                    }
                    start.elapsed()
                })
            });
        });
        let keys = || asked.iter().map(|key| (key.clone(), Arc::new(0_u64)));
        let papaya: papaya::HashMap<_, _, RandomState> = keys().collect();
        group.bench_function("papaya alone", |b| b.iter(|| papaya.pin().get(turn()).cloned()));
        let map: HashMap<_, _, RandomState> = keys().collect();
        group.bench_function("HashMap alone", |b| b.iter(|| map.get(turn()).cloned()));
        let peer = runtime.block_on(Peer::connect(door));
        group.bench_function("GetToken over loopback", |b| {
            b.iter(|| runtime.block_on(peer.ask(&world.requests[0])));
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = warm
}
criterion_main!(benches);
