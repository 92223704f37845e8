//! One caller with up to a million keys, against a cap of ten thousand: the process does not grow with them. A process of its own, so that
//! nothing else is in its memory.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jeton_core::{
    AccessToken, BoxFuture, Directory, IssuedToken, SharedDirectory, SystemClock, TokenHash, TokenKey,
};
use jeton_engine::{
    Ask, Encoded, Engine, EngineSettings, IssueError, Kept, Ports, TokenSource, TokenStore, TokenStoreError,
    TokenWrite,
    testing::{caller, issued, key},
};
use secrecy::ExposeSecret;

/// Enough to go round the cap several times; `JETON_KEYS` makes it the whole million.
const KEYS: u64 = 50_000;
const ENTRIES: u64 = 10_000;
/// Little enough that bytes are what counts, and not entries alone.
const CAP: u64 = 40 << 20;
/// As long as real ones.
const TOKEN_BYTES: usize = 1_300;

struct AtOnce;

impl TokenSource for AtOnce {
    fn prepare(&self, _: &TokenKey, _: Duration) {}

    fn issue(&self, key: TokenKey) -> BoxFuture<'static, Result<IssuedToken, IssueError>> {
        Box::pin(async move {
            let mut token = issued(&key, 1, Duration::from_secs(3_600));
            let padded = format!("{:x<TOKEN_BYTES$}", token.access_token.expose_secret());
            token.access_token = padded.into();
            Ok(token)
        })
    }
}

struct Nowhere;

impl TokenStore for Nowhere {
    fn load(&self) -> BoxFuture<'_, Result<Kept, TokenStoreError>> {
        Box::pin(async { Ok(Kept::default()) })
    }

    fn write(&self, _: Vec<TokenWrite>) -> BoxFuture<'_, Result<(), TokenStoreError>> {
        Box::pin(async { Ok(()) })
    }
}

/// An authority that takes as many requests as there are.
fn directory() -> SharedDirectory {
    let mut authority = jeton_lifecycle::testing::authority("a", key(0, "a").authority, true);
    let mut profile = authority.profile.as_ref().clone();
    profile.limits.requests_per_second = 10_000_000;
    authority.profile = Arc::new(profile);
    let mut directory = Directory::default();
    directory.put_authority(Arc::new(authority));
    SharedDirectory::new(directory)
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_keys_of_one_caller_cost_no_more_memory_than_the_cap() {
    let settings = EngineSettings {
        max_entries: ENTRIES,
        max_bytes: CAP,
        misses_per_second: u32::MAX,
        miss_burst: u32::MAX,
        ..EngineSettings::default()
    };
    let ports = Ports {
        source: Arc::new(AtOnce),
        store: Arc::new(Nowhere),
        clock: Arc::new(SystemClock),
        directory: directory(),
        encoder: Arc::new(|token| {
            let bytes = Bytes::from(token.issued.access_token.expose_secret().as_bytes().to_vec());
            let access_token = AccessToken::within(&bytes, 0..bytes.len()).unwrap();
            Encoded { bytes, access_token, hash: TokenHash::new(&[]) }
        }),
        seed: 1,
        tracer: Default::default(),
    };
    let (engine, tasks) = Engine::start(settings, ports).await.unwrap();
    let keys = std::env::var("JETON_KEYS").ok().and_then(|n| n.parse().ok()).unwrap_or(KEYS);
    let ask = |n| Ask { caller: caller(n).into(), wait: None, min_validity: None };
    let hot = key(keys + 1, "hot");
    engine.token(&hot, ask(9)).await.unwrap();
    let before = resident();
    for n in 0..keys {
        engine.token(&key(n, "flood"), ask(1)).await.unwrap();
        if n % 1_000 == 0 {
            assert!(engine.cached(&hot).is_some(), "after {n} keys another caller's hot slot is gone");
            assert!(engine.stats().slots as u64 <= ENTRIES, "{:?}", engine.stats());
        }
    }
    // Others fill what one caller may not.
    for n in 0..keys / 5 {
        for other in 2..5 {
            engine.token(&key(n * 10 + u64::from(other), "others"), ask(other)).await.unwrap();
        }
        assert!(engine.stats().bytes <= CAP, "{:?}", engine.stats());
    }
    let grown = resident().saturating_sub(before);
    println!("{keys} keys: {grown} bytes more for a cap of {CAP}");
    assert!(grown <= CAP + CAP / 10, "{grown} bytes more for a cap of {CAP}");
    let new = key(keys + 2, "new");
    engine.token(&new, ask(5)).await.unwrap();
    assert!(engine.cached(&new).is_some(), "a new caller's key is cached");
    tasks.shutdown().await;
}
