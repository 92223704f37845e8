//! Refreshes: everything is due at the same moment, and an authority that answers at once gets an assertion for each token. Beside it,
//! signatures alone on as many threads.
#![allow(clippy::expect_used, clippy::print_stdout, missing_docs, reason = "a benchmark")]

use std::{
    hint::black_box,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PSS_SHA256, RsaKeyPair},
};
use benches::{
    AtOnce, Before, Material, ShiftedClock, Signing, Size, TOKEN_BYTES, World, asked_for, figures,
};
use criterion::{Criterion, Throughput, criterion_group};
use jeton_core::{Clock, KeyKind, SigningAlgorithm};
use jeton_engine::EngineSettings;
use jeton_keys::KeysSettings;
use tokio::runtime::Runtime;

/// Every token is past its refresh after this part of its life, and lives.
const LIFETIME: Duration = Duration::from_secs(3_600);
const DUE: Duration = Duration::from_secs(2_400);
const PATIENCE: Duration = Duration::from_secs(60);
/// Of refreshes and of signatures alone, in turn; odd, for the median.
const ROUNDS: usize = 9;

fn size(slots: usize) -> Size {
    Size { slots, scopes: 1, token_bytes: TOKEN_BYTES, lifetime: LIFETIME }
}

/// The tick is short, so that what is measured is work and not the wait for it.
fn settings() -> EngineSettings {
    EngineSettings { tick_ms: 10, max_pending_writes: 100_000, ..EngineSettings::default() }
}

fn refreshes(c: &mut Criterion) {
    unsigned(c);
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
                    thread::sleep(Duration::from_micros(200));
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

/// The rate of refreshes beside that of signatures alone, in turn, so that what else the machine does meets both. Both have as many keys.
fn beside_signatures(
    algorithm: SigningAlgorithm,
    kind: KeyKind,
    slots: usize,
    threads: usize,
) -> [f64; ROUNDS] {
    let (runtime, size) = (Runtime::new().expect("a runtime"), size(slots));
    let (clock, material) = (ShiftedClock::default(), runtime.block_on(Material::generate(kind)));
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let keys = KeysSettings { signing_threads: threads, max_queued: 100_000, ..KeysSettings::default() };
    let signing = runtime.block_on(Signing::new(size, algorithm, &material, keys, Arc::clone(&shared)));
    let source = Arc::new(signing.clone());
    let world = World::with(size, settings(), source, Before::default(), shared, &runtime);
    world.pin_all();
    let refreshed = || {
        let ended = signing.round(slots);
        clock.forward(DUE);
        let took = ended.recv_timeout(PATIENCE).expect("every token is refreshed");
        quiet(&signing);
        took
    };
    let alone = alone(algorithm, &material, slots);
    let signed = || on_threads(threads, slots, &*alone);
    // The first signature of each key opens and parses it.
    let _ = (refreshed(), signed());
    let rounds: [_; ROUNDS] = std::array::from_fn(|_| (refreshed().as_secs_f64(), signed().as_secs_f64()));
    let each = |rounds| median(rounds) / slots as f64 * 1e6;
    let (engine, alone) = (each(rounds.map(|(engine, _)| engine)), each(rounds.map(|(_, alone)| alone)));
    let ratios = rounds.map(|(engine, alone)| alone / engine);
    println!(
        "a refresh with {}, signing threads: {threads}: {engine:.1} us; a signature of aws-lc-rs alone {alone:.1} us; rate beside it {:.2}",
        algorithm.as_str(),
        median(ratios),
    );
    ratios
}

fn median(mut of: [f64; ROUNDS]) -> f64 {
    of.sort_by(f64::total_cmp);
    of[ROUNDS / 2]
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
        thread::sleep(Duration::from_millis(1));
    }
}

/// What signs with the `n`th of so many keys.
fn alone(algorithm: SigningAlgorithm, material: &Material, keys: usize) -> Box<dyn Fn(usize) + Sync> {
    let (random, message) = (SystemRandom::new(), [7_u8; 600]);
    let parsed = material.pkcs8().cycle().take(keys);
    if algorithm == SigningAlgorithm::Es256 {
        let ec = |der| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).expect("a key");
        let keys: Vec<_> = parsed.map(ec).collect();
        return Box::new(move |n| {
            black_box(keys[n].sign(&random, &message).expect("signed"));
        });
    }
    let keys: Vec<_> = parsed.map(|der| RsaKeyPair::from_pkcs8(der).expect("a key")).collect();
    Box::new(move |n| {
        let mut signature = vec![0; keys[n].public_modulus_len()];
        keys[n].sign(&RSA_PSS_SHA256, &random, &message, &mut signature).expect("signed");
        black_box(signature);
    })
}

/// Each thread takes the next, from the moment at which all are ready: a new thread's first signature waits for the seed of its random
/// generator.
fn on_threads(threads: usize, all: usize, work: &(dyn Fn(usize) + Sync)) -> Duration {
    let (ready, next) = (Barrier::new(threads), AtomicUsize::new(0));
    let run = || {
        work(0);
        ready.wait();
        let start = Instant::now();
        loop {
            match next.fetch_add(1, Relaxed) {
                n if n < all => work(n),
                _ => return start.elapsed(),
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).max().unwrap_or_default()
    })
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = refreshes
}

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    if !asked_for("refresh") {
        return;
    }
    for (threads, figure) in [(1, figures::REFRESH_ONE), (2, figures::REFRESH_TWO)] {
        figure.keep(&beside_signatures(SigningAlgorithm::Ps256, KeyKind::Rsa2048, 4_096, threads));
    }
    // A signature on a curve is cheaper than what else a refresh does.
    for threads in [1, 2] {
        beside_signatures(SigningAlgorithm::Es256, KeyKind::P256, 16_384, threads);
    }
}
