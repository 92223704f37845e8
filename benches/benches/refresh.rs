//! Refreshes: everything is due at the same moment, and an authority that answers at once gets an assertion for each token. Beside it,
//! signatures alone on as many threads.
#![allow(clippy::expect_used, missing_docs, reason = "a benchmark")]

use std::{
    hint::black_box,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PSS_SHA256, RsaKeyPair},
};
use benches::{AtOnce, Before, Material, ShiftedClock, Signing, Size, TOKEN_BYTES, World};
use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use jeton_core::{Clock, KeyKind, SigningAlgorithm};
use jeton_engine::EngineSettings;
use jeton_keys::KeysSettings;
use tokio::runtime::Runtime;

/// Every token is past its refresh after this part of its life, and lives.
const LIFETIME: Duration = Duration::from_secs(3_600);
const DUE: Duration = Duration::from_secs(2_400);
const PATIENCE: Duration = Duration::from_secs(60);

fn size(slots: usize) -> Size {
    Size { slots, scopes: 1, token_bytes: TOKEN_BYTES, lifetime: LIFETIME }
}

/// The tick is short, so that what is measured is work and not the wait for it.
fn settings() -> EngineSettings {
    EngineSettings { tick_ms: 10, max_pending_writes: 100_000, ..EngineSettings::default() }
}

fn refreshes(c: &mut Criterion) {
    unsigned(c);
    let runtime = Runtime::new().expect("a runtime");
    for (algorithm, kind, slots) in
        [(SigningAlgorithm::Ps256, KeyKind::Rsa2048, 4_096), (SigningAlgorithm::Es256, KeyKind::P256, 16_384)]
    {
        let material = runtime.block_on(Material::generate(kind));
        for threads in [1, 2] {
            let name = format!("refresh/{}, signing threads: {threads}", algorithm.as_str());
            let mut group = c.benchmark_group(name);
            group.throughput(Throughput::Elements(1));
            signed(&mut group, algorithm, &material, slots, threads);
            group.bench_function("aws-lc-rs alone", |b| {
                b.iter_custom(|count| alone(count, algorithm, &material, threads));
            });
            group.finish();
        }
    }
}

/// What the engine does for a refresh, without a signature.
fn unsigned(c: &mut Criterion) {
    let (runtime, size, clock) = (Runtime::new().expect("a runtime"), size(16_384), ShiftedClock::default());
    let source = AtOnce::new(size);
    let (shared, kept) = (Arc::new(source.clone()), Before::default());
    let world = World::with(size, settings(), shared, kept, Arc::new(clock.clone()), &runtime);
    world.pin_all();
    let mut group = c.benchmark_group("refresh/no signature");
    group.throughput(Throughput::Elements(1));
    group.bench_function("engine", |b| {
        b.iter_custom(|count| {
            in_rounds(count, size.slots, || {
                let wanted = source.issued() + size.slots as u64;
                let start = Instant::now();
                clock.forward(DUE);
                while source.issued() < wanted {
                    assert!(start.elapsed() < PATIENCE, "{} of {wanted}", source.issued());
                    std::thread::sleep(Duration::from_micros(200));
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

fn signed(
    group: &mut BenchmarkGroup<'_, WallTime>,
    algorithm: SigningAlgorithm,
    material: &Material,
    slots: usize,
    threads: usize,
) {
    let (runtime, size) = (Runtime::new().expect("a runtime"), size(slots));
    let clock = ShiftedClock::default();
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let keys = KeysSettings { signing_threads: threads, max_queued: 100_000, ..KeysSettings::default() };
    let signing = runtime.block_on(Signing::new(size, algorithm, material, keys, Arc::clone(&shared)));
    let source = Arc::new(signing.clone());
    let world = World::with(size, settings(), source, Before::default(), shared, &runtime);
    world.pin_all();
    let round = || {
        let ended = signing.round(slots);
        clock.forward(DUE);
        let took = ended.recv_timeout(PATIENCE).expect("every token is refreshed");
        quiet(&signing);
        took
    };
    // The first signature of each key opens and parses it.
    round();
    group.bench_function("refresh engine", |b| b.iter_custom(|count| in_rounds(count, slots, round)));
}

/// The time of so many, of whole rounds.
fn in_rounds(count: u64, each: usize, round: impl Fn() -> Duration) -> Duration {
    let rounds = count.div_ceil(each as u64);
    let took: Duration = (0..rounds).map(|_| round()).sum();
    took.mul_f64(count as f64 / (rounds * each as u64) as f64)
}

/// What is signed in reserve after a round belongs to none.
fn quiet(signing: &Signing) {
    let deadline = Instant::now() + PATIENCE;
    while signing.keys.stats().coming > 0 {
        assert!(Instant::now() < deadline, "{:?}", signing.keys.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn alone(count: u64, algorithm: SigningAlgorithm, material: &Material, threads: usize) -> Duration {
    let rsa = || material.pkcs8().map(|der| RsaKeyPair::from_pkcs8(der).expect("a key")).collect::<Vec<_>>();
    let ec = |der| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).expect("a key");
    let (random, message) = (SystemRandom::new(), [7_u8; 600]);
    let each = count.div_ceil(threads as u64) as usize;
    let took = if algorithm == SigningAlgorithm::Es256 {
        let keys: Vec<_> = material.pkcs8().map(ec).collect();
        on_threads(threads, each, |n| {
            black_box(keys[n % keys.len()].sign(&random, &message).expect("signed"));
        })
    } else {
        let keys = rsa();
        on_threads(threads, each, |n| {
            let mut signature = vec![0; keys[0].public_modulus_len()];
            keys[n % keys.len()].sign(&RSA_PSS_SHA256, &random, &message, &mut signature).expect("signed");
            black_box(signature);
        })
    };
    took.mul_f64(count as f64 / (each * threads) as f64)
}

/// From the moment at which all are ready: a new thread's first signature waits for the seed of its random generator.
fn on_threads(threads: usize, each: usize, work: impl Fn(usize) + Sync) -> Duration {
    let ready = Barrier::new(threads);
    let run = |thread| {
        // Each begins elsewhere: a key that two threads use at once makes them wait for each other.
        let first = 5 * thread;
        work(first);
        ready.wait();
        let start = Instant::now();
        (first..first + each).for_each(&work);
        start.elapsed()
    };
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).max().unwrap_or_default()
    })
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = refreshes
}
criterion_main!(benches);
