//! Single calls: what is tried again and what is not, reports, wrong clocks.

use std::time::Duration;

use jeton_client::{Client, Error, Fault, Report};
use jeton_proto::v1::ReportOutcome;
use tonic::Code;

use crate::broker::{BILLING, Broker, HOUR, Instead, SCOPE, refusal, until};

#[tokio::test(start_paused = true)]
async fn a_broker_that_says_when_to_come_again_is_not_asked_before() {
    let broker = Broker::start();
    let client = broker.builder().timeout(Duration::from_secs(10)).build().unwrap();
    let later = |secs| refusal(Code::Unavailable, "AUTHORITY_THROTTLED", Some(Duration::from_secs(secs)));
    broker.instead_of_tokens(Some(Instead::Refuse(later(4))));
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.token(BILLING, SCOPE).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(broker.asked(), 1);
    broker.instead_of_tokens(None);
    calling.await.unwrap().unwrap();
    assert_eq!(broker.asked(), 2);
    // Later than the call may take: there is nothing to wait for.
    broker.instead_of_tokens(Some(Instead::Refuse(later(60))));
    let before = broker.now();
    let error = client.token("identities/other", SCOPE).await.unwrap_err();
    assert!(broker.now() - before < Duration::from_secs(1) && broker.asked() == 3);
    assert_eq!((error.retry_after(), error.fault()), (Some(Duration::from_secs(60)), Fault::Authority));
}

#[tokio::test(start_paused = true)]
async fn reports_say_what_they_led_to_and_a_newer_token_is_in_memory_afterwards() {
    let broker = Broker::start();
    let client = broker.client();
    let first = client.token(BILLING, SCOPE).await.unwrap();
    until("it is watched", || broker.watched() == [BILLING]).await;
    broker.answer_reports(ReportOutcome::Refreshing);
    assert_eq!(client.report_rejected(&first).await.unwrap(), Report::Refreshing);
    assert_eq!(client.token(BILLING, SCOPE).await.unwrap().secret(), first.secret());
    let secret = broker.refresh(BILLING);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let second = client.token(BILLING, SCOPE).await.unwrap();
    assert_eq!(second.secret(), secret);
    broker.answer_reports(ReportOutcome::TooSoon);
    assert_eq!(client.report_rejected(&second).await.unwrap(), Report::TooSoon);
    // The watch says nothing, and the broker has another by now.
    broker.answer_reports(ReportOutcome::Superseded);
    broker.instead_of_watches(Some(Instead::Hang));
    broker.drain();
    let secret = broker.refresh(BILLING);
    assert_eq!(client.report_rejected(&second).await.unwrap(), Report::Superseded);
    assert_eq!(client.token(BILLING, SCOPE).await.unwrap().secret(), secret);
    assert_eq!((broker.reported(), broker.asked()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_far_ahead_is_named_as_the_cause() {
    let broker = Broker::start();
    let world = broker.clone();
    let ahead = std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + HOUR;
    let client = broker.builder().clock(move || (ahead + world.now(), world.now())).build().unwrap();
    let error = client.token(BILLING, SCOPE).await.unwrap_err();
    assert!(matches!(error, Error::ExpiredOnArrival { .. }) && error.fault() == Fault::Caller, "{error}");
    assert!(error.to_string().contains("set the clock"), "{error}");
}

#[test]
fn a_client_needs_a_runtime_an_endpoint_and_bounds_that_are_some() {
    let wrong = |builder: jeton_client::Builder| builder.build().unwrap_err().to_string();
    assert!(wrong(Client::builder().endpoint("unix:/run/data.sock")).contains("tokio runtime"));
    assert!(wrong(Client::builder()).contains("endpoint"));
    let with = || Client::builder().endpoint("unix:/run/data.sock");
    assert!(wrong(with().max_keys(0)).contains("max_keys"));
    assert!(wrong(with().max_waiting(0)).contains("max_waiting"));
    assert!(wrong(with().timeout(Duration::ZERO)).contains("timeout"));
    assert!(wrong(with().client_certificate("cert.pem", "key.pem")).contains("ca_file"));
    assert!(
        wrong(Client::builder().endpoint("https://h:1").ca_file("/nonexistent.pem"))
            .contains("/nonexistent.pem")
    );
}
