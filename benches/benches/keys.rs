//! Assertions: a signature alone, an assertion that is asked for, and one that was signed ahead.
#![allow(clippy::expect_used, missing_docs, reason = "a benchmark")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
    },
};
use benches::{DAY, Material, Signing, Size, uid};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jeton_core::{Assertions, KeyKind, SigningAlgorithm, SystemClock};
use jeton_keys::KeysSettings;
use tokio::runtime::Runtime;

/// One identity, with as many tokens as may be signed ahead for it.
const SIZE: Size = Size { slots: 64, scopes: 64, token_bytes: 0, lifetime: DAY };

fn assertions(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let (rsa, ec) = (KeyKind::Rsa2048, KeyKind::P256);
    for (algorithm, kind) in
        [(SigningAlgorithm::Ps256, rsa), (SigningAlgorithm::Rs256, rsa), (SigningAlgorithm::Es256, ec)]
    {
        let material = runtime.block_on(Material::generate(kind));
        let mut group = c.benchmark_group(format!("assertion/{}", algorithm.as_str()));
        group.throughput(Throughput::Elements(1));
        // With no room in the pool every one is signed when it is asked for.
        let none = KeysSettings { max_presigned: 0, ..KeysSettings::default() };
        let signing = start(&runtime, algorithm, &material, none);
        let request = signing.client(uid(0));
        group.bench_function("signed when it is asked for", |b| {
            b.iter(|| black_box(runtime.block_on(signing.keys.take(request.clone())).expect("signed")));
        });
        let ahead = start(&runtime, algorithm, &material, KeysSettings::default());
        group.bench_function("signed ahead", |b| b.iter_custom(|n| taken(n, &ahead, &runtime)));
        let pkcs8 = material.pkcs8().next().expect("a key");
        group.bench_function("aws-lc-rs alone", |b| alone(b, algorithm, pkcs8));
        group.finish();
    }
}

fn start(
    runtime: &Runtime,
    algorithm: SigningAlgorithm,
    material: &Material,
    settings: KeysSettings,
) -> Signing {
    runtime.block_on(Signing::new(SIZE, algorithm, material, settings, Arc::new(SystemClock)))
}

fn alone(b: &mut criterion::Bencher<'_>, algorithm: SigningAlgorithm, pkcs8: &[u8]) {
    let (random, message) = (SystemRandom::new(), [7_u8; 600]);
    if algorithm == SigningAlgorithm::Es256 {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).expect("a key");
        b.iter(|| black_box(key.sign(&random, &message).expect("signed")));
    } else {
        let key = RsaKeyPair::from_pkcs8(pkcs8).expect("a key");
        let padding = if algorithm == SigningAlgorithm::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
        let mut signature = vec![0; key.public_modulus_len()];
        b.iter(|| key.sign(padding, &random, &message, &mut signature).expect("signed"));
    }
}

/// Takes assertions that are all there, in lots of what one credential may have.
fn taken(count: u64, signing: &Signing, runtime: &Runtime) -> Duration {
    let (request, mut took, mut left) = (signing.client(uid(0)), Duration::ZERO, count as usize);
    while left > 0 {
        let lot = left.min(SIZE.slots);
        (0..lot).for_each(|_| signing.keys.prepare(request, Duration::ZERO));
        let deadline = Instant::now() + Duration::from_secs(30);
        while signing.keys.stats().presigned < lot {
            assert!(Instant::now() < deadline, "{:?}", signing.keys.stats());
            std::thread::sleep(Duration::from_millis(1));
        }
        let start = Instant::now();
        runtime.block_on(async {
            for _ in 0..lot {
                black_box(signing.keys.take(request.clone()).await.expect("it is there"));
            }
        });
        took += start.elapsed();
        left -= lot;
    }
    took
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    targets = assertions
}
criterion_main!(benches);
