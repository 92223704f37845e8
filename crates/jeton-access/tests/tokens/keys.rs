//! Keys that come, go and cannot be had.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use jeton_access::{BearerTokens, IssuerKind, Rejected, testing::MemoryKeySet};
use serde_json::json;

use crate::world::{Key, World, issuer};

fn with_kid(world: &World, key: &Key, kid: &str) -> String {
    key.token(&json!({"alg": "ES256", "kid": kid}), &world.claims().to_string())
}

#[tokio::test(start_paused = true)]
async fn a_key_that_came_since_is_fetched_once_for_all_who_wait() {
    let world = World::oidc();
    world.verify(&world.token(&json!({}))).await.unwrap();
    world.clock.advance(Duration::from_secs(30)).await;
    let next = Key::p256();
    world.keys.publish(&[world.key.jwk("k1"), next.jwk("k2")]);
    let token = with_kid(&world, &next, "k2");
    let all = join_all((0..100).map(|_| world.verify(&token))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(world.keys.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_tokens_with_random_keys_cost_one_fetch_in_thirty_seconds() {
    let world = World::oidc();
    world.verify(&world.token(&json!({}))).await.unwrap();
    for n in 0..10_000 {
        let token = with_kid(&world, &world.key, &format!("random-{n}"));
        assert!(world.refused(&token).await.contains("publishes no key called"));
        if n % 100 == 0 {
            world.clock.advance(Duration::from_secs(1)).await;
        }
    }
    // 100 seconds: one at the start, and one for each full half minute.
    assert_eq!(world.keys.fetches(), 4);
    let still = world.token(&json!({"jti": "good"}));
    assert!(world.verify(&still).await.is_ok(), "good tokens are none the worse");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_taken_back_stops_counting_and_so_does_what_it_verified() {
    let world = World::oidc();
    let (old, next) = (world.token(&json!({})), Key::p256());
    world.verify(&old).await.unwrap();
    world.keys.publish(&[world.key.jwk("k1"), next.jwk("k2")]);
    world.clock.advance(Duration::from_secs(301)).await;
    assert!(world.verify(&old).await.is_ok() && world.remembers(&old));
    world.keys.publish(&[next.jwk("k2")]);
    world.clock.advance_in_steps(Duration::from_secs(270), Duration::from_secs(10)).await;
    assert!(world.verify(&old).await.is_ok() && world.remembers(&old), "nobody has told yet");
    world.clock.advance(Duration::from_secs(31)).await;
    assert!(!world.remembers(&old));
    let old = world.token(&json!({"jti": "later"}));
    assert!(world.refused(&old).await.contains("publishes no key called \"k1\""));
    assert!(world.verify(&with_kid(&world, &next, "k2")).await.is_ok());
    world.keys.publish(&[]);
    world.clock.advance_in_steps(Duration::from_secs(300), Duration::from_secs(10)).await;
    assert!(world.verify(&with_kid(&world, &next, "k2")).await.is_err(), "an empty set takes back all");
}

#[tokio::test(start_paused = true)]
async fn keys_in_a_file_count_two_seconds_after_it_changed() {
    let mut in_file = issuer(IssuerKind::Oidc);
    in_file.jwks_file = "keys.json".into();
    let world = World::new(in_file);
    let (old, next) = (world.token(&json!({})), Key::p256());
    world.verify(&old).await.unwrap();
    world.keys.publish(&[next.jwk("k2")]);
    world.clock.advance(Duration::from_secs(3)).await;
    assert!(!world.remembers(&old));
    assert!(world.refused(&old).await.contains("publishes no key"));
    assert!(world.verify(&with_kid(&world, &next, "k2")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_another_key_took_over_is_that_keys() {
    let world = World::oidc();
    let (token, next) = (world.token(&json!({})), Key::p256());
    world.verify(&token).await.unwrap();
    world.keys.publish(&[next.jwk("k1")]);
    world.clock.advance_in_steps(Duration::from_secs(301), Duration::from_secs(10)).await;
    assert!(world.refused(&token).await.contains("signature is not"));
    assert!(world.verify(&with_kid(&world, &next, "k1")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn known_keys_stay_while_the_issuer_cannot_be_asked_and_unknown_ones_are_undecided() {
    let world = World::oidc();
    world.verify(&world.token(&json!({}))).await.unwrap();
    world.keys.fail("connection refused");
    world.clock.advance_in_steps(Duration::from_secs(500), Duration::from_secs(10)).await;
    assert!(world.verify(&world.token(&json!({}))).await.is_ok());
    let next = Key::p256();
    let said = world.undecided(&with_kid(&world, &next, "k2")).await;
    assert!(said.contains("k2") && said.contains("connection refused"), "{said}");
    world.keys.publish(&[next.jwk("k2")]);
    world.clock.advance(Duration::from_secs(31)).await;
    assert!(world.verify(&with_kid(&world, &next, "k2")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_never_answers_keeps_nobody_longer_than_a_fetch() {
    let world = World::oidc();
    world.keys.hang();
    let begun = tokio::time::Instant::now();
    let said = world.undecided(&world.token(&json!({}))).await;
    assert!(said.contains("no answer within 5 s"), "{said}");
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(world.undecided(&world.token(&json!({}))).await, said);
    assert_eq!(begun.elapsed().as_secs(), 5, "the next ones do not wait at all");
    let failing = world.tokens.failing();
    assert!(failing.len() == 1 && failing[0].1.contains("no answer within 5 s"), "{failing:?}");
    world.keys.publish(&[world.key.jwk("k1")]);
    world.clock.advance(Duration::from_secs(31)).await;
    assert!(world.verify(&world.token(&json!({}))).await.is_ok());
    assert_eq!(world.tokens.failing(), []);
}

#[tokio::test(start_paused = true)]
async fn a_set_that_is_none_changes_nothing() {
    let world = World::oidc();
    world.verify(&world.token(&json!({}))).await.unwrap();
    let many: Vec<_> = (0..101).map(|n| world.key.jwk(&n.to_string())).collect();
    world.keys.publish(&many);
    world.clock.advance_in_steps(Duration::from_secs(301), Duration::from_secs(10)).await;
    assert!(world.verify(&world.token(&json!({}))).await.is_ok());
    assert!(world.undecided(&with_kid(&world, &world.key, "5")).await.contains("101 keys"));
}

#[tokio::test(start_paused = true)]
async fn two_keys_of_one_name_verify_nothing_and_the_others_still_do() {
    let world = World::oidc();
    let other = Key::p256();
    world.keys.publish(&[world.key.jwk("k1"), other.jwk("k1"), Key::rsa().jwk("rsa")]);
    assert!(world.refused(&world.token(&json!({}))).await.contains("several keys called \"k1\""));
    let token = Key::rsa().token(&json!({"alg": "RS256", "kid": "rsa"}), &world.claims().to_string());
    assert!(world.verify(&token).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_takes_no_fetch_along() {
    let world = World::oidc();
    world.verify(&world.token(&json!({}))).await.unwrap();
    world.clock.advance(Duration::from_secs(31)).await;
    let next = Key::p256();
    world.keys.publish(&[next.jwk("k2")]);
    let token = with_kid(&world, &next, "k2");
    {
        let tokens = Arc::clone(&world.tokens);
        let mut leaving = tokens.verify(&token);
        assert!(futures_util::poll!(&mut leaving).is_pending());
    }
    assert!(world.verify(&token).await.is_ok());
    assert_eq!(world.keys.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn of_clusters_with_the_same_issuer_the_key_says_which_it_was() {
    let (mut west, keys, other) = (issuer(IssuerKind::Kubernetes), MemoryKeySet::default(), Key::p256());
    west.cluster = "west".into();
    keys.publish(&[other.jwk("w1")]);
    let world = World::beside(issuer(IssuerKind::Kubernetes), vec![(west, keys.clone())]);
    let mut claims = world.claims();
    claims["sub"] = "system:serviceaccount:pay:api".into();
    claims["kubernetes.io"] = json!({"namespace": "pay", "serviceaccount": {"name": "api", "uid": "u1"}});
    let of = |key: &Key, kid: &str| key.token(&json!({"alg": "ES256", "kid": kid}), &claims.to_string());
    assert_eq!(world.principal(&of(&world.key, "k1")).await, "k8s://east/pay/api");
    assert_eq!(world.principal(&of(&other, "w1")).await, "k8s://west/pay/api");
    assert!(world.refused(&of(&other, "k1")).await.contains("signature is not"));
    assert!(world.refused(&of(&other, "new")).await.contains("publishes no key called \"new\""));
    keys.fail("connection refused");
    world.clock.advance_in_steps(Duration::from_secs(300), Duration::from_secs(10)).await;
    assert!(world.undecided(&of(&other, "new")).await.contains("connection refused"));
    assert_eq!(world.principal(&of(&other, "w1")).await, "k8s://west/pay/api");
}

#[tokio::test(start_paused = true)]
async fn the_configuration_may_pin_the_algorithm() {
    let mut pinned = issuer(IssuerKind::Oidc);
    pinned.algorithms = vec!["PS256".into()];
    let world = World::new(pinned);
    world.keys.publish(&[Key::rsa().jwk("rsa"), world.key.jwk("k1")]);
    let token = |alg: &str| Key::rsa().token(&json!({"alg": alg, "kid": "rsa"}), &world.claims().to_string());
    assert!(world.verify(&token("PS256")).await.is_ok());
    assert!(world.refused(&token("RS256")).await.contains("does not sign"));
    assert!(matches!(world.verify(&world.token(&json!({}))).await, Err(Rejected::Credential(_))));
}
