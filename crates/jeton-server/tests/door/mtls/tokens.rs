//! Bearer tokens beside certificates.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, header::AUTHORIZATION};
use jeton_access::{Authenticated, BearerTokens, Rejected};
use jeton_core::{BoxFuture, Wall};
use jeton_server::door::{ClientCertificates, DoorSettings};

use super::made::{Made, Wanted, as_whom, connect, spiffe, trusting};
use crate::{
    log::Log,
    support::{Callers, Peer, open_for, peer, request, until},
};

/// "remembered" is known at once, "good" when it is verified; "slow" never is, and "later" cannot be now.
#[derive(Debug)]
struct Tokens;

fn named(name: &str) -> Authenticated {
    Authenticated { principal: format!("oidc://issuer/{name}").parse().unwrap(), until: None }
}

impl BearerTokens for Tokens {
    fn remembered(&self, token: &str, _: Wall) -> Option<Authenticated> {
        (token == "remembered").then(|| named(token))
    }

    fn verify<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Authenticated, Rejected>> {
        Box::pin(async move {
            match token {
                "good" => Ok(named(token)),
                "slow" => std::future::pending().await,
                "later" => Err(Rejected::Unavailable("the keys cannot be fetched".into())),
                _ => Err(Rejected::Credential("its signature is wrong".into())),
            }
        })
    }
}

/// The caller by the service's word, or the status.
async fn asked(peer: &mut Peer, headers: &[&str]) -> Result<String, String> {
    let mut request = request("0");
    for header in headers {
        request.headers_mut().append(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
    }
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("300m"));
    let answer = peer.call(request).await.unwrap();
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    header("caller")
        .ok_or_else(|| format!("{} {}", header("grpc-status").unwrap(), header("grpc-message").unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_names_the_caller_of_its_request_and_nobody_is_let_in_without() {
    let log = Log::of_a_door();
    let callers = Callers { name: log.door, bearer: Some(Arc::new(Tokens)), ..Callers::default() };
    let door = open_for(DoorSettings::default(), false, callers).await;
    let mut peer = peer(door.address).await;
    assert_eq!(asked(&mut peer, &["Bearer remembered"]).await.as_deref(), Ok("oidc://issuer/remembered"));
    assert_eq!(asked(&mut peer, &["bearer good"]).await.as_deref(), Ok("oidc://issuer/good"));
    let mut heard = vec![];
    for (headers, reason) in [
        (&[][..], "neither a certificate nor a bearer token"),
        (&["Bearer bad"], "its signature is wrong"),
        (&["Basic good"], "not one bearer token"),
        (&["Bearer good", "Bearer good"], "not one bearer token"),
    ] {
        // Lines of a door come once in a second.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let refused = asked(&mut peer, headers).await.unwrap_err();
        assert!(refused.starts_with("16 ") && !refused.contains("signature"), "{refused}");
        heard.push(refused);
        until("the operator hears why", || log.text().contains(reason)).await;
    }
    heard.dedup();
    assert_eq!(heard.len(), 1, "all hear the same");
    assert_eq!((door.stats)().unauthenticated, 4);
    assert!(asked(&mut peer, &["Bearer later"]).await.unwrap_err().starts_with("14 "));
    assert!(
        asked(&mut peer, &["Bearer slow"]).await.unwrap_err().starts_with("4 "),
        "the request's deadline"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_over_the_certificate_and_a_bad_one_is_not_passed_over() {
    let made = Made::new();
    let ca = made.path("ca.pem");
    let tls = trusting(&made, ClientCertificates::Optional, &[(ca.as_path(), spiffe("prod.example"))]);
    let callers = Callers { tls: Some(tls), bearer: Some(Arc::new(Tokens)), ..Callers::default() };
    let door = open_for(DoorSettings::default(), false, callers).await;
    let api = made.signed("api", "ca", &Wanted::default());
    let mut both = connect(door.address, &ca, Some(&api)).await.unwrap();
    assert_eq!(asked(&mut both, &[]).await.as_deref(), Ok("spiffe://prod.example/api"));
    assert_eq!(asked(&mut both, &["Bearer good"]).await.as_deref(), Ok("oidc://issuer/good"));
    assert!(asked(&mut both, &["Bearer bad"]).await.unwrap_err().starts_with("16 "));
    assert_eq!(asked(&mut both, &[]).await.as_deref(), Ok("spiffe://prod.example/api"));
    let mut token_alone = connect(door.address, &ca, None).await.unwrap();
    assert!(asked(&mut token_alone, &[]).await.unwrap_err().starts_with("16 "));
    assert_eq!(
        asked(&mut token_alone, &["Bearer remembered"]).await.as_deref(),
        Ok("oidc://issuer/remembered")
    );
    // A certificate that is shown must be good, token or not.
    assert!(as_whom(door.address, &ca, Some(&made.self_signed("self"))).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_takes_no_tokens_does_not_look_at_them() {
    let made = Made::new();
    let ca = made.path("ca.pem");
    let tls = trusting(&made, ClientCertificates::Required, &[(ca.as_path(), spiffe("prod.example"))]);
    let door =
        open_for(DoorSettings::default(), false, Callers { tls: Some(tls), ..Callers::default() }).await;
    let api = made.signed("api", "ca", &Wanted::default());
    let mut peer = connect(door.address, &ca, Some(&api)).await.unwrap();
    assert_eq!(asked(&mut peer, &["Bearer good"]).await.as_deref(), Ok("spiffe://prod.example/api"));
}
