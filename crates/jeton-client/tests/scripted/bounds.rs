//! Bounds: tokens in memory, callers that wait.

use std::time::Duration;

use jeton_client::Error;
use tokio::task::JoinSet;

use crate::broker::{BILLING, Broker, Instead, SCOPE, until};

#[tokio::test(start_paused = true)]
async fn of_too_many_keys_the_least_recently_used_goes_and_is_no_longer_watched() {
    let broker = Broker::start();
    let client = broker.builder().max_keys(3).build().unwrap();
    let names = ["identities/a", "identities/b", "identities/c"];
    for name in names {
        client.token(name, SCOPE).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    client.token("identities/a", SCOPE).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    client.token("identities/d", SCOPE).await.unwrap();
    until("b goes", || broker.watched() == ["identities/a", "identities/c", "identities/d"]).await;
    let asked = broker.asked();
    for name in ["identities/a", "identities/c", "identities/d"] {
        client.token(name, SCOPE).await.unwrap();
    }
    assert_eq!(broker.asked(), asked);
    client.token("identities/b", SCOPE).await.unwrap();
    assert_eq!(broker.asked(), asked + 1);
}

#[tokio::test(start_paused = true)]
async fn callers_beyond_the_bound_are_told_at_once_and_warm_tokens_need_no_place() {
    let broker = Broker::start();
    let client = broker.builder().max_waiting(10).build().unwrap();
    client.token("identities/warm", SCOPE).await.unwrap();
    broker.instead_of_tokens(Some(Instead::Hang));
    let mut waiting = JoinSet::new();
    for n in 0..10 {
        let (client, name) = (client.clone(), format!("identities/n{}", n % 3));
        waiting.spawn(async move { client.token(&name, SCOPE).await.map(drop) });
    }
    until("three questions for ten", || broker.asked() == 4).await;
    let error = client.token(BILLING, SCOPE).await.unwrap_err();
    assert!(matches!(error, Error::TooManyWaiting { most: 10, .. }) && error.is_transient(), "{error}");
    client.token("identities/warm", SCOPE).await.unwrap();
    broker.instead_of_tokens(None);
    while let Some(ended) = waiting.join_next().await {
        ended.unwrap().unwrap();
    }
    client.token(BILLING, SCOPE).await.unwrap();
}
