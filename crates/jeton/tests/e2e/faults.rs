//! An authority that is slow, throttles, fails, or has another time.

use std::time::{Duration, Instant};

use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{VAULT, World, reason, token};

const COLD: &str = "https://orders.example/.default";

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_identity_waits_as_long_as_it_was_told_and_warm_tokens_are_served() {
    let world = World::start().await;
    let client_id = world.broker.client_id("identities/billing");
    world.sandbox.settings(json!({"error": {"rate": 1.0, "status": 429, "retry_after_seconds": 6}})).await;
    let mut client = world.broker.tokens().await;
    let throttled = Instant::now();
    let refused = token(&mut client, "identities/billing", COLD).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "AUTHORITY_THROTTLED"),
        "{refused}"
    );
    let delay = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(delay > Duration::from_secs(3) && delay <= Duration::from_secs(7), "{delay:?}");
    world.sandbox.settings(json!({"error": {"rate": 0.0}})).await;
    let asked = world.sandbox.requests(&client_id, COLD).await;
    while throttled.elapsed() < Duration::from_secs(4) {
        assert!(token(&mut client, "identities/billing", COLD).await.is_err());
        token(&mut client, "identities/billing", VAULT).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.sandbox.requests(&client_id, COLD).await, asked, "asked again inside Retry-After");
    tokio::time::sleep(Duration::from_secs(4)).await;
    token(&mut client, "identities/billing", COLD).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_holds_over_a_restart() {
    let mut world = World::start().await;
    let client_id = world.broker.client_id("identities/billing");
    world.sandbox.settings(json!({"error": {"rate": 1.0, "status": 429, "retry_after_seconds": 60}})).await;
    token(&mut world.broker.tokens().await, "identities/billing", COLD).await.unwrap_err();
    world.sandbox.settings(json!({"error": {"rate": 0.0}})).await;
    let asked = world.sandbox.requests(&client_id, COLD).await;
    assert!(world.broker.process.stop().success());
    world.restart(&[]);
    let refused = token(&mut world.broker.tokens().await, "identities/billing", COLD).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(world.sandbox.requests(&client_id, COLD).await, asked);
}

/// How often the token endpoints refused a client.
async fn refused(world: &World, client_id: &str) -> u64 {
    world.sandbox.stats().await["by_client"][client_id]["refused"].as_u64().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_whose_clock_is_off_still_issues_tokens() {
    // Further behind, certificates of today are not valid yet there.
    for offset in [-290, 290, 3_600] {
        let world = World::start().await;
        world.sandbox.settings(json!({"clock_offset_seconds": offset})).await;
        let mut client = world.broker.tokens().await;
        for (identity, scope) in [("identities/billing", COLD), ("identities/orders", "orders.read")] {
            token(&mut client, identity, scope)
                .await
                .unwrap_or_else(|e| panic!("{identity} at {offset} s: {e}"));
            let refused = refused(&world, &world.broker.client_id(identity)).await;
            assert!(refused <= 1, "the difference is learned from one answer: {refused} refused");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_assertion_is_sent_twice_or_old() {
    let settings = json!({"token_lifetime_seconds": 4, "reject_replay": true});
    let world = World::with(&[], settings).await;
    let mut client = world.broker.tokens().await;
    let mut clients = vec![];
    for identity in ["identities/billing", "identities/orders"] {
        let client_id = world.broker.client_id(identity);
        clients.push((refused(&world, &client_id).await, client_id));
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(15) {
        for (identity, scope) in [
            ("identities/billing", VAULT),
            ("identities/billing", COLD),
            ("identities/orders", "orders.read"),
        ] {
            token(&mut client, identity, scope).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Nothing else can fail, and what is refused is counted however well the broker gets over it.
    for (before, client_id) in &clients {
        assert_eq!(refused(&world, client_id).await, *before, "an assertion was refused");
        let stats = world.sandbox.stats().await;
        assert!(stats["by_client"][client_id]["ok"].as_u64().unwrap() >= 5, "{stats}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_changes_alone_and_only_for_as_long_as_it_is_full() {
    let world = World::with(&["--set", "log.filter=info"], json!({})).await;
    let broker = &world.broker;
    let mut client = broker.tokens().await;
    token(&mut client, "identities/billing", VAULT).await.unwrap();
    let status = || String::from_utf8(broker.jeton(&["status"]).stdout).unwrap();
    let create = ["workload", "create", "late"];
    broker.process.may_write(false);
    for _ in 0..3 {
        let refused = broker.jeton(&create);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("AUDIT_UNAVAILABLE"), "{said}");
        assert!(said.contains("disk"), "each time for the disk: {said}");
        token(&mut client, "identities/billing", VAULT).await.unwrap();
    }
    let screen = status();
    assert!(screen.contains("cannot be written") && screen.contains("make room"), "{screen}");
    assert!(!broker.jeton(&["workload", "get", "late"]).status.success(), "nothing was half written");
    broker.process.may_write(true);
    assert_eq!(broker.json(&create)["name"], "workloads/late");
    let screen = status();
    assert!(!screen.contains("cannot be written"), "{screen}");
    let log = broker.process.log();
    assert!(log.contains("the audit log can be written again"), "{log}");
}
