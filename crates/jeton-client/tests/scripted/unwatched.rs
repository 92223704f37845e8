//! Brokers that do not watch, or not everything: what is in use is asked for again in time.

use std::time::Duration;

use jeton_client::Client;
use tonic::Code;

use crate::broker::{BILLING, Broker, HOUR, Instead, SCOPE, refusal, until};

/// Three lives of a token that is used, and of one that is not.
async fn stays_fresh(client: &Client, broker: &Broker) {
    let before = broker.asked();
    client.token("identities/idle", SCOPE).await.unwrap();
    client.token(BILLING, SCOPE).await.unwrap();
    for _ in 0..3 {
        for _ in 0..62 {
            tokio::time::sleep(HOUR / 120).await;
            client.token(BILLING, SCOPE).await.unwrap();
        }
        let asked = broker.asked();
        let secret = broker.refresh(BILLING);
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(client.token(BILLING, SCOPE).await.unwrap().secret(), secret, "half of its life is over");
        assert!(broker.asked() - asked <= 3, "{} questions", broker.asked() - asked);
    }
    // From half of the life on every few seconds until there is another, and not for the one that nobody uses.
    assert!(broker.asked() - before < 60, "{}", broker.asked() - before);
}

#[tokio::test(start_paused = true)]
async fn a_broker_without_watches_is_asked_ahead_for_what_is_used() {
    let broker = Broker::start();
    broker.instead_of_watches(Some(Instead::Refuse(tonic::Status::unimplemented(""))));
    stays_fresh(&broker.client(), &broker).await;
    assert!(broker.opened() < 40, "{} watches were tried in hours", broker.opened());
}

#[tokio::test(start_paused = true)]
async fn a_broker_whose_watches_hang_is_asked_ahead_too() {
    let broker = Broker::start();
    broker.instead_of_watches(Some(Instead::Hang));
    stays_fresh(&broker.client(), &broker).await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_reads_nothing_of_what_is_to_be_watched_holds_nobody_up() {
    let broker = Broker::start();
    broker.read_nothing();
    let client = broker.client();
    // More than fits into a window, and more than is under way.
    for n in 0..100 {
        client.token(&format!("identities/{n}{}", "x".repeat(2_000)), SCOPE).await.unwrap();
    }
    stays_fresh(&client, &broker).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_says_nothing_is_not_trusted_to_the_end_of_a_token() {
    let broker = Broker::start();
    let client = broker.client();
    client.token(BILLING, SCOPE).await.unwrap();
    until("it is watched", || broker.watched() == [BILLING]).await;
    broker.forget_watches();
    tokio::time::sleep(HOUR / 2).await;
    client.token(BILLING, SCOPE).await.unwrap();
    let secret = broker.refresh(BILLING);
    tokio::time::sleep(HOUR / 5).await;
    assert_eq!(broker.asked(), 1, "the watch has its time");
    tokio::time::sleep(HOUR / 10).await;
    assert_eq!(client.token(BILLING, SCOPE).await.unwrap().secret(), secret);
    assert_eq!(broker.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn keys_for_which_there_is_no_room_are_asked_ahead_and_offered_again() {
    let broker = Broker::start();
    broker.refuse_keys(Some((Code::ResourceExhausted, "OVERLOADED")));
    stays_fresh(&broker.client(), &broker).await;
    assert_eq!(broker.opened(), 1, "the stream stays");
    let client = broker.client();
    client.token(BILLING, SCOPE).await.unwrap();
    broker.refuse_keys(None);
    until("there is room", || broker.watched().contains(&BILLING.to_owned())).await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_begins_to_watch_is_found() {
    let broker = Broker::start();
    let client = broker.client();
    let full = refusal(Code::ResourceExhausted, "OVERLOADED", Some(Duration::from_secs(1)));
    broker.instead_of_watches(Some(Instead::Refuse(full)));
    client.token(BILLING, SCOPE).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(broker.opened() <= 5, "{}", broker.opened());
    broker.instead_of_watches(None);
    let took = until("it is watched", || broker.watched() == [BILLING]).await;
    assert!(took <= Duration::from_secs(40), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_reported_is_asked_for_until_there_is_another() {
    let broker = Broker::start();
    broker.instead_of_watches(Some(Instead::Refuse(tonic::Status::unimplemented(""))));
    broker.answer_reports(jeton_proto::v1::ReportOutcome::Refreshing);
    let client = broker.client();
    let token = client.token(BILLING, SCOPE).await.unwrap();
    assert_eq!(client.report_rejected(&token).await.unwrap(), jeton_client::Report::Refreshing);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        client.token(BILLING, SCOPE).await.unwrap().secret(),
        token.secret(),
        "until the new one is in"
    );
    let secret = broker.refresh(BILLING);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(client.token(BILLING, SCOPE).await.unwrap().secret(), secret);
    let asked = broker.asked();
    tokio::time::sleep(HOUR / 4).await;
    assert_eq!(broker.asked(), asked, "no more questions");
}
