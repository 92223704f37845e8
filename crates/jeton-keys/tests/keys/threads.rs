//! Signatures stay off the threads that serve.

use std::{
    fs,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{RSA_PSS_SHA256, RsaKeyPair},
};
use jeton_core::{Assertions, KeyKind, SigningAlgorithm};
use jeton_keys::KeysSettings;

use crate::World;

const SIGNATURES: usize = 100;

/// What this thread has had of a processor, in nanoseconds.
fn own_time() -> u64 {
    let times = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split(' ').next().unwrap().parse().unwrap()
}

/// Places in a thread's stat (proc(5)) behind its name.
const NICE: usize = 16;
const POLICY: usize = 38;
const SCHED_IDLE: i32 = 5;
const PATIENCE: Duration = Duration::from_secs(20);

/// One of them; the name may hold anything.
fn field(stat: &str, n: usize) -> i32 {
    let rest = stat.rsplit(')').next().unwrap();
    rest.split_whitespace().nth(n).unwrap().parse().unwrap()
}

#[tokio::test]
async fn whoever_asks_for_signatures_does_not_make_them() {
    // No room in the pool: each is signed when it is asked for.
    let world = World::with(KeysSettings { max_presigned: 0, ..KeysSettings::default() });
    let request = world.request(&world.credential(KeyKind::Rsa3072).await, SigningAlgorithm::Ps256);
    world.keys.take(request.clone()).await.unwrap();
    let before = own_time();
    for _ in 0..SIGNATURES {
        world.keys.take(request.clone()).await.unwrap();
    }
    let asking = own_time() - before;
    let (key, random) = (RsaKeyPair::generate(KeySize::Rsa3072).unwrap(), SystemRandom::new());
    let mut signature = vec![0; key.public_modulus_len()];
    let before = own_time();
    for _ in 0..SIGNATURES {
        key.sign(&RSA_PSS_SHA256, &random, &[7; 600], &mut signature).unwrap();
    }
    let signing = own_time() - before;
    assert!(asking < signing / 2, "{asking} ns to ask, {signing} ns to sign");
}

#[tokio::test]
async fn threads_that_sign_stand_back_and_those_that_sign_ahead_run_when_nobody_else_does() {
    let world = World::new();
    let request = world.p256().await;
    world.keys.take(request).await.unwrap();
    let own = field(&fs::read_to_string("/proc/thread-self/stat").unwrap(), NICE);
    let of = |name: &str, n| -> Vec<_> {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        // A thread of another test may end meanwhile.
        let stats = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok());
        stats.filter(|stat| stat.contains(name)).map(|stat| field(&stat, n)).collect()
    };
    let signing = of("(jeton-sign-0", NICE);
    assert!(signing.contains(&(own + 5).min(19)), "{signing:?} beside {own}");
    let start = Instant::now();
    // It may not have begun.
    while !of("(jeton-sign-a0", POLICY).contains(&SCHED_IDLE) {
        assert!(start.elapsed() < PATIENCE, "{:?}", of("(jeton-sign-a0", POLICY));
        tokio::task::yield_now().await;
    }
}
