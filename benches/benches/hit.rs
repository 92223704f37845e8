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

use benches::{AtOnce, Before, DAY, Size, World};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jeton_core::{SystemClock, TokenKey};
use jeton_engine::EngineSettings;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::runtime::Runtime;

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
    let runtime = Runtime::new().expect("a runtime");
    for slots in [1_000, 1_000_000] {
        let size = Size { slots, scopes: 1_000, token_bytes: 0, lifetime: DAY };
        let source = AtOnce::new(size);
        let (settings, clock) = (EngineSettings::default(), Arc::new(SystemClock));
        let before = resident();
        let world = World::with(size, settings, Arc::new(source.clone()), Before::default(), clock, &runtime);
        let entry = (resident() - before) / slots;
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
            group.throughput(Throughput::Elements(1));
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
            // With the request and the key that the benchmark keeps of each, and with a token that is short.
            eprintln!(
                "bytes of an entry, by the engine's count: {}; of the process: {}",
                world.engine.stats().bytes / slots as u64,
                entry
            );
            two_threads(c, &world);
            writes(c, &world, &source, &runtime);
        }
    }
}

/// Bytes of the process in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4_096
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

/// Two threads on one hot key do more than one.
fn two_threads(c: &mut Criterion, world: &World) {
    let hot = Pattern::Hot.order(1);
    let look_up = |count| timed(count, &hot, |n, now| world.hit(n, now), world);
    let mut group = c.benchmark_group("hit/1000000 slots, one hot key, threads");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one thread", |b| b.iter_custom(look_up));
    group.bench_function("two threads, half of it each", |b| {
        b.iter_custom(|count| {
            std::thread::scope(|scope| {
                let other = scope.spawn(|| look_up(count / 2));
                look_up(count - count / 2).max(other.join().expect("no panic"))
            })
        });
    });
    group.finish();
}

/// While tokens are looked up, one for each hundred look-ups is refreshed and swapped.
fn writes(c: &mut Criterion, world: &World, source: &AtOnce, runtime: &Runtime) {
    let uniform = Pattern::Uniform.order(world.keys.len());
    let (looked, next, mut swapped) = (AtomicU64::new(0), AtomicU64::new(0), (0, 0));
    let counted = |n: usize, now| {
        if n.is_multiple_of(64) {
            looked.fetch_add(64, Relaxed);
        }
        world.hit(n, now)
    };
    let mut group = c.benchmark_group("hit/1000000 slots, uniform, writes");
    group.throughput(Throughput::Elements(1));
    group.bench_function("beside 1 % of swaps", |b| {
        b.iter_custom(|count| {
            let (stop, before) = (AtomicBool::new(false), source.issued());
            looked.store(0, Relaxed);
            std::thread::scope(|scope| {
                scope.spawn(|| swap(world, runtime, &looked, &stop, &next));
                let took = timed(count, &uniform, counted, world);
                stop.store(true, Relaxed);
                swapped = (swapped.0 + source.issued() - before, swapped.1 + count);
                took
            })
        });
    });
    eprintln!("swaps for each hundred look-ups: {:.2}", 100.0 * swapped.0 as f64 / swapped.1 as f64);
    group.bench_function("alone", |b| b.iter_custom(|count| timed(count, &uniform, counted, world)));
    group.finish();
}

/// Forces refreshes, each of another key, from the `next` key on.
fn swap(world: &World, runtime: &Runtime, looked: &AtomicU64, stop: &AtomicBool, next: &AtomicU64) {
    let (_inside, mut written) = (runtime.enter(), 0);
    while !stop.load(Relaxed) {
        while written * 100 < looked.load(Relaxed) && !stop.load(Relaxed) {
            // A prime, so that neighbours are far apart and every key has its turn.
            let key = &world.keys[(next.fetch_add(1, Relaxed) * 7_919) as usize % world.keys.len()];
            world
                .engine
                .report_rejected(key, world.principal.clone(), |_| true)
                .expect("the budget bounds nothing");
            written += 1;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = lookups
}
criterion_main!(benches);
