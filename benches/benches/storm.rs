//! Hits in a refresh storm: 10,000 tokens are due within a minute, each is signed for, sealed and written, while callers are served. What the
//! slowest of a thousand hits take then, beside quiet times of the same run.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use benches::{Before, Material, Peer, ShiftedClock, Signing, Size, TOKEN_BYTES, World, open_door};
use hdrhistogram::Histogram;
use jeton_core::{Clock, KeyKind, SigningAlgorithm};
use jeton_engine::EngineSettings;
use jeton_keys::KeysSettings;
use jeton_store::{SealingKey, Store};
use tokio::{runtime::Runtime, time::MissedTickBehavior};

/// Due between 40 and 60 % of this: within a minute.
const SIZE: Size =
    Size { slots: 10_000, scopes: 1, token_bytes: TOKEN_BYTES, lifetime: Duration::from_secs(300) };
const FIRST_DUE: Duration = Duration::from_secs(120);
const MEASURED: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(120);
/// Requests are sent in small bursts: so many, so often.
const BURST: usize = 5;
const EVERY: Duration = Duration::from_millis(5);

fn main() {
    // Whoever asks for other benchmarks by name, or for tests, does not want this one.
    let names: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = names.is_empty() || names.iter().any(|name| "storm".contains(name.as_str()));
    if !wanted || !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (runtime, folder) = (Runtime::new().expect("a runtime"), tempfile::tempdir().expect("a folder"));
    let (clock, material) = (ShiftedClock::default(), runtime.block_on(Material::generate(KeyKind::Rsa2048)));
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let sealing = SealingKey::create(&folder.path().join("key")).expect("a key");
    let store = runtime.block_on(Store::open(folder.path(), sealing, Arc::clone(&shared))).expect("a store");
    let (algorithm, keys) = (SigningAlgorithm::Ps256, KeysSettings::default());
    let signing = runtime.block_on(Signing::new(SIZE, algorithm, &material, keys, Arc::clone(&shared)));
    let (source, kept) = (Arc::new(signing.clone()), Before::and_then(Arc::new(store.clone())));
    let world = World::with(SIZE, EngineSettings::default(), source, kept, shared, &runtime);
    world.pin_all();
    let world = Arc::new(world);
    let address = runtime.block_on(open_door(&world));
    let asked = || thread::scope(|scope| scope.spawn(|| hits(address, &world)).join().expect("no panic"));

    let before = asked();
    clock.forward(FIRST_DUE - Duration::from_secs(10));
    wait_until(|| signing.issued() > 0);
    let started = signing.issued();
    let storm = asked();
    let refreshed = signing.issued() - started;
    // The rest of them, so that it is quiet again.
    clock.forward(Duration::from_secs(60));
    wait_until(|| signing.issued() >= SIZE.slots && signing.keys.stats().coming == 0);
    let after = asked();
    println!("\nhits, microseconds      p50     p99   p99.9");
    for (name, hits) in [("quiet", &before), ("storm", &storm), ("quiet", &after)] {
        let at = |quantile| hits.value_at_quantile(quantile);
        println!("{name:<18} {:>8} {:>7} {:>7}", at(0.5), at(0.99), at(0.999));
    }
    let quiet = before.value_at_quantile(0.999).max(after.value_at_quantile(0.999));
    let ratio = storm.value_at_quantile(0.999) as f64 / quiet as f64;
    let per_second = refreshed as f64 / MEASURED.as_secs_f64();
    println!("p99.9 in a storm of {per_second:.0} refreshes a second: {ratio:.2} times that of quiet");
    assert_eq!(world.engine.stats().dropped_writes, 0, "the store follows");
    runtime.block_on(store.close());
}

fn wait_until(reached: impl Fn() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < PATIENCE, "it takes too long");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Asks at a constant rate, and does not wait for answers before it goes on. Microseconds.
fn hits(address: std::net::SocketAddr, world: &World) -> Histogram<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let taken = Arc::new(Mutex::new(Histogram::new(3).expect("a histogram")));
    runtime.block_on(async {
        let peer = Peer::connect(address).await;
        // What is remembered is there before anything is measured.
        for request in &world.requests {
            peer.ask(request).await;
        }
        let (start, mut next) = (Instant::now(), 0);
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut asked = tokio::task::JoinSet::new();
        while start.elapsed() < MEASURED {
            tick.tick().await;
            for _ in 0..BURST {
                next = (next + 7_919) % world.requests.len();
                let (peer, request, taken) = (peer.clone(), world.requests[next].clone(), Arc::clone(&taken));
                asked.spawn(async move {
                    let sent = Instant::now();
                    peer.ask(&request).await;
                    let micros = sent.elapsed().as_micros() as u64;
                    taken.lock().expect("nobody panics").record(micros).expect("it grows");
                });
            }
        }
        asked.join_all().await;
    });
    drop(runtime);
    taken.lock().expect("nobody panics").clone()
}
