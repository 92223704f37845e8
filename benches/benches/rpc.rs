//! One GetToken over a loopback connection, client and server in one process, beside stock tonic with a moka cache.
#![allow(clippy::expect_used, missing_docs, reason = "a benchmark")]

use std::{hint::black_box, net::SocketAddr, sync::Arc, time::Duration};

use benches::{AtOnce, Before, DAY, Peer, Size, TOKEN_BYTES, World, open_door, open_stock};
use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use futures_util::future::join_all;
use jeton_core::SystemClock;
use jeton_engine::EngineSettings;
use tokio::runtime::{Builder, Runtime};

const SIZE: Size = Size { slots: 10_000, scopes: 10, token_bytes: TOKEN_BYTES, lifetime: DAY };

fn rpcs(c: &mut Criterion) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (source, clock) = (Arc::new(AtOnce::new(SIZE)), Arc::new(SystemClock));
    let world = World::with(SIZE, EngineSettings::default(), source, Before::default(), clock, &runtime);
    let world = Arc::new(world);
    let door = runtime.block_on(open_door(&world));
    let stock = runtime.block_on(open_stock(SIZE));
    let client = Builder::new_current_thread().enable_all().build().expect("a runtime");
    for together in [1, 64] {
        let mut group = c.benchmark_group(format!("rpc/GetToken, {together} under way"));
        group.throughput(Throughput::Elements(1));
        bench(&mut group, "jeton", door, &world, &client, together);
        bench(&mut group, "stock tonic with moka", stock, &world, &client, together);
        group.finish();
    }
}

fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    address: SocketAddr,
    world: &World,
    client: &Runtime,
    together: usize,
) {
    let peer = client.block_on(Peer::connect(address));
    let length = client.block_on(peer.ask(&world.requests[0]));
    assert!(length > TOKEN_BYTES, "{length} bytes");
    group.bench_function(name, |b| {
        b.iter_custom(|count| {
            let start = std::time::Instant::now();
            client.block_on(async {
                let each = count.div_ceil(together as u64);
                let asking = |first: usize| {
                    let peer = peer.clone();
                    async move {
                        for n in 0..each as usize {
                            let request = &world.requests[(first * 997 + n) % world.requests.len()];
                            black_box(peer.ask(request).await);
                        }
                    }
                };
                join_all((0..together).map(asking)).await;
            });
            start.elapsed().mul_f64(count as f64 / (count.div_ceil(together as u64) * together as u64) as f64)
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = rpcs
}
criterion_main!(benches);
