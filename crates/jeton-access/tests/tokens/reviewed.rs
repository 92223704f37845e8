//! Tokens whose cluster is asked whether they still count.

use std::time::Duration;

use futures_util::future::join_all;
use jeton_access::{BearerTokens, IssuerKind, Reviewed, TokenReviewSettings};
use serde_json::json;

use crate::world::{World, issuer};

fn world() -> World {
    let mut reviewed = issuer(IssuerKind::Kubernetes);
    reviewed.token_review = Some(TokenReviewSettings {
        api_server: "https://kubernetes.example".into(),
        ca_file: String::new(),
        token_file: "token".into(),
    });
    World::new(reviewed)
}

fn pod_token(world: &World, id: &str) -> String {
    let bound = json!({
        "namespace": "pay", "serviceaccount": {"name": "api", "uid": "u1"}, "pod": {"name": "api-0", "uid": "p1"},
    });
    world.token(&json!({"jti": id, "sub": "system:serviceaccount:pay:api", "kubernetes.io": bound}))
}

fn accepted() -> Reviewed {
    Reviewed {
        authenticated: true,
        username: "system:serviceaccount:pay:api".into(),
        uid: "u1".into(),
        audiences: vec!["jeton".into()],
        pod_uid: Some("p1".into()),
        ..Reviewed::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_deleted_pod_stops_within_a_minute() {
    let world = world();
    let token = pod_token(&world, "1");
    world.review.know(&token, accepted());
    assert_eq!(world.principal(&token).await, "k8s://east/pay/api");
    world.review.forget(&token);
    world.clock.advance(Duration::from_secs(44)).await;
    assert!(world.remembers(&token));
    world.clock.advance(Duration::from_secs(1)).await;
    assert!(!world.remembers(&token));
    assert!(world.refused(&token).await.contains("no longer accepts the token: \"unknown token\""));
    assert!(!world.remembers(&token));
}

#[tokio::test(start_paused = true)]
async fn all_who_show_one_token_at_once_wait_for_one_answer() {
    let world = world();
    let token = pod_token(&world, "1");
    world.review.know(&token, accepted());
    let all = join_all((0..1_000).map(|_| world.verify(&token))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(world.review.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_who_asks_may_leave_and_the_others_have_the_answer() {
    let world = world();
    let token = pod_token(&world, "1");
    world.review.know(&token, accepted());
    world.review.hang(true);
    let mut first = world.tokens.verify(&token);
    // The keys come first.
    while world.review.asked() == 0 {
        assert!(futures_util::poll!(&mut first).is_pending());
        tokio::task::yield_now().await;
    }
    let mut second = world.tokens.verify(&token);
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);
    world.review.hang(false);
    assert!(second.await.is_ok());
    assert_eq!(world.review.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_nobody_gets_in_and_nothing_is_remembered() {
    let world = world();
    let token = pod_token(&world, "1");
    world.review.know(&token, accepted());
    world.review.fail(Some("connection refused"));
    assert!(world.undecided(&token).await.contains("connection refused"));
    world.review.fail(None);
    world.review.hang(true);
    assert!(world.undecided(&token).await.contains("no answer within 5 s"));
    assert!(!world.remembers(&token));
    world.review.hang(false);
    assert!(world.verify(&token).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_for_ten_seconds_so_that_it_costs_the_cluster_little() {
    let world = world();
    let token = pod_token(&world, "1");
    for _ in 0..1_000 {
        world.refused(&token).await;
    }
    assert_eq!(world.review.asked(), 1);
    world.clock.advance(Duration::from_secs(10)).await;
    world.review.know(&token, accepted());
    assert!(world.verify(&token).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_asked_little_at_once_and_never_for_a_token_that_it_did_not_sign() {
    let world = world();
    world.verify(&pod_token(&world, "first")).await.unwrap_err();
    world.review.hang(true);
    let tokens: Vec<_> = (0..200).map(|n| pod_token(&world, &n.to_string())).collect();
    let mut all = join_all(tokens.iter().map(|token| world.verify(token)));
    for _ in 0..10 {
        assert!(futures_util::poll!(&mut all).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(world.review.asked(), 1 + 32);
    world.review.hang(false);
    assert_eq!(all.await.len(), 200);
    let forged = tokens[0].rsplit_once('.').unwrap().0.to_owned() + ".AAAA";
    assert!(world.refused(&forged).await.contains("signature is not"));
    assert_eq!(world.review.asked(), 1 + 200);
}

#[tokio::test(start_paused = true)]
async fn an_answer_about_somebody_else_is_a_refusal() {
    let world = world();
    for (n, change) in [
        (|r| r.uid = "u2".into()) as fn(&mut Reviewed),
        |r| r.pod_uid = Some("p2".into()),
        |r| r.pod_uid = None,
        |r| r.audiences = vec![],
        |r| r.username = "system:serviceaccount:pay:admin".into(),
    ]
    .into_iter()
    .enumerate()
    {
        let (token, mut answer) = (pod_token(&world, &n.to_string()), accepted());
        change(&mut answer);
        world.review.know(&token, answer);
        world.refused(&token).await;
    }
}
