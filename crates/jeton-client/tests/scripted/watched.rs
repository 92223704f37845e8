//! Tokens that the broker sends by itself.

use std::time::Duration;

use futures_util::future::join_all;
use jeton_client::Target;

use crate::broker::{BILLING, Broker, HOUR, Instead, SCOPE, until};

#[tokio::test(start_paused = true)]
async fn callers_of_one_cold_token_share_one_question_and_the_next_ask_nobody() {
    let broker = Broker::start();
    let client = broker.client();
    let all = join_all((0..50).map(|_| client.token(BILLING, SCOPE))).await;
    assert!(all.iter().all(|token| token.as_ref().unwrap().secret() == format!("{BILLING} {SCOPE} 0")));
    assert_eq!(broker.asked(), 1);
    for target in [Target::from(SCOPE), Target::scopes(&[SCOPE]), (&[SCOPE]).into()] {
        client.token(BILLING, target).await.unwrap();
    }
    assert_eq!(broker.asked(), 1, "however the target is written");
    client.token(BILLING, "another").await.unwrap();
    assert_eq!(broker.asked(), 2);
    until("one stream for both", || broker.watched() == [BILLING, BILLING]).await;
    assert_eq!(broker.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refreshed_token_is_seen_by_every_caller_and_nobody_asked_for_it() {
    let broker = Broker::start();
    let client = broker.client();
    client.token(BILLING, SCOPE).await.unwrap();
    until("it is watched", || broker.watched() == [BILLING]).await;
    for _ in 0..10 {
        tokio::time::sleep(HOUR / 2).await;
        let secret = broker.refresh(BILLING);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let all = join_all((0..50).map(|_| client.token(BILLING, SCOPE))).await;
        assert!(all.into_iter().all(|token| token.unwrap().secret() == secret));
    }
    assert_eq!((broker.asked(), broker.opened()), (1, 1), "in five hours");
}

#[tokio::test(start_paused = true)]
async fn an_older_token_that_comes_late_replaces_nothing() {
    let broker = Broker::start();
    broker.instead_of_watches(Some(Instead::Hang));
    let client = broker.client();
    client.token(BILLING, SCOPE).await.unwrap();
    tokio::time::sleep(HOUR / 4).await;
    client.token(BILLING, SCOPE).await.unwrap();
    // Asked ahead, and the answer is held back while the watch brings a newer one.
    broker.instead_of_tokens(Some(Instead::Hang));
    until("it asks", || broker.asked() == 2).await;
    broker.instead_of_watches(None);
    until("it is watched", || broker.watched() == [BILLING]).await;
    let secret = broker.refresh(BILLING);
    tokio::time::sleep(Duration::from_millis(100)).await;
    broker.instead_of_tokens(None);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.token(BILLING, SCOPE).await.unwrap().secret(), secret);
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_with_the_last_clone() {
    let broker = Broker::start();
    let client = broker.client();
    client.token(BILLING, SCOPE).await.unwrap();
    until("it is watched", || broker.watched() == [BILLING]).await;
    let clone = client.clone();
    drop(client);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(broker.watched(), [BILLING]);
    drop(clone);
    until("it ends", || broker.watched().is_empty()).await;
    let (opened, asked) = (broker.opened(), broker.asked());
    tokio::time::sleep(HOUR).await;
    assert_eq!((broker.opened(), broker.asked()), (opened, asked));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asks_for_is_let_go_and_what_is_used_stays() {
    let broker = Broker::start();
    let client = broker.client();
    for identity in ["identities/idle", "identities/used"] {
        client.token(identity, SCOPE).await.unwrap();
    }
    until("both are watched", || broker.watched().len() == 2).await;
    for _ in 0..3 {
        tokio::time::sleep(HOUR / 2).await;
        broker.refresh("identities/used");
        broker.refresh("identities/idle");
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.token("identities/used", SCOPE).await.unwrap();
    }
    until("the idle one goes", || broker.watched() == ["identities/used"]).await;
    assert_eq!(broker.asked(), 2);
}
