//! What an authority answers, and what that does to tokens and to those who ask.

use jeton_core::{Clock, Freshness, serve_floor};
use jeton_engine::{
    EngineSettings, Hit, IssueErrorClass, Rejected, TokenError,
    testing::{Script, caller, failure, key},
};
use proptest::prelude::*;
use secrecy::ExposeSecret;

use crate::world::{MS, S, World};

#[tokio::test(start_paused = true)]
async fn an_authority_that_is_down_costs_warm_callers_nothing_until_the_floor() {
    let world = World::new().await;
    let it = key(1, "a");
    world.token(&it).await.unwrap();
    world.fail(IssueErrorClass::Transient, None);
    for _ in 0..350 {
        world.clock.advance(S(10)).await;
        let hit = world.engine.cached(&it).expect("a valid token beats an error");
        world.check(&it, &hit);
    }
    world.source.script_all(Script::default());
    let before = world.source.requests(&it).len();
    world.clock.advance(S(60)).await;
    assert!(world.source.requests(&it).len() > before, "asked again within 60 s");
    assert_eq!(world.engine.cached(&it).unwrap().state, Freshness::Fresh);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_refusal_keeps_the_valid_token_and_asks_rarely() {
    let world = World::new().await;
    let it = key(1, "a");
    world.token(&it).await.unwrap();
    world.fail(IssueErrorClass::Permanent, None);
    world.clock.advance(S(3_500)).await;
    assert!(world.engine.cached(&it).is_some());
    let requests = world.source.requests(&it);
    assert!(requests.len() <= 1 + 5 + 3, "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn our_own_refusal_evicts_at_once() {
    let world = World::new().await;
    let it = key(1, "a");
    world.token(&it).await.unwrap();
    world.fail(IssueErrorClass::Denied, None);
    world.clock.advance(S(2_000)).await;
    assert!(world.engine.cached(&it).is_none());
    assert!(matches!(world.token(&it).await, Err(TokenError::Denied)));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_dies_leaves_nobody_waiting_and_is_asked_again() {
    let world = World::new().await;
    let it = key(1, "a");
    world.source.script_all(Script { dies: true, ..Script::default() });
    let Err(TokenError::Authority(error)) = world.token(&it).await else { panic!("nothing was issued") };
    assert_eq!(error.class, IssueErrorClass::Transient);
    world.source.script_all(Script::default());
    world.clock.advance(S(60)).await;
    world.token(&it).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_request_comes_inside_retry_after_not_even_after_a_restart() {
    let world = World::new().await;
    let it = key(1, "a");
    world.fail(IssueErrorClass::Throttled, Some(S(300)));
    world.token(&it).await.unwrap_err();
    for _ in 0..10 {
        let Err(TokenError::Authority(error)) = world.token(&it).await else { panic!("held back") };
        assert!(error.retry_after.is_some());
        world.clock.advance(S(10)).await;
    }
    let world = world.restart(&EngineSettings::default()).await;
    world.source.script_all(Script::default());
    world.token(&it).await.unwrap_err();
    assert_eq!(world.source.requests(&it).len(), 1);
    world.clock.advance(S(200)).await;
    world.token(&it).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_holds_back_those_who_wait_for_a_permit_and_is_never_shortened() {
    let world = World::new().await;
    world.source.script_all(Script {
        failure: Some(failure(IssueErrorClass::Throttled, Some(S(60)))),
        latency: S(1),
        ..Script::default()
    });
    let keys: Vec<_> = (0..300).map(|n| key(1, &format!("t{n}"))).collect();
    for it in &keys {
        let (engine, ask, it) = (world.engine.clone(), world.ask(1), it.clone());
        tokio::spawn(async move { engine.token(&it, ask).await });
    }
    let start = world.clock.now().boot;
    world.clock.advance(MS(900)).await;
    // What was under way when the first answer came is told otherwise, and that counts for nothing.
    world.source.script_all(Script {
        failure: Some(failure(IssueErrorClass::Throttled, Some(S(2)))),
        latency: S(1),
        ..Script::default()
    });
    world.clock.advance(S(55)).await;
    let late = world.source.all_requests().iter().filter(|at| at.saturating_since(start) > S(1)).count();
    assert_eq!(late, 0, "requests inside the pause");
    let settings = EngineSettings::default();
    let world = world.restart(&settings).await;
    let asked = world.source.all_requests().len();
    assert!(
        matches!(world.token(&keys[0]).await, Err(TokenError::Authority(e)) if e.retry_after > Some(S(2)))
    );
    assert_eq!(world.source.all_requests().len(), asked, "nor after a restart");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_reports_force_one_refresh_and_nobody_loses_the_old_token() {
    let world = World::new().await;
    let it = key(1, "a");
    let old = world.token(&it).await.unwrap();
    world.source.script_all(Script { latency: S(5), ..Script::default() });
    let text = |hit: &Hit| hit.token.issued.access_token.expose_secret().to_owned();
    let refused = text(&old);
    for _ in 0..1_000 {
        let outcome = world
            .engine
            .report_rejected(&it, caller(1), |t| t.issued.access_token.expose_secret() == refused)
            .unwrap();
        assert_eq!(outcome, Rejected::Refreshing);
    }
    assert_eq!(text(&world.engine.cached(&it).unwrap()), refused, "others keep the old one meanwhile");
    world.clock.advance(S(6)).await;
    let new = world.engine.cached(&it).unwrap();
    assert_ne!(text(&new), refused);
    assert!(new.token.issued_at >= old.token.issued_at);
    assert_eq!(world.source.requests(&it).len(), 2);
    let again = text(&new);
    let outcome = world
        .engine
        .report_rejected(&it, caller(1), |t| t.issued.access_token.expose_secret() == again)
        .unwrap();
    assert_eq!(outcome, Rejected::TooSoon);
    assert_eq!(world.engine.report_rejected(&it, caller(1), |_| false).unwrap(), Rejected::Superseded);
}

#[tokio::test(start_paused = true)]
async fn a_report_inside_a_pause_is_told_so_and_does_not_count() {
    let world = World::new().await;
    let it = key(1, "a");
    world.token(&it).await.unwrap();
    world.fail(IssueErrorClass::Throttled, Some(S(20)));
    assert!(world.token(&key(1, "b")).await.is_err());
    assert!(matches!(world.engine.report_rejected(&it, caller(1), |_| true), Err(TokenError::Authority(_))));
    world.source.script_all(Script::default());
    world.clock.advance(S(21)).await;
    assert_eq!(world.engine.report_rejected(&it, caller(1), |_| true).unwrap(), Rejected::Refreshing);
}

/// Any answer of an authority. That we ourselves refuse is none of its.
fn answer() -> impl Strategy<Value = Script> {
    use IssueErrorClass::{Credential, Permanent, Throttled, Transient};
    let class = prop::sample::select(vec![Transient, Throttled, Permanent, Credential]);
    let retry_after = prop::option::of((0..400_u64).prop_map(S));
    let error = (class, retry_after).prop_map(|(class, retry_after)| failure(class, retry_after));
    (5..8_000_u64, 60..600_u64, prop::option::weighted(0.8, error)).prop_map(
        |(latency, lifetime, failure)| Script {
            latency: MS(latency),
            lifetime: S(lifetime),
            failure,
            ..Script::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_valid_token_is_served_until_its_floor_whatever_the_authority_answers(
        first in 60..600_u64, answers in prop::collection::vec(answer(), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let it = key(1, "a");
            world.source.script_all(Script { lifetime: S(first), ..Script::default() });
            let mut held = world.token(&it).await.unwrap().token;
            // One more, so that what the last of them does is seen too.
            for answer in answers.into_iter().chain([Script::default()]) {
                world.source.script_all(answer);
                let asked = world.source.requests(&it).len();
                // No token lives longer than ten minutes.
                for _ in 0..600 {
                    world.clock.advance_in_steps(S(1), MS(500)).await;
                    match world.engine.cached(&it) {
                        Some(hit) => {
                            world.check(&it, &hit);
                            held = hit.token;
                        }
                        None => {
                            let left = held.remaining(world.clock.now());
                            assert!(left < serve_floor(held.lifetime()), "not served with {left:?} left");
                        }
                    }
                    if world.source.requests(&it).len() > asked {
                        break;
                    }
                }
            }
        });
    }
}
