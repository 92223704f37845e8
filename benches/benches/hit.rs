//! A hit: decision and look-up, beside bare look-ups of the same keys in what a user would otherwise have. Ratios within one run.
#![allow(clippy::expect_used, clippy::print_stderr, missing_docs, reason = "a benchmark")]

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use benches::World;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use jeton_core::TokenKey;
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Look-ups between two reads of the clock.
const ROUND: usize = 4_096;

/// Which keys are asked for.
#[derive(Clone, Copy)]
enum Pattern {
    Hot,
    Uniform,
    Skewed,
}

impl Pattern {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Hot, "one hot key"), (Self::Uniform, "uniform"), (Self::Skewed, "skewed")];

    fn order(self, keys: usize) -> Vec<usize> {
        let mut rng = SmallRng::seed_from_u64(7);
        let draw = |_| match self {
            Self::Hot => 0,
            Self::Uniform => rng.random_range(0..keys),
            // Most of it goes to few: the square root of the rank's share.
            Self::Skewed => ((keys as f64) * rng.random::<f64>().powi(4)) as usize % keys,
        };
        (0..1 << 18).map(draw).collect()
    }
}

fn lookups(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for slots in [1_000, 1_000_000] {
        let world = World::new(slots, &runtime);
        let value = Arc::new(1_u64);
        let papaya: papaya::HashMap<TokenKey, Arc<u64>> =
            world.keys.iter().map(|key| (key.clone(), Arc::new(1))).collect();
        let locked: RwLock<HashMap<TokenKey, Arc<u64>>> =
            RwLock::new(world.keys.iter().map(|key| (key.clone(), Arc::new(1))).collect());
        let moka = moka::sync::Cache::new(2 * slots as u64);
        world.keys.iter().for_each(|key| moka.insert(key.clone(), Arc::clone(&value)));
        let dashmap: dashmap::DashMap<TokenKey, Arc<u64>> =
            world.keys.iter().map(|key| (key.clone(), Arc::new(1))).collect();
        for (pattern, name) in Pattern::ALL {
            let order = pattern.order(slots);
            // What is remembered is there before anything is measured.
            for n in &order {
                black_box(world.hit(*n, world.clock.now()));
            }
            let mut group = c.benchmark_group(format!("hit/{slots} slots, {name}"));
            group.throughput(criterion::Throughput::Elements(1));
            let mut bench = |id: &str, look_up: &dyn Fn(usize, jeton_core::Now) -> usize| {
                group.bench_function(BenchmarkId::from_parameter(id), |b| {
                    b.iter_custom(|count| timed(count, &order, look_up, &world));
                });
            };
            bench("jeton: decide and look up", &|n, now| world.hit(n, now));
            bench("papaya alone", &|n, _| papaya.pin().get(&world.keys[n]).map_or(0, |v| **v as usize));
            bench("RwLock<HashMap>", &|n, _| {
                locked.read().expect("no panic").get(&world.keys[n]).map_or(0, |v| **v as usize)
            });
            bench("moka", &|n, _| moka.get(&world.keys[n]).map_or(0, |v| *v as usize));
            bench("DashMap", &|n, _| dashmap.get(&world.keys[n]).map_or(0, |v| **v as usize));
            group.finish();
        }
        if slots == 1_000_000 {
            eprintln!(
                "bytes per entry, by the engine's count: {}",
                world.engine.stats().bytes / slots as u64
            );
            concurrent(c, &world);
        }
    }
}

fn timed(
    count: u64,
    order: &[usize],
    look_up: impl Fn(usize, jeton_core::Now) -> usize,
    world: &World,
) -> Duration {
    let mut done = 0;
    let start = Instant::now();
    'all: loop {
        for round in order.chunks(ROUND) {
            let now = world.clock.now();
            for n in round {
                if done == count {
                    break 'all;
                }
                black_box(look_up(*n, now));
                done += 1;
            }
        }
    }
    start.elapsed()
}

/// Two threads on one hot key, and readers beside a writer that writes to one slot and to the queue for each hundred look-ups.
fn concurrent(c: &mut Criterion, world: &World) {
    let mut group = c.benchmark_group("hit/concurrent");
    let hot = Pattern::Hot.order(1);
    let uniform = Pattern::Uniform.order(world.keys.len());
    group.bench_function("one thread, one hot key", |b| {
        b.iter_custom(|count| timed(count, &hot, |n, now| world.hit(n, now), world));
    });
    group.bench_function("two threads, one hot key, each", |b| {
        b.iter_custom(|count| {
            std::thread::scope(|scope| {
                let other = scope.spawn(|| timed(count, &hot, |n, now| world.hit(n, now), world));
                let own = timed(count, &hot, |n, now| world.hit(n, now), world);
                own.max(other.join().expect("no panic"))
            })
        });
    });
    group.bench_function("uniform, beside 1 % of writes (pins)", |b| {
        b.iter_custom(|count| {
            let (stop, looked) = (AtomicBool::new(false), AtomicU64::new(0));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut written, mut rng) = (0, SmallRng::seed_from_u64(3));
                    while !stop.load(Relaxed) {
                        if written * 100 < looked.load(Relaxed) {
                            let key = &world.keys[rng.random_range(0..world.keys.len())];
                            world
                                .engine
                                .pin(key, &world.principal, jeton_core::Wall::default())
                                .expect("it is there");
                            written += 1;
                        } else {
                            std::hint::spin_loop();
                        }
                    }
                });
                let took = timed(
                    count,
                    &uniform,
                    |n, now| {
                        if n.is_multiple_of(64) {
                            looked.fetch_add(64, Relaxed);
                        }
                        world.hit(n, now)
                    },
                    world,
                );
                stop.store(true, Relaxed);
                took
            })
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = lookups
}
criterion_main!(benches);
