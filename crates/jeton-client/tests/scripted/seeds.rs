//! Random histories: kills, moves, refusals, refreshes and revocations beside callers.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::SmallRng};
use tonic::{Code, Status};

use crate::broker::{BILLING, Broker, HOUR, Instead, SCOPE};

/// `JETON_SEEDS` makes it longer, `JETON_SEED` begins elsewhere.
#[test]
fn whatever_happens_callers_get_valid_tokens_nothing_revoked_and_in_the_end_the_newest() {
    let number = |name, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (first, count): (u64, u64) = (number("JETON_SEED", 1), number("JETON_SEEDS", 12));
    for seed in first..first + count {
        println!("seed {seed}");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(history(seed));
    }
}

async fn history(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let broker = Broker::start();
    let client = broker.client();
    let (mut newest, mut at, mut down) = (broker.refresh(BILLING), broker.now(), false);
    let mut revoked = vec![];
    for _ in 0..60 {
        match random.random_range(0..9) {
            0 => (down, _) = (true, broker.kill()),
            1 | 2 => (down, _) = (false, broker.restart()),
            3 if !down => broker.drain(),
            4 | 5 => (newest, at) = (broker.refresh(BILLING), broker.now()),
            6 => broker.instead_of_watches(Some(Instead::Refuse(Status::resource_exhausted("")))),
            7 => broker.instead_of_watches(None),
            // An old one comes back only by what went out before; who does not watch does not hear of it.
            8 if !broker.watched().is_empty() => {
                revoked.push(newest.clone());
                broker.fail(BILLING, Code::Aborted, "TOKENS_REVOKED");
                (newest, at) = (broker.refresh(BILLING), broker.now());
            }
            _ => {}
        }
        let pause = [1, 30, 1_000, 20_000, 100_000][random.random_range(0..5)];
        tokio::time::sleep(Duration::from_millis(pause)).await;
        // The authority goes on.
        if broker.now() - at > HOUR / 2 {
            (newest, at) = (broker.refresh(BILLING), broker.now());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match client.token(BILLING, SCOPE).await {
            Ok(token) => {
                assert!(!revoked.iter().any(|old| old == token.secret()), "seed {seed}: it was revoked")
            }
            Err(error) => assert!(down, "seed {seed}: {error}"),
        }
    }
    broker.restart();
    broker.instead_of_watches(None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let newest = broker.refresh(BILLING);
    let _ = client.token(BILLING, SCOPE).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(client.token(BILLING, SCOPE).await.unwrap().secret(), newest, "seed {seed}");
}
