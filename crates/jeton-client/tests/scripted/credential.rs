//! Who asks: bearer tokens in files; and identities as the Azure SDK takes them.

use std::{fs, time::Duration};

use azure_core::credentials::TokenCredential;
use jeton_client::{Error, Fault, azure::JetonCredential};
use tonic::Code;

use crate::broker::{BILLING, Broker, Instead, SCOPE, refusal, until};

#[tokio::test(start_paused = true)]
async fn a_bearer_token_that_is_replaced_is_shown_without_a_failed_call() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "first\n").unwrap();
    let broker = Broker::start();
    broker.want_bearer("first");
    let client = broker.builder().bearer_token_file(&file).build().unwrap();
    client.token(BILLING, SCOPE).await.unwrap();
    until("it is watched", || broker.watched() == [BILLING]).await;
    // At once after it was read, so the broker has to say that it is over.
    fs::write(&file, "second\n").unwrap();
    broker.want_bearer("second");
    client.token("identities/other", SCOPE).await.unwrap();
    broker.kill();
    broker.restart();
    until("the stream comes back", || broker.watched().len() == 2).await;
    // And in good time, before the broker would have to.
    fs::write(&file, "third\n").unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    broker.want_bearer("third");
    let asked = broker.asked();
    client.token("identities/third", SCOPE).await.unwrap();
    assert_eq!(broker.asked(), asked + 1);
    fs::remove_file(&file).unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    client.token("identities/fourth", SCOPE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_that_holds_no_bearer_token_is_named_and_nothing_of_it_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let broker = Broker::start();
    let client =
        || broker.builder().timeout(Duration::from_secs(3)).bearer_token_file(&file).build().unwrap();
    for content in ["", "\n", "q9x\u{7}", "q9xä"] {
        fs::write(&file, content).unwrap();
        let error = client().token(BILLING, SCOPE).await.unwrap_err();
        assert!(matches!(error, Error::File { .. }) && error.fault() == Fault::Caller, "{error}");
        assert!(
            error.to_string().contains("token") && !format!("{error} {error:?}").contains("q9x"),
            "{error}"
        );
    }
    assert_eq!(broker.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_azure_sdk_gets_the_token_of_its_one_scope_with_its_end() {
    let broker = Broker::start();
    let client = broker.client();
    let credential = JetonCredential::new(client.clone(), BILLING);
    let token = credential.get_token(&[SCOPE], None).await.unwrap();
    let ours = client.token(BILLING, SCOPE).await.unwrap();
    assert_eq!(token.token.secret(), ours.secret());
    assert_eq!(std::time::SystemTime::from(token.expires_on), ours.expires_at());
    assert_eq!(broker.asked(), 1);
    for scopes in [&[][..], &[SCOPE, "another"]] {
        let error = credential.get_token(scopes, None).await.unwrap_err();
        assert!(error.to_string().contains("one scope"), "{error}");
    }
    broker.instead_of_tokens(Some(Instead::Refuse(refusal(Code::PermissionDenied, "ACCESS_DENIED", None))));
    let error = JetonCredential::new(client, "identities/other").get_token(&[SCOPE], None).await.unwrap_err();
    assert_eq!(*error.kind(), azure_core::error::ErrorKind::Credential);
    let inner: Error = error.into_downcast().unwrap();
    assert_eq!(inner.refusal().unwrap().reason(), "ACCESS_DENIED");
    assert!(!format!("{credential:?}").contains(ours.secret()));
}
