//! A hit: decision and look-up, beside bare look-ups of the same keys in what a user would otherwise have. Ratios within one run; those
//! that are promised are of rounds that alternate.
#![allow(clippy::expect_used, missing_docs, reason = "a benchmark")]

mod contenders;

use std::{
    hint::black_box,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use benches::{AtOnce, Before, DAY, Size, World, asked_for, figures};
use contenders::{Contender, contenders};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jeton_core::SystemClock;
use jeton_engine::EngineSettings;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::runtime::Runtime;

/// Look-ups between two reads of the clock.
const LOOK_UPS: usize = 4_096;
/// Slots where promises are looked at.
const MANY: usize = 1_000_000;
/// Rounds of a promise, and look-ups in each: few, so that most rounds are over before something else wants the processor.
const ROUNDS: usize = 99;
const IN_ROUND: usize = 1 << 14;
/// Of the hot key, which is looked up much faster.
const HOT_IN_ROUND: u64 = 1 << 16;
/// Beside swaps, which take turns with other tasks.
const SWAP_ROUNDS: usize = 15;
const SWAP_IN_ROUND: u64 = 1 << 18;

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
    for slots in [1_000, MANY] {
        let size = Size { slots, scopes: 1_000, token_bytes: 0, lifetime: DAY };
        let source = AtOnce::new(size);
        let (settings, clock) = (EngineSettings::default(), Arc::new(SystemClock));
        let before = resident();
        let world = World::with(size, settings, Arc::new(source.clone()), Before::default(), clock, &runtime);
        let entry = (resident() - before) / slots;
        let all = contenders(&world);
        for (pattern, name) in Pattern::ALL {
            let order = pattern.order(slots);
            // What is remembered is there before anything is measured.
            for n in &order {
                black_box(world.hit(*n, world.clock.now()));
            }
            let group = format!("hit/{slots} slots, {name}");
            bench(c, &group, &all, |count, it| timed(count, &order, it, &world));
        }
        if slots == MANY {
            if asked_for("hit") {
                figures::ENTRY_COUNTED.keep(&[world.engine.stats().bytes as f64 / slots as f64]);
                figures::ENTRY_RESIDENT.keep(&[entry as f64]);
                promised(&all, &world);
            }
            let hot = Pattern::Hot.order(slots);
            let group = "hit/1000000 slots, one hot key, two threads, half of it each";
            bench(c, group, &all, |count, it| by_two(count, &hot, it, &world));
            swaps(c, &all, &world, &source, &runtime);
        }
    }
}

fn bench(
    c: &mut Criterion,
    group: &str,
    all: &[Contender<'_>],
    measure: impl Fn(u64, &Contender<'_>) -> Duration,
) {
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(1));
    for it in all {
        let id = BenchmarkId::from_parameter(it.name);
        group.bench_function(id, |b| b.iter_custom(|count| measure(count, it)));
    }
    group.finish();
}

/// Bytes of the process in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4_096
}

fn timed(count: u64, order: &[usize], it: &Contender<'_>, world: &World) -> Duration {
    let mut done = 0;
    let start = Instant::now();
    'all: loop {
        for some in order.chunks(LOOK_UPS) {
            let now = world.clock.now();
            for n in some {
                if done == count {
                    break 'all;
                }
                black_box((it.look_up)(*n, now));
                done += 1;
            }
        }
    }
    start.elapsed()
}

/// By two threads at once, half of it each.
fn by_two(count: u64, order: &[usize], it: &Contender<'_>, world: &World) -> Duration {
    let ready = Barrier::new(2);
    let half = |count| {
        ready.wait();
        let start = Instant::now();
        timed(count, order, it, world);
        (start, Instant::now())
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| half(count / 2));
        let (one, other) = (half(count - count / 2), other.join().expect("no panic"));
        one.1.max(other.1) - one.0.min(other.0)
    })
}

/// Jeton beside papaya, and beside itself.
fn promised(all: &[Contender<'_>], world: &World) {
    let (jeton, papaya) = (&all[0], &all[1]);
    for (figure, pattern) in [(figures::UNIFORM, Pattern::Uniform), (figures::SKEWED, Pattern::Skewed)] {
        let order = pattern.order(MANY);
        // Other keys in each round: those of the round before are in the processor's caches.
        let some = |round: usize| order.chunks(IN_ROUND).cycle().nth(round).unwrap_or(&order);
        let took = |it, round| timed(IN_ROUND as u64, some(round), it, world);
        figure.keep(&in_turn(ROUNDS, |round| took(jeton, round), |round| took(papaya, round)));
    }
    let hot = Pattern::Hot.order(MANY);
    let one = |_| timed(HOT_IN_ROUND, &hot, jeton, world);
    let each = |round| one(round).as_nanos() as f64 / HOT_IN_ROUND as f64;
    figures::HOT.keep(&(0..ROUNDS).map(each).collect::<Vec<_>>());
    figures::TWO_THREADS.keep(&in_turn(ROUNDS, one, |_| by_two(HOT_IN_ROUND, &hot, jeton, world)));
}

/// How many times as long the one takes as the other, in rounds that alternate: what else the machine does meets both.
fn in_turn(rounds: usize, one: impl Fn(usize) -> Duration, other: impl Fn(usize) -> Duration) -> Vec<f64> {
    (0..rounds).map(|round| one(round).as_secs_f64() / other(round).as_secs_f64()).collect()
}

/// While keys are looked up, one for each hundred look-ups is swapped; a token is by a refresh.
fn swaps(c: &mut Criterion, all: &[Contender<'_>], world: &World, source: &AtOnce, runtime: &Runtime) {
    let order = Pattern::Uniform.order(MANY);
    let (looked, next) = (AtomicU64::new(0), AtomicU64::new(0));
    let beside = |count, it: &Contender<'_>| {
        let stop = AtomicBool::new(false);
        looked.store(0, Relaxed);
        let counted = Contender {
            name: it.name,
            look_up: Box::new(|n, now| {
                if n.is_multiple_of(64) {
                    looked.fetch_add(64, Relaxed);
                }
                (it.look_up)(n, now)
            }),
            swap: Box::new(|_| {}),
        };
        thread::scope(|scope| {
            scope.spawn(|| swap(it, runtime, &looked, &stop, &next));
            let took = timed(count, &order, &counted, world);
            stop.store(true, Relaxed);
            took
        })
    };
    if asked_for("hit") {
        let (jeton, before) = (&all[0], source.issued());
        let alone = |_| timed(SWAP_IN_ROUND, &order, jeton, world);
        figures::SWAPS.keep(&in_turn(SWAP_ROUNDS, |_| beside(SWAP_IN_ROUND, jeton), alone));
        let (swapped, looked_up) = (source.issued() - before, SWAP_ROUNDS as u64 * SWAP_IN_ROUND);
        figures::SWAPPED.keep(&[100.0 * swapped as f64 / looked_up as f64]);
    }
    bench(c, "hit/1000000 slots, uniform, beside 1 % of swaps", all, beside);
}

/// Swaps the `next` keys.
fn swap(it: &Contender<'_>, runtime: &Runtime, looked: &AtomicU64, stop: &AtomicBool, next: &AtomicU64) {
    let (_inside, mut written) = (runtime.enter(), 0);
    while !stop.load(Relaxed) {
        while written * 100 < looked.load(Relaxed) && !stop.load(Relaxed) {
            // A prime, so that neighbours are far apart and every key has its turn.
            (it.swap)((next.fetch_add(1, Relaxed) * 7_919) as usize % MANY);
            written += 1;
        }
        thread::sleep(Duration::from_micros(200));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = lookups
}
criterion_main!(benches);
