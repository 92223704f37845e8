//! Hits in a refresh storm: 10,000 tokens are due within a minute, each is signed for, sealed and written, while callers are served. What the
//! slowest of a thousand hits take then, beside quiet times before and after; several times.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use benches::{
    Before, Material, Peer, ShiftedClock, Signing, Size, TOKEN_BYTES, World, asked_for, figures, open_door,
};
use hdrhistogram::Histogram;
use jeton_core::{Clock, KeyKind, SigningAlgorithm};
use jeton_engine::EngineSettings;
use jeton_keys::KeysSettings;
use jeton_store::{SealingKey, Store};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::JoinSet,
};

/// Due between 40 and 60 % of this: within a minute.
const SIZE: Size =
    Size { slots: 10_000, scopes: 1, token_bytes: TOKEN_BYTES, lifetime: Duration::from_secs(300) };
const FIRST_DUE: Duration = Duration::from_secs(120);
const LAST_DUE: Duration = Duration::from_secs(180);
/// So long before the first is due assertions are signed ahead.
const AHEAD: Duration = Duration::from_secs(10);
/// Storms, each between two quiet times.
const ROUNDS: usize = 5;
const MEASURED: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(120);
/// Requests are sent in small bursts: so many, so often.
const BURST: usize = 5;
const EVERY: Duration = Duration::from_millis(5);

fn main() {
    if !asked_for("storm") {
        return;
    }
    let (runtime, folder) = (Runtime::new().expect("a runtime"), tempfile::tempdir().expect("a folder"));
    let (clock, material) = (ShiftedClock::default(), runtime.block_on(Material::generate(KeyKind::Rsa2048)));
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let mut issued_at = clock.now().mono;
    let sealing = SealingKey::create(&folder.path().join("key")).expect("a key");
    let store = runtime.block_on(Store::open(folder.path(), sealing, Arc::clone(&shared))).expect("a store");
    let (algorithm, keys) = (SigningAlgorithm::Ps256, KeysSettings::default());
    let signing = runtime.block_on(Signing::new(SIZE, algorithm, &material, keys, Arc::clone(&shared)));
    let (source, kept) = (Arc::new(signing.clone()), Before::and_then(Arc::new(store.clone())));
    let world = World::with(SIZE, EngineSettings::default(), source, kept, shared, &runtime);
    world.pin_all();
    let address = runtime.block_on(open_door(&world));

    println!("\nhits, microseconds      p50     p99   p99.9   refreshes a second");
    let mut before = told("quiet", &hits(address, &world), 0.0);
    let mut ratios = vec![];
    for _ in 0..ROUNDS {
        let (quiet, age) = (signing.issued(), clock.now().mono.saturating_since(issued_at));
        clock.forward((FIRST_DUE - AHEAD).saturating_sub(age));
        wait_until(|| signing.issued() > quiet);
        let (begin, first, dropped) = (Instant::now(), signing.issued(), world.engine.stats().dropped_writes);
        let in_storm = hits(address, &world);
        let per_second = (signing.issued() - first) as f64 / begin.elapsed().as_secs_f64();
        let storm = told("storm", &in_storm, per_second);
        assert_eq!(world.engine.stats().dropped_writes, dropped, "the store follows");
        // All of them at once, so that it is quiet again and the next storm is like this one.
        let refreshed = signing.issued();
        clock.forward(LAST_DUE);
        issued_at = clock.now().mono;
        wait_until(|| signing.issued() >= refreshed + SIZE.slots && signing.keys.stats().coming == 0);
        let after = told("quiet", &hits(address, &world), 0.0);
        ratios.push(2.0 * storm / (before + after));
        before = after;
    }
    figures::STORM.keep(&ratios);
    runtime.block_on(store.close());
}

/// Prints a line; the 99.9th percentile.
fn told(name: &str, hits: &Histogram<u64>, per_second: f64) -> f64 {
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| hits.value_at_quantile(quantile));
    println!("{name:<18} {p50:>8} {p99:>7} {p999:>7} {per_second:>20.0}");
    p999 as f64
}

fn wait_until(reached: impl Fn() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < PATIENCE, "it takes too long");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Asks at a constant rate, and does not wait for answers before it goes on. Microseconds from the moment at which each was to be sent.
fn hits(address: SocketAddr, world: &World) -> Histogram<u64> {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let taken = Arc::new(Mutex::new(Histogram::new(3).expect("a histogram")));
    let peer = runtime.block_on(async {
        let peer = Peer::connect(address).await;
        // What is remembered is there before anything is measured.
        for request in &world.requests {
            peer.ask(request).await;
        }
        peer
    });
    let (burst, mut bursts) = mpsc::unbounded_channel();
    // A thread sleeps more exactly than the runtime's timers, which know milliseconds.
    let pace = thread::spawn(move || {
        let start = Instant::now();
        for n in 0..(MEASURED.as_micros() / EVERY.as_micros()) as u32 {
            let intended = start + EVERY * n;
            thread::sleep(intended.saturating_duration_since(Instant::now()));
            burst.send(intended).expect("it is awaited");
        }
    });
    runtime.block_on(async {
        let (mut next, mut asked) = (0, JoinSet::new());
        while let Some(intended) = bursts.recv().await {
            for _ in 0..BURST {
                next = (next + 7_919) % world.requests.len();
                let (peer, request, taken) = (peer.clone(), world.requests[next].clone(), Arc::clone(&taken));
                asked.spawn(async move {
                    peer.ask(&request).await;
                    let micros = intended.elapsed().as_micros() as u64;
                    taken.lock().expect("nobody panics").record(micros).expect("it grows");
                });
            }
        }
        asked.join_all().await;
    });
    pace.join().expect("no panic");
    drop(runtime);
    taken.lock().expect("nobody panics").clone()
}
