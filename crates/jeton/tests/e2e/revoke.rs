//! Tokens that are taken back: the authority refuses them, the broker never serves them again, and its watchers hear of it.

use jeton_proto::v1::{self, watch_tokens_request::Action, watch_tokens_response::Event};
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{Sandbox, VAULT, World, client, request, token};

const ORDERS: &str = "identities/orders";
const BILLING: &str = "identities/billing";
const SCOPE: &str = "orders.read";

/// A resource of the OIDC-shaped tenant, which asks it what a token is worth.
struct Resource {
    url: String,
    http: jeton_authority::Http,
    client: Value,
}

impl Resource {
    async fn of(sandbox: &Sandbox) -> Self {
        let metadata = json!({
            "client_name": "resource", "redirect_uris": [], "response_types": [],
            "grant_types": ["client_credentials"], "token_endpoint_auth_method": "client_secret_post",
        });
        let client_of = sandbox.register(metadata).await;
        let url = sandbox.text("/oidc/introspection_endpoint").to_owned();
        Self { url, http: client(&sandbox.info["ca_file"]), client: client_of }
    }

    async fn takes(&self, token: &str) -> bool {
        let form = [
            ("client_id", self.client["client_id"].as_str().unwrap()),
            ("client_secret", self.client["client_secret"].as_str().unwrap()),
            ("token", token),
        ];
        let answer = self.http.form(&self.url, &[], &form).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.json);
        answer.json["active"].as_bool().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_taken_back_is_refused_and_no_kill_brings_it_back() {
    let mut world = World::start().await;
    let resource = Resource::of(&world.sandbox).await;
    let mut tokens = world.broker.tokens().await;
    let orders = token(&mut tokens, ORDERS, SCOPE).await.unwrap().access_token;
    let vault = token(&mut tokens, BILLING, VAULT).await.unwrap();
    assert!(resource.takes(&orders).await);
    // One authority revokes, the other does not.
    let done = world.broker.json(&["access", "revoke", "--identity", "orders", "--request-id", "r1"]);
    assert_eq!((&done["dropped"], &done["revoked"], &done["not_revoked"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(done["valid_until"], Value::Null);
    assert!(!resource.takes(&orders).await);
    let next = token(&mut tokens, ORDERS, SCOPE).await.unwrap().access_token;
    assert_ne!(next, orders);
    assert!(resource.takes(&next).await);
    // The same request changes nothing more, and gets the same answer; another one under its id gets none.
    assert_eq!(world.broker.json(&["access", "revoke", "--identity", "orders", "--request-id", "r1"]), done);
    assert!(resource.takes(&next).await);
    let reused = world.broker.jeton(&["access", "revoke", "--authority", "oidc", "--request-id", "r1"]);
    assert!(String::from_utf8_lossy(&reused.stderr).contains("REQUEST_ID_REUSED"), "{reused:?}");
    let done = world.broker.json(&["access", "revoke", "--all", "--yes"]);
    assert!(done["not_revoked"].as_u64().unwrap() >= 1 && done["revoked"].as_u64().unwrap() >= 1, "{done}");
    assert!(
        done["valid_until"].as_str().unwrap() >= vault.expires_at.unwrap().to_string().as_str(),
        "{done}"
    );
    world.broker.process.kill();
    world.restart(&[]);
    let kept = world.broker.json(&["token", "list"]);
    let kept: Vec<_> = kept.as_array().unwrap().iter().map(|t| t["identity"].as_str().unwrap()).collect();
    assert!(!kept.contains(&ORDERS), "{kept:?}");
    let mut tokens = world.broker.tokens().await;
    let after = token(&mut tokens, ORDERS, SCOPE).await.unwrap().access_token;
    assert!(
        ![&orders, &next].contains(&&after) && resource.takes(&after).await && !resource.takes(&next).await
    );
    assert_ne!(token(&mut tokens, BILLING, VAULT).await.unwrap().access_token, vault.access_token);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_identity_has_its_tokens_revoked_and_a_watch_ends_with_the_reason() {
    let world = World::start().await;
    let broker = &world.broker;
    let resource = Resource::of(&world.sandbox).await;
    let add = v1::WatchTokensAdd { id: "a".into(), request: Some(request(ORDERS, SCOPE)) };
    let (tell, told) = tokio::sync::mpsc::channel(4);
    tell.send(v1::WatchTokensRequest { action: Some(Action::Add(add)) }).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(told);
    let mut events = broker.tokens().await.watch_tokens(stream).await.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap().event;
    assert!(matches!(first, Some(Event::Token(_))), "{first:?}");
    broker.json(&["access", "revoke", "--authority", "oidc"]);
    let word = events.message().await.unwrap().unwrap().event;
    assert!(matches!(&word, Some(Event::Failure(f)) if f.reason == "TOKENS_REVOKED"), "{word:?}");
    assert_eq!(events.message().await.unwrap_err().code(), Code::Aborted);
    let mut tokens = broker.tokens().await;
    let held = token(&mut tokens, ORDERS, SCOPE).await.unwrap().access_token;
    let disabled = broker.json(&["identity", "disable", "orders", "--request-id", "d1"]);
    let (state, revocation) = (&disabled["state"], &disabled["revocation"]);
    assert_eq!((state, &revocation["revoked"]), (&json!("DISABLED"), &json!(1)), "{revocation}");
    assert!(!resource.takes(&held).await);
    assert_eq!(token(&mut tokens, ORDERS, SCOPE).await.unwrap_err().code(), Code::PermissionDenied);
    // An authority that fails is told of, and the next token is another one all the same.
    broker.json(&["identity", "enable", "orders"]);
    let held = token(&mut tokens, ORDERS, SCOPE).await.unwrap().access_token;
    world.sandbox.settings(json!({"error": {"rate": 1.0, "status": 500, "retry_after_seconds": 0}})).await;
    let done = broker.json(&["access", "revoke", "--identity", "orders"]);
    assert_eq!((&done["revoked"], &done["not_revoked"]), (&json!(0), &json!(1)), "{done}");
    assert!(done["valid_until"].is_string(), "{done}");
    world.sandbox.settings(json!({"error": {"rate": 0.0}})).await;
    assert!(resource.takes(&held).await, "it stays valid, as the answer said");
    assert_ne!(token(&mut tokens, ORDERS, SCOPE).await.unwrap().access_token, held);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_back_unless_it_is_named() {
    let world = World::start().await;
    let broker = &world.broker;
    let mut tokens = broker.tokens().await;
    let held = token(&mut tokens, BILLING, VAULT).await.unwrap().access_token;
    for (arguments, said) in [
        (vec!["access", "revoke"], "required"),
        (vec!["access", "revoke", "--identity", "billing", "--all"], "cannot be used with"),
        (vec!["access", "revoke", "--all"], "--yes"),
        (vec!["access", "revoke", "--identity", "billing2"], "does not exist"),
    ] {
        let output = broker.jeton(&arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(said), "{arguments:?}: {error}");
    }
    for scope in [None, Some(v1::revoke_tokens_request::Scope::Everything(false))] {
        let wrong = v1::RevokeTokensRequest { scope, ..Default::default() };
        let refused = broker.access().await.revoke_tokens(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    assert_eq!(token(&mut tokens, BILLING, VAULT).await.unwrap().access_token, held);
}
