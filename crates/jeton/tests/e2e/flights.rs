//! Many callers of one cold token.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use jeton_proto::v1::token_service_client::TokenServiceClient;
use serde_json::json;

use crate::support::{VAULT, World, token};

const ORDERS: &str = "https://orders.example/.default";

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_callers_of_a_cold_token_make_one_request_though_half_of_them_leave() {
    let world = World::start().await;
    world.sandbox.settings(json!({"latency_ms": 5_000})).await;
    let client_id = world.broker.client_id("identities/billing");
    let mut channels = vec![];
    for _ in 0..20 {
        channels.push(world.broker.tcp().await);
    }
    let begun = Arc::new(AtomicU32::new(0));
    let mut callers = vec![];
    for channel in &channels {
        for n in 0..50 {
            let (mut client, begun) = (TokenServiceClient::new(channel.clone()), Arc::clone(&begun));
            let call = async move {
                begun.fetch_add(1, Relaxed);
                token(&mut client, "identities/billing", ORDERS).await
            };
            callers.push((n % 2 == 0, tokio::spawn(call)));
        }
    }
    // The broker has every request before anybody leaves, because what was asked after them on each connection is answered; and the
    // sandbox has its one. (Many that are cancelled before they were looked at are an attack, which the door stops.)
    while begun.load(Relaxed) < 1_000 || world.sandbox.requests(&client_id, ORDERS).await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for channel in channels {
        token(&mut TokenServiceClient::new(channel), "identities/billing", VAULT).await.unwrap();
    }
    let mut tokens = HashSet::new();
    let mut answered = 0;
    let mut left = 0;
    for (_, caller) in callers.iter().filter(|(leaves, _)| *leaves) {
        caller.abort();
    }
    for (leaves, caller) in callers {
        match caller.await {
            Ok(token) => {
                tokens.insert(token.unwrap().access_token);
                answered += 1;
            }
            Err(gone) => {
                assert!(leaves && gone.is_cancelled(), "{gone}");
                left += 1;
            }
        }
    }
    assert_eq!((left, answered, tokens.len()), (500, 500, 1));
    assert_eq!(world.sandbox.requests(&client_id, ORDERS).await, 1);
}
