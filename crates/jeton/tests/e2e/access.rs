//! Who may have what, over the API.

use jeton_proto::v1;
use tonic::Code;

use crate::support::{VAULT, World, reason, token};

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_counts_from_the_next_request_on_and_so_does_taking_it_back() {
    let world = World::start().await;
    let broker = &world.broker;
    broker.json(&["identity", "create", "payroll", "--authority", "entra"]);
    let mut client = broker.tokens().await;
    let refused = token(&mut client, "identities/payroll", VAULT).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "ACCESS_DENIED"));
    let made = broker.json(&[
        "access",
        "assign",
        "--member",
        "workloads/demo",
        "--identity",
        "identities/payroll",
        "--target",
        VAULT,
    ]);
    // Often enough to be remembered.
    for _ in 0..5 {
        token(&mut client, "identities/payroll", VAULT).await.unwrap();
    }
    let shown = broker.json(&["identity", "get", "payroll"]);
    assert_eq!(shown["consumers"], serde_json::json!(["workloads/demo"]));
    assert!(shown["last_use_time"].is_string(), "{shown}");
    // The local user belongs to the same workload; somebody else would not.
    token(&mut broker.local_tokens().await, "identities/payroll", VAULT).await.unwrap();
    let other =
        token(&mut client, "identities/payroll", "https://orders.example/.default").await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    assert!(broker.jeton(&["access", "remove", made["name"].as_str().unwrap()]).status.success());
    let refused = token(&mut client, "identities/payroll", VAULT).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "the token in memory is no way around");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_explained_to_the_operator_and_not_to_the_caller() {
    let world = World::start().await;
    let broker = &world.broker;
    broker.json(&["identity", "create", "payroll", "--authority", "entra"]);
    let mut client = broker.tokens().await;
    let mut said = vec![];
    for name in ["identities/payroll", "identities/nobody"] {
        let refused = token(&mut client, name, VAULT).await.unwrap_err();
        use tonic_types::StatusExt;
        let id = refused.get_details_error_info().unwrap().metadata["correlation_id"].clone();
        let explained = broker.json(&["access", "explain", "--correlation", &id]);
        assert_eq!(explained["principal"], "loopback://dev");
        said.push((refused.message().replace(&id, "ID"), explained["reason"].as_str().unwrap().to_owned()));
    }
    assert_eq!(said[0].0, said[1].0, "a caller cannot tell one from the other");
    assert!(said[1].1.contains("does not exist") && !said[0].1.contains("does not exist"), "{said:?}");
    let dry = broker.json(&[
        "access",
        "explain",
        "--principal",
        "loopback://dev",
        "--identity",
        "payroll",
        "--target",
        VAULT,
    ]);
    assert_eq!(dry["allowed"], false);
    assert!(dry["remedy"].as_str().unwrap().contains("jeton access assign"), "{dry}");
    let allowed = broker.json(&[
        "access",
        "explain",
        "--principal",
        "loopback://dev",
        "--identity",
        "billing",
        "--target",
        VAULT,
    ]);
    assert_eq!(allowed["allowed"], true, "{allowed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_made_again_inherits_nothing() {
    let world = World::start().await;
    let broker = &world.broker;
    broker.json(&["identity", "create", "payroll", "--authority", "entra"]);
    broker.json(&[
        "access",
        "assign",
        "--member",
        "workloads/demo",
        "--identity",
        "payroll",
        "--target",
        "*",
    ]);
    let mut client = broker.tokens().await;
    token(&mut client, "identities/payroll", VAULT).await.unwrap();
    assert!(broker.jeton(&["identity", "delete", "payroll", "--yes"]).status.success());
    broker.json(&["identity", "create", "payroll", "--authority", "entra"]);
    let refused = token(&mut client, "identities/payroll", VAULT).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_identity_gives_no_token_until_it_is_enabled() {
    let world = World::start().await;
    let broker = &world.broker;
    let mut client = broker.tokens().await;
    for _ in 0..5 {
        token(&mut client, "identities/reports", VAULT).await.unwrap();
    }
    broker.json(&["identity", "disable", "reports"]);
    assert_eq!(
        token(&mut client, "identities/reports", VAULT).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    broker.json(&["identity", "enable", "reports"]);
    token(&mut client, "identities/reports", VAULT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_token_while_the_right_to_it_is_taken_back_gets_none() {
    let world = World::start().await;
    let client_id = world.broker.client_id("identities/billing");
    world.sandbox.settings(serde_json::json!({"latency_ms": 3_000})).await;
    let mut client = world.broker.tokens().await;
    let scope = "https://orders.example/.default";
    let waiting = tokio::spawn(async move { token(&mut client, "identities/billing", scope).await });
    while world.sandbox.requests(&client_id, scope).await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(world.broker.jeton(&["access", "remove", "demo-billing-1"]).status.success());
    assert_eq!(waiting.await.unwrap().unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_gets_the_token_and_every_new_one_and_ends_with_its_assignment() {
    use v1::{watch_tokens_request::Action, watch_tokens_response::Event};
    let world = World::start().await;
    world.sandbox.settings(serde_json::json!({"token_lifetime_seconds": 6})).await;
    let broker = &world.broker;
    let request = v1::GetTokenRequest {
        identity: "identities/orders".into(),
        scopes: vec!["orders.read".into()],
        ..Default::default()
    };
    let add = v1::WatchTokensAdd { id: "a".into(), request: Some(request) };
    let (tell, told) = tokio::sync::mpsc::channel(4);
    tell.send(v1::WatchTokensRequest { action: Some(Action::Add(add)) }).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(told);
    let mut events = broker.tokens().await.watch_tokens(stream).await.unwrap().into_inner();
    let mut seen = std::collections::HashSet::new();
    while seen.len() < 3 {
        let event = events.message().await.unwrap().unwrap();
        assert_eq!(event.id, "a");
        let Some(Event::Token(response)) = event.event else { panic!("{event:?}") };
        seen.insert(response.token.unwrap().access_token);
    }
    assert!(broker.jeton(&["access", "remove", "demo-orders"]).status.success());
    let ended = loop {
        match events.message().await {
            Ok(Some(event)) => {
                if let Some(Event::Failure(failure)) = event.event {
                    break failure.reason;
                }
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ended, "ACCESS_DENIED");
    assert_eq!(
        events.message().await.unwrap_err().code(),
        Code::PermissionDenied,
        "nothing is left to watch"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_each_request_by_itself() {
    let world = World::start().await;
    let requests =
        [("identities/billing", VAULT), ("identities/nobody", VAULT), ("identities/orders", "orders.read")];
    let requests = requests.map(|(identity, scope)| crate::support::request(identity, scope)).to_vec();
    let answer = world
        .broker
        .tokens()
        .await
        .batch_get_tokens(v1::BatchGetTokensRequest { requests })
        .await
        .unwrap()
        .into_inner();
    use v1::batch_get_tokens_result::Outcome;
    let outcomes: Vec<_> = answer
        .results
        .into_iter()
        .map(|r| match r.outcome.unwrap() {
            Outcome::Response(response) => response.token.unwrap().identity,
            Outcome::Failure(failure) => failure.reason,
        })
        .collect();
    assert_eq!(outcomes, ["identities/billing", "ACCESS_DENIED", "identities/orders"]);
}
