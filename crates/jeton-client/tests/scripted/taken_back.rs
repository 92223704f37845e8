//! What the broker takes back is not handed out any more; what it merely fails to refresh is.

use std::time::Duration;

use tonic::Code;

use crate::broker::{BILLING, Broker, HOUR, Instead, SCOPE, refusal, until};

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_not_handed_out_again_and_the_next_call_gets_another() {
    let broker = Broker::start();
    let client = broker.client();
    let old = client.token(BILLING, SCOPE).await.unwrap();
    until("it is watched", || broker.watched() == [BILLING]).await;
    broker.fail(BILLING, Code::Aborted, "TOKENS_REVOKED");
    let secret = broker.refresh(BILLING);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let new = client.token(BILLING, SCOPE).await.unwrap();
    assert!(new.secret() == secret && new.secret() != old.secret());
    until("it is watched again", || broker.watched() == [BILLING]).await;
    assert_eq!(broker.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_before_a_revocation_is_not_taken_in_after_it() {
    let broker = Broker::start();
    let client = broker.client();
    client.token("identities/other", SCOPE).await.unwrap();
    until("it is watched", || broker.watched() == ["identities/other"]).await;
    broker.instead_of_tokens(Some(Instead::Hang));
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.token(BILLING, SCOPE).await }
    });
    until("it asks", || broker.asked() == 2).await;
    broker.fail("identities/other", Code::Aborted, "TOKENS_REVOKED");
    let secret = broker.refresh(BILLING);
    tokio::time::sleep(Duration::from_millis(10)).await;
    broker.instead_of_tokens(None);
    // The answer held back is the old token: it is asked for anew.
    assert_eq!(calling.await.unwrap().unwrap().secret(), secret);
    assert_eq!(broker.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_right_is_gone_hears_it_although_its_token_has_not_expired() {
    let broker = Broker::start();
    let client = broker.client();
    client.token(BILLING, SCOPE).await.unwrap();
    until("it is watched", || broker.watched() == [BILLING]).await;
    let denied = refusal(Code::PermissionDenied, "ACCESS_DENIED", None);
    broker.instead_of_tokens(Some(Instead::Refuse(denied)));
    broker.fail(BILLING, Code::PermissionDenied, "ACCESS_DENIED");
    tokio::time::sleep(Duration::from_millis(10)).await;
    let error = client.token(BILLING, SCOPE).await.unwrap_err();
    assert_eq!(error.refusal().unwrap().reason(), "ACCESS_DENIED");
    assert_eq!(error.refusal().unwrap().correlation_id(), Some("c-1"));
    assert_eq!(broker.asked(), 2, "no is no: it is not asked twice");
}

/// The same where nothing is watched, so that the denial answers a question.
#[tokio::test(start_paused = true)]
async fn a_right_that_is_gone_is_found_by_the_next_question_too() {
    let broker = Broker::start();
    broker.instead_of_watches(Some(Instead::Refuse(tonic::Status::unimplemented(""))));
    let client = broker.client();
    client.token(BILLING, SCOPE).await.unwrap();
    let denied = refusal(Code::PermissionDenied, "ACCESS_DENIED", None);
    broker.instead_of_tokens(Some(Instead::Refuse(denied)));
    tokio::time::sleep(HOUR / 4).await;
    client.token(BILLING, SCOPE).await.unwrap();
    tokio::time::sleep(HOUR / 4 + Duration::from_secs(10)).await;
    assert!(client.token(BILLING, SCOPE).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_leaves_the_valid_token_and_the_watch() {
    let broker = Broker::start();
    let client = broker.client();
    let token = client.token(BILLING, SCOPE).await.unwrap();
    until("it is watched", || broker.watched() == [BILLING]).await;
    for (code, reason) in
        [(Code::Unavailable, "AUTHORITY_UNAVAILABLE"), (Code::FailedPrecondition, "AUTHORITY_REFUSED")]
    {
        broker.fail(BILLING, code, reason);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(client.token(BILLING, SCOPE).await.unwrap().secret(), token.secret());
    }
    let secret = broker.refresh(BILLING);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(client.token(BILLING, SCOPE).await.unwrap().secret(), secret);
    assert_eq!(broker.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_changed_is_watched_again_and_its_token_stays() {
    let broker = Broker::start();
    let client = broker.client();
    client.token(BILLING, SCOPE).await.unwrap();
    until("it is watched", || broker.watched() == [BILLING]).await;
    broker.fail(BILLING, Code::Aborted, "CONFLICT");
    assert!(broker.watched().is_empty());
    client.token(BILLING, SCOPE).await.unwrap();
    let took = until("it is watched again", || broker.watched() == [BILLING]).await;
    assert!(took <= Duration::from_secs(3), "{took:?}");
    assert_eq!(broker.asked(), 1);
}
