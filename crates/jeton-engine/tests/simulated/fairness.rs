//! One caller that asks for too much is told so, and the others do not notice it.

use std::time::Duration;

use jeton_core::{CallerLimits, Clock, Uid, Wall, profile::AuthorityLimits};
use jeton_engine::{
    Account, Ask, EngineSettings, TokenError,
    testing::{Script, caller, key},
};
use secrecy::ExposeSecret;

use crate::world::{MS, S, World};

const GREEDY: u32 = 1_000;

/// How twenty callers fare who ask for a new token each second.
struct Fared {
    p99: Duration,
    errors: usize,
    /// Of the greedy one's requests, if it is there.
    refused: usize,
    served: usize,
}

/// Ten seconds of it, beside one who asks for fifty times what it may.
async fn fare(limits: AuthorityLimits, latency: Duration, greedy: bool) -> Fared {
    let world = World::at(limits, EngineSettings::default(), 1).await;
    world.source.script_all(Script { latency, ..Script::default() });
    let ask = |n: u64, of: u32| {
        let (engine, clock, began) = (world.engine.clone(), world.clock.clone(), world.clock.now().boot);
        let ask = Ask { caller: caller(of).into(), wait: None, min_validity: None };
        tokio::spawn(async move {
            let outcome = engine.token(&key(n, "a"), ask).await;
            (outcome.map(drop), clock.now().boot.saturating_since(began))
        })
    };
    let (mut others, mut floods) = (vec![], vec![]);
    for tick in 0..1_000_u64 {
        if greedy {
            floods.extend((0..25).map(|n| ask(1_000_000 + tick * 25 + n, GREEDY)));
        }
        // Each at its own time.
        if tick % 5 == 0 {
            others.push(ask(tick, u32::try_from(tick / 5 % 20).unwrap()));
        }
        world.clock.advance(MS(10)).await;
    }
    world.clock.advance(S(11)).await;
    let (mut waits, mut errors, mut refused, mut served) = (vec![], 0, 0, 0);
    for call in others {
        let (outcome, took) = call.await.unwrap();
        errors += usize::from(outcome.is_err());
        waits.push(took);
    }
    for call in floods {
        match call.await.unwrap().0 {
            Ok(()) => served += 1,
            Err(TokenError::OverLimit { limit, retry_after, .. }) => {
                assert!(limit == "misses_per_second" && !retry_after.is_zero());
                refused += 1;
            }
            // It waits for itself.
            Err(TokenError::Overloaded { .. } | TokenError::Deadline) => {}
            Err(other) => panic!("{other}"),
        }
    }
    waits.sort_unstable();
    Fared { p99: waits[waits.len() * 99 / 100], errors, refused, served }
}

#[tokio::test(start_paused = true)]
async fn one_caller_at_fifty_times_its_limit_neither_delays_nor_refuses_the_others() {
    let small = AuthorityLimits { requests_per_second: 60, max_concurrent: 16, ..AuthorityLimits::default() };
    // One that takes more than the greedy caller may, and one that takes less.
    for (limits, latency) in [(AuthorityLimits::default(), MS(50)), (small, MS(200))] {
        let alone = fare(limits, latency, false).await;
        let beside = fare(limits, latency, true).await;
        println!("p99 {:?} alone, {:?} beside the greedy one", alone.p99, beside.p99);
        assert_eq!((alone.errors, beside.errors), (0, 0));
        assert!(beside.p99 <= alone.p99.mul_f64(1.5), "{:?} alone, {:?} beside", alone.p99, beside.p99);
        assert!(beside.refused > 20_000, "{} of 25,000 refused", beside.refused);
        assert!(beside.served > 100, "and it gets what there is: {}", beside.served);
    }
}

#[tokio::test(start_paused = true)]
async fn many_greedy_callers_leave_room_for_one_that_is_not() {
    let world = World::new().await;
    world.source.script_all(Script { latency: S(5), ..Script::default() });
    for n in 0..3_000_u64 {
        let (engine, of) = (world.engine.clone(), GREEDY + u32::try_from(n % 30).unwrap());
        let ask = Ask { caller: caller(of).into(), wait: None, min_validity: None };
        tokio::spawn(async move { engine.token(&key(n, "a"), ask).await });
    }
    world.clock.advance(MS(500)).await;
    let began = world.clock.now().boot;
    let it = key(1_000_000, "a");
    let modest = Ask { caller: caller(1).into(), wait: None, min_validity: None };
    let engine = world.engine.clone();
    let call = tokio::spawn(async move { engine.token(&it, modest).await });
    world.clock.advance(MS(5_100)).await;
    assert!(call.is_finished(), "its request went out at once");
    assert!(call.await.unwrap().is_ok());
    assert!(world.clock.now().boot.saturating_since(began) < S(6));
}

#[tokio::test(start_paused = true)]
async fn a_hit_is_never_limited() {
    let settings = EngineSettings { misses_per_second: 1, miss_burst: 1, ..EngineSettings::default() };
    let world = World::with(settings).await;
    let it = key(1, "a");
    world.token(&it).await.unwrap();
    assert!(matches!(world.token(&key(2, "a")).await, Err(TokenError::OverLimit { .. })));
    for _ in 0..10_000 {
        assert!(world.engine.token(&it, world.ask(1)).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_caller_has_waiting_and_watched_is_bounded_and_given_back() {
    let settings = EngineSettings {
        max_waiting_per_caller: 10,
        max_watches_per_caller: 20,
        ..EngineSettings::default()
    };
    let world = World::with(settings).await;
    world.source.script_all(Script { latency: S(2), ..Script::default() });
    let ask = |of: u32| {
        let (engine, ask) = (world.engine.clone(), world.ask(of));
        tokio::spawn(async move { engine.token(&key(1, "a"), ask).await })
    };
    let calls: Vec<_> = (0..30).map(|_| ask(1)).collect();
    let other = ask(2);
    world.clock.advance(S(3)).await;
    let mut over = 0;
    for call in calls {
        match call.await.unwrap() {
            Err(TokenError::OverLimit { limit, retry_after, .. }) => {
                assert!(limit == "max_waiting_per_caller" && !retry_after.is_zero());
                over += 1;
            }
            outcome => drop(outcome.unwrap()),
        }
    }
    assert_eq!(over, 20);
    other.await.unwrap().unwrap();
    for _ in 0..3 {
        let watches: Vec<_> = (0..30).map(|_| world.engine.watch(&key(1, "a"), caller(1))).collect();
        let open = watches.iter().filter(|watch| watch.is_ok()).count();
        assert_eq!(open, 20);
        assert!(world.engine.watch(&key(1, "a"), caller(2)).is_ok());
        assert!(
            watches
                .iter()
                .flat_map(|w| w.as_ref().err())
                .all(|e| matches!(e, TokenError::OverLimit { limit: "max_watches_per_caller", .. }))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn forced_refreshes_of_one_caller_are_bounded_over_all_its_tokens() {
    let settings = EngineSettings { forced_refreshes_per_minute: 5, ..EngineSettings::default() };
    let world = World::with(settings).await;
    for n in 0..12 {
        world.token(&key(n, "a")).await.unwrap();
    }
    let report = |n, of| {
        world
            .engine
            .report_rejected(&key(n, "a"), caller(of), |t| !t.issued.access_token.expose_secret().is_empty())
    };
    let forced = (0..10).filter(|n| report(*n, 1).is_ok()).count();
    assert_eq!(forced, 5);
    assert!(matches!(report(6, 1), Err(TokenError::OverLimit { limit: "forced_refreshes_per_minute", .. })));
    assert!(report(11, 2).is_ok());
    world.clock.advance(S(13)).await;
    assert!(report(6, 1).is_ok(), "one comes back each twelfth of a minute");
}

#[tokio::test(start_paused = true)]
async fn an_assignment_with_limits_of_its_own_counts_apart_and_may_give_more_or_less() {
    let settings = EngineSettings { misses_per_second: 1, miss_burst: 10, ..EngineSettings::default() };
    let world = World::with(settings).await;
    let under = |n: u8, miss_burst| {
        let limits = CallerLimits { miss_burst: Some(miss_burst), ..CallerLimits::default() };
        Account { principal: caller(1), terms: Some((Uid::new(Wall::from_secs(1), [n; 10]), limits)) }
    };
    let mut next = 0;
    let mut open = |account: Account| {
        let tried = (0..100).map(|_| {
            next += 1;
            world.engine.watch(&key(next, "a"), account.clone()).is_ok()
        });
        tried.filter(|open| *open).count()
    };
    assert_eq!(open(under(1, 3)), 3);
    assert_eq!(open(under(2, 50)), 50);
    assert_eq!(open(caller(1).into()), 10);
    assert_eq!(open(under(1, 3)), 0);
    assert_eq!(open(caller(2).into()), 10);
}
