//! Stopping and starting.

use std::time::Duration;

use serde_json::json;

use crate::support::{Broker, VAULT, World, token};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_finds_everything_and_asks_the_authority_for_nothing() {
    let mut world = World::start().await;
    let first = token(&mut world.broker.tokens().await, "identities/billing", VAULT).await.unwrap();
    let endpoints = world.broker.endpoints.clone();
    assert!(world.broker.process.stop().success());
    assert!(
        !world.broker.data_dir.join("endpoints.json").exists(),
        "a clean stop leaves no endpoints behind"
    );
    let before = world.sandbox.stats().await;
    world.restart(&[]);
    assert_eq!(world.broker.endpoints["identities"], endpoints["identities"]);
    assert_eq!(world.broker.endpoints["grpc"], endpoints["grpc"]);
    let second = token(&mut world.broker.tokens().await, "identities/billing", VAULT).await.unwrap();
    assert_eq!(second.access_token, first.access_token);
    assert_eq!(world.sandbox.stats().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_tokens_are_served_while_the_authority_is_away() {
    let mut world = World::start().await;
    let first = token(&mut world.broker.tokens().await, "identities/billing", VAULT).await.unwrap();
    world.sandbox.process.kill();
    let again = token(&mut world.broker.tokens().await, "identities/billing", VAULT).await.unwrap();
    assert_eq!(again.access_token, first.access_token);
    // A token that is not in memory gets an answer that says what is wrong, and when to come again.
    let refused =
        token(&mut world.broker.tokens().await, "identities/billing", "https://orders.example/.default")
            .await
            .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(refused.message().contains("cannot be reached"), "{}", refused.message());
    // The operator sees what is missing, and that the rest goes on.
    let status = world.broker.jeton(&["status", "-o", "json"]);
    assert_eq!(status.status.code(), Some(1), "degraded");
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["healthy"], false);
    assert!(status["problems"].to_string().contains("identities/billing"), "{status}");
    let still = token(&mut world.broker.tokens().await, "identities/billing", VAULT).await.unwrap();
    assert_eq!(still.access_token, first.access_token);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_sandbox_keeps_its_clients_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mut broker = Broker::start(&data_dir, None, &[]);
    let identities = broker.endpoints["identities"].clone();
    assert!(broker.process.log().contains("vault answered"), "the first start shows the tour");
    assert!(broker.process.stop().success());
    let broker = Broker::start(&data_dir, None, &["--set", "log.filter=info"]);
    assert_eq!(broker.endpoints["identities"], identities);
    assert!(!broker.process.log().contains("vault answered"));
    // The client is known there still: a scope that nobody asked for yet is issued by a new grant.
    token(&mut broker.tokens().await, "identities/billing", "https://orders.example/.default").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_killed_is_finished_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let sandbox = crate::support::Sandbox::start(&folder.path().join("sandbox"));
    sandbox.settings(json!({"propagation_delay_seconds": 0.3})).await;
    for millis in [150, 400, 700, 1_000, 1_400] {
        let mut process = Broker::spawn(&data_dir, Some(&sandbox), &[]);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        process.kill();
    }
    let broker = Broker::start(&data_dir, Some(&sandbox), &[]);
    let billing = token(&mut broker.tokens().await, "identities/billing", VAULT).await.unwrap();
    assert_eq!(sandbox.vault(Some(&billing.access_token)).await, 200);
    let applications = sandbox.graph(http::Method::GET, "/applications", json!(null)).await;
    let ours: Vec<_> =
        applications["value"].as_array().unwrap().iter().filter(|a| !a["uniqueName"].is_null()).collect();
    assert_eq!(ours.len(), 4, "registrar, demo-system, billing, reports: {ours:#?}");
}
