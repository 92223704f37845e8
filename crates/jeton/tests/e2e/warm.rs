//! Callers of a warm token.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{VAULT, World, left, token};

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_caller_never_waits_and_gets_no_token_under_its_floor() {
    let world = World::with(&[], json!({"token_lifetime_seconds": 12})).await;
    let mut client = world.broker.tokens().await;
    token(&mut client, "identities/billing", VAULT).await.unwrap();
    // From here on every refresh takes a second at the authority.
    world.sandbox.settings(json!({"hang_seconds": 1.0})).await;
    let client_id = world.broker.client_id("identities/billing");
    let before = world.sandbox.requests(&client_id, VAULT).await;
    let (start, mut seen, mut slowest) = (Instant::now(), HashSet::new(), Duration::ZERO);
    while start.elapsed() < Duration::from_secs(60) {
        let asked = Instant::now();
        let got = token(&mut client, "identities/billing", VAULT).await.unwrap();
        let way = asked.elapsed();
        slowest = slowest.max(way);
        // A quarter of 12 s, at some moment between the question and now.
        let life = left(&got) + way.as_secs_f64();
        assert!(life >= 3.0, "{life} s left");
        seen.insert(got.access_token);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(slowest < Duration::from_millis(900), "somebody waited {slowest:?}, as long as a refresh");
    let requests = world.sandbox.requests(&client_id, VAULT).await - before;
    let refreshes = seen.len() as u64 - 1;
    assert!(refreshes >= 6, "{refreshes} refreshes in 60 s of tokens that live for 12 s");
    assert!(requests <= refreshes + 1, "{requests} requests for {refreshes} refreshes");
}
