//! One caller that asks for too much.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use jeton_proto::v1::{self, token_service_client::TokenServiceClient};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{VAULT, World, reason, token};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_claims_of_one_caller_are_refused_and_nobody_else_notices() {
    let world = World::start().await;
    let mut other = world.broker.local_tokens().await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let neighbour = tokio::spawn(async move {
        let mut answers = 0;
        while !stopped.load(Relaxed) {
            token(&mut other, "identities/billing", VAULT).await?;
            answers += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<u64, tonic::Status>(answers)
    });
    let mut floods = vec![];
    for connection in 0..10 {
        let channel = world.broker.tcp().await;
        for lane in 0..10 {
            let mut client = TokenServiceClient::new(channel.clone());
            floods.push(tokio::spawn(async move {
                let mut refused = 0_u32;
                for n in 0..500 {
                    let claims = format!(r#"{{"access_token":{{"nbf":{{"essential":true,"value":"{connection}-{lane}-{n}"}}}}}}"#);
                    let request = v1::GetTokenRequest {
                        identity: "identities/billing".into(),
                        scopes: vec![VAULT.into()],
                        claims,
                        min_validity: None,
                        resources: vec![],
                    };
                    match client.get_token(request).await {
                        Ok(_) => {}
                        // On a busy machine the flood waits for itself.
                        Err(status) if status.code() == Code::DeadlineExceeded => {}
                        Err(status) => {
                            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                            // Its own limit; and the authority's budget, for which what is within the limit waits.
                            assert!(matches!(reason(&status).as_str(), "CALLER_OVER_LIMIT" | "OVERLOADED"), "{status}");
                            let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
                            assert!(delay.is_some_and(|d| !d.is_zero()), "{status}");
                            refused += 1;
                        }
                    }
                }
                refused
            }));
        }
    }
    let mut refused = 0;
    for flood in floods {
        refused += flood.await.unwrap();
    }
    stop.store(true, Relaxed);
    assert!(refused > 40_000, "{refused} of 50,000 refused");
    assert!(neighbour.await.unwrap().unwrap() > 0);
}
