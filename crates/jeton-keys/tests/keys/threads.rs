//! Signatures stay off the threads that serve.

use std::fs;

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

/// A thread's nice value (proc(5)), after its name, which may hold anything.
fn nice(stat: &str) -> i32 {
    let rest = stat.rsplit(')').next().unwrap();
    rest.split_whitespace().nth(16).unwrap().parse().unwrap()
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
async fn threads_that_sign_stand_back() {
    let world = World::new();
    let request = world.p256().await;
    world.keys.take(request).await.unwrap();
    let own = nice(&fs::read_to_string("/proc/thread-self/stat").unwrap());
    let stats = fs::read_dir("/proc/self/task").unwrap();
    // A thread of another test may end meanwhile.
    let stats = stats.filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok());
    let signing: Vec<_> =
        stats.filter(|stat| stat.contains("(jeton-sign-")).map(|stat| nice(&stat)).collect();
    assert!(signing.contains(&(own + 5).min(19)), "{signing:?} beside {own}");
}
