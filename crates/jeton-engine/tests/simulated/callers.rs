//! Callers and watchers: they share flights, have deadlines and limits of their own, and go away.

use std::collections::BTreeSet;

use jeton_core::Freshness;
use jeton_engine::{
    Ask, EngineSettings, IssueErrorClass, TokenError, WatchEvent,
    testing::{Script, caller, failure, key},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use secrecy::ExposeSecret;

use crate::world::{MS, S, World};

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_of_a_cold_key_cost_one_request_and_share_its_outcome() {
    for (seed, refused) in [(1, None), (2, Some(failure(IssueErrorClass::Transient, None)))] {
        let world = World::new().await;
        let it = key(1, "a");
        world.source.script_all(Script { latency: S(2), failure: refused.clone(), ..Script::default() });
        let mut random = SmallRng::seed_from_u64(seed);
        let calls: Vec<_> = (0..10_000)
            .map(|n| {
                let (engine, wanted, ask) = (world.engine.clone(), it.clone(), world.ask(n % 7));
                let after = MS(random.random_range(0..1_800));
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    engine.token(&wanted, ask).await
                })
            })
            .collect();
        world.clock.advance(S(4)).await;
        let mut texts = BTreeSet::new();
        for call in calls {
            match (call.await.unwrap(), &refused) {
                (Ok(hit), None) => {
                    texts.insert(hit.token.issued.access_token.expose_secret().to_owned());
                }
                (Err(TokenError::Authority(error)), Some(refused)) => {
                    assert_eq!((error.class, &error.message), (refused.class, &refused.message));
                }
                (other, _) => panic!("{other:?}"),
            }
        }
        assert_eq!(world.source.requests(&it).len(), 1);
        assert_eq!(texts.len(), usize::from(refused.is_none()), "all have the same token");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_of_a_cold_key_share_one_flight_and_a_cancelled_one_harms_nobody() {
    let world = World::new().await;
    let it = key(1, "a");
    world.source.script_all(Script { latency: S(2), ..Script::default() });
    let calls: Vec<_> = (0..10_000_u32)
        .map(|n| {
            let (engine, wanted) = (world.engine.clone(), it.clone());
            let ask = Ask { caller: caller(n % 7).into(), wait: None, min_validity: None };
            tokio::spawn(async move { engine.token(&wanted, ask).await })
        })
        .collect();
    world.clock.advance(MS(500)).await;
    calls.iter().step_by(2).for_each(|call| call.abort());
    world.clock.advance(S(3)).await;
    let mut texts = BTreeSet::new();
    for call in calls.into_iter().skip(1).step_by(2) {
        texts.insert(call.await.unwrap().unwrap().token.issued.access_token.expose_secret().to_owned());
    }
    assert_eq!((texts.len(), world.source.requests(&it).len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn random_cancellation_leaves_no_flight_stuck_and_crosses_no_tokens() {
    for seed in 0..20 {
        let world = World::new().await;
        let mut random = SmallRng::seed_from_u64(seed);
        world.source.script_all(Script { latency: MS(120), lifetime: S(20), ..Script::default() });
        let mut calls = vec![];
        for _ in 0..400 {
            let wanted = key(random.random_range(0..20), ["a", "aa", "a.a"][random.random_range(0..3)]);
            let (engine, ask) = (world.engine.clone(), world.ask(random.random_range(0..5)));
            let wait = MS(random.random_range(1..400));
            let it = wanted.clone();
            calls.push((
                wanted,
                tokio::spawn(async move { tokio::time::timeout(wait, engine.token(&it, ask)).await }),
            ));
            if random.random_bool(0.2) {
                world.clock.advance(MS(random.random_range(0..200))).await;
            }
        }
        world.clock.advance(S(1)).await;
        for (wanted, call) in calls {
            if let Ok(Ok(hit)) = call.await.unwrap() {
                let text = hit.token.issued.access_token.expose_secret().to_owned();
                assert!(
                    text.starts_with(&format!("{}|{}|", wanted.identity, wanted.target)),
                    "seed {seed}: {text}"
                );
            }
        }
        assert_eq!(world.source.most_in_flight(), 1, "seed {seed}");
        for n in 0..20 {
            world.token(&key(n, "a")).await.unwrap();
        }
        // A hundred thousand replies from memory, over all seeds.
        for _ in 0..5_000 {
            let wanted = key(random.random_range(0..20), "a");
            let hit = world.engine.cached(&wanted).unwrap();
            let text = hit.token.issued.access_token.expose_secret();
            assert!(text.starts_with(&format!("{}|{}|", wanted.identity, wanted.target)), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_callers_deadline_is_its_own_and_the_flight_goes_on() {
    let world = World::new().await;
    let it = key(1, "a");
    world.source.script_all(Script { latency: S(3), ..Script::default() });
    let ask = Ask { wait: Some(S(1)), ..world.ask(1) };
    let (engine, wanted) = (world.engine.clone(), it.clone());
    let call = tokio::spawn(async move { engine.token(&wanted, ask).await });
    world.clock.advance(S(2)).await;
    assert!(matches!(call.await.unwrap(), Err(TokenError::Deadline)));
    world.clock.advance(S(2)).await;
    assert!(world.engine.cached(&it).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_caller_over_its_bucket_is_told_when_to_come_again_and_others_notice_nothing() {
    let world =
        World::with(EngineSettings { misses_per_second: 10, miss_burst: 20, ..EngineSettings::default() })
            .await;
    let mut refused = 0;
    for n in 0..100 {
        match world.engine.watch(&key(n, "a"), caller(1)) {
            Err(TokenError::OverLimit { retry_after, .. }) => {
                assert!(retry_after <= MS(101) && !retry_after.is_zero());
                refused += 1;
            }
            Err(error) => panic!("{error}"),
            Ok(_) => {}
        }
    }
    assert_eq!(refused, 80);
    assert!(world.engine.watch(&key(200, "a"), caller(2)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn more_life_than_a_refresh_can_promise_is_refused_and_less_forces_a_refresh() {
    let world = World::new().await;
    let it = key(1, "a");
    world.token(&it).await.unwrap();
    let asking = |validity| Ask { min_validity: Some(validity), ..world.ask(1) };
    assert!(matches!(world.engine.token(&it, asking(S(1_500))).await, Err(TokenError::MinValidity { .. })));
    assert!(world.engine.token(&it, asking(S(1_400))).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_the_current_token_every_refresh_and_the_end() {
    let world = World::new().await;
    let it = key(1, "a");
    world.source.script_all(Script { lifetime: S(60), ..Script::default() });
    let mut watch = world.engine.watch(&it, caller(1)).unwrap();
    world.clock.advance(S(1)).await;
    assert!(matches!(watch.next().await, Some(WatchEvent::Token(_))));
    world.clock.advance(S(600)).await;
    assert!(matches!(watch.next().await, Some(WatchEvent::Token(hit)) if hit.state == Freshness::Fresh));
    assert!(world.source.requests(&it).len() >= 18, "watching counts as use");
    world.fail(IssueErrorClass::Permanent, None);
    world.clock.advance(S(35)).await;
    assert!(matches!(watch.next().await, Some(WatchEvent::Failed(_))));
    world.engine.evict_identity(it.identity);
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_begins_while_nothing_can_be_asked_gets_its_token_later() {
    let world = World::new().await;
    let (failing, waiting) = (key(1, "a"), key(2, "b"));
    world.fail(IssueErrorClass::Transient, None);
    assert!(world.token(&failing).await.is_err());
    let mut watch = world.engine.watch(&failing, caller(1)).unwrap();
    assert!(matches!(watch.next().await, Some(WatchEvent::Failed(_))), "the last error is told");
    // Another one while every permit is taken.
    world.source.script_all(Script { latency: S(34), ..Script::default() });
    for n in 0..200 {
        let (engine, ask) = (world.engine.clone(), world.ask(1));
        tokio::spawn(async move { engine.token(&key(100 + n, "x"), ask).await });
    }
    world.clock.advance(S(1)).await;
    let mut other = world.engine.watch(&waiting, caller(1)).unwrap();
    world.clock.advance(S(12)).await;
    assert!(matches!(other.next().await, Some(WatchEvent::Failed(_))), "and that there was no permit");
    world.source.script_all(Script::default());
    world.clock.advance(S(60)).await;
    for watch in [&mut watch, &mut other] {
        loop {
            match tokio::time::timeout(S(1), watch.next()).await.expect("a token comes") {
                Some(WatchEvent::Token(_)) => break,
                Some(WatchEvent::Failed(_)) => {}
                Some(WatchEvent::Revoked) | None => panic!("the watch ended"),
            }
        }
    }
}
