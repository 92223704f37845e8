//! The cache is full: who makes room, and who stays.

use jeton_core::profile::AuthorityLimits;
use jeton_engine::{
    Ask, EngineSettings, TokenError, TokenStore,
    testing::{Script, caller, key},
};

use crate::world::{MS, S, World, generous};

#[tokio::test(start_paused = true)]
async fn one_caller_with_endless_keys_pushes_out_only_its_own() {
    let settings = EngineSettings {
        max_entries: 1_000,
        max_bytes: 4 << 20,
        misses_per_second: 1_000_000,
        miss_burst: 10_000_000,
        ..EngineSettings::default()
    };
    let world = World::with(settings).await;
    let hot = key(1_000_000, "hot");
    let engine = world.engine.clone();
    let wanted = hot.clone();
    let first = tokio::spawn(async move {
        engine.token(&wanted, Ask { caller: caller(9).into(), wait: None, min_validity: None }).await
    });
    world.clock.advance(S(1)).await;
    first.await.unwrap().unwrap();
    world.source.script_all(Script { latency: MS(1), ..Script::default() });
    for round in 0..100 {
        for n in 0..200 {
            let (engine, ask) = (world.engine.clone(), world.ask(1));
            tokio::spawn(async move { engine.token(&key(round * 200 + n, "a"), ask).await });
        }
        world.clock.advance(S(2)).await;
        assert!(world.engine.cached(&hot).is_some(), "round {round}: another caller's hot slot never misses");
        let stats = world.engine.stats();
        assert!(stats.slots <= 1_000 && stats.bytes <= 4 << 20, "{stats:?}");
    }
    let (engine, ask, new) = (world.engine.clone(), world.ask(5), key(2_000_000, "new"));
    let call = tokio::spawn(async move { engine.token(&new, ask).await });
    world.clock.advance(S(1)).await;
    call.await.unwrap().unwrap();
    assert!(world.engine.cached(&key(2_000_000, "new")).is_some(), "a new caller's key is cached");
}

#[tokio::test(start_paused = true)]
async fn what_is_used_all_the_time_outlives_a_flood_by_others() {
    let settings = EngineSettings {
        max_entries: 200,
        max_bytes: 2 << 20,
        misses_per_second: 1_000_000,
        miss_burst: 1_000_000,
        ..EngineSettings::default()
    };
    let world = World::with(settings).await;
    let hot = key(1_000_000, "hot");
    world.token(&hot).await.unwrap();
    for n in 0..3_000 {
        let (engine, ask) = (world.engine.clone(), world.ask(2 + u32::try_from(n % 3).unwrap()));
        tokio::spawn(async move { engine.token(&key(n, "flood"), ask).await });
        world.clock.advance(MS(50)).await;
        assert!(world.engine.cached(&hot).is_some(), "after {n} keys");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_under_way_makes_room_for_nobody_and_every_waiter_gets_its_token_from_one_request() {
    // Two callers, each with its half of the cap.
    const CAP: u64 = 100;
    let settings = EngineSettings { max_entries: CAP, max_bytes: 1 << 20, ..generous() };
    let limits = AuthorityLimits { max_concurrent: 1_000, ..AuthorityLimits::default() };
    let world = World::at(limits, settings, 1).await;
    world.source.script_all(Script { latency: S(8), ..Script::default() });
    let ask = |n: u64, of: u64| {
        let (engine, ask) = (world.engine.clone(), world.ask(u32::try_from(of).unwrap()));
        tokio::spawn(async move { engine.token(&key(n, "a"), ask).await })
    };
    let waiting: Vec<_> = (0..CAP).map(|n| ask(n, 1 + n % 2)).collect();
    world.clock.advance(S(1)).await;
    assert_eq!((world.source.serial(), world.engine.stats().slots), (CAP, 100), "all are under way");
    // One has its own share full, the other meets the cap.
    for of in [1, 3] {
        let (refused, again) = (ask(CAP + of, of), ask(CAP + of, of));
        world.clock.advance(MS(50)).await;
        for call in [refused, again] {
            assert!(call.is_finished(), "it does not wait for room");
            let outcome = call.await.unwrap();
            assert!(matches!(outcome, Err(TokenError::Overloaded { .. })), "caller {of}: {outcome:?}");
        }
        assert_eq!(world.engine.stats().slots, 100);
    }
    world.clock.advance(S(8)).await;
    for (n, call) in (0..).zip(waiting) {
        let it = key(n, "a");
        assert!(call.is_finished(), "{n} goes on waiting");
        world.check(&it, &call.await.unwrap().unwrap());
        assert!(world.engine.cached(&it).is_some(), "the token of {n} is lost");
        assert_eq!(world.source.requests(&it).len(), 1, "requests for {n}");
    }
    assert_eq!(world.source.serial(), CAP, "nothing was asked for those who were refused");
    // What has landed makes room.
    let late = ask(CAP + 3, 3);
    world.clock.advance(S(9)).await;
    world.check(&key(CAP + 3, "a"), &late.await.unwrap().unwrap());
    assert!(world.engine.stats().slots <= 100);
}

#[tokio::test(start_paused = true)]
async fn what_a_smaller_cache_has_no_room_for_after_a_restart_leaves_the_store_too() {
    let world = World::new().await;
    for n in 0..50 {
        world.token(&key(n, "a")).await.unwrap();
    }
    let smaller = EngineSettings { max_entries: 10, max_bytes: 1 << 20, ..generous() };
    let world = world.restart(&smaller).await;
    world.clock.advance(MS(500)).await;
    let warm = (0..50).filter(|n| world.engine.cached(&key(*n, "a")).is_some()).count();
    assert_eq!(warm, 10);
    let mut kept = world.store.load().await.unwrap().tokens;
    kept.retain(|stored| world.engine.cached(&stored.key).is_none());
    assert_eq!(kept.len(), 0, "kept for nobody");
}

#[tokio::test(start_paused = true)]
async fn watched_tokens_are_bounded_by_the_cap_and_take_nothing_from_the_bucket_of_misses() {
    let settings = EngineSettings {
        max_entries: 200,
        max_bytes: 2 << 20,
        caller_share_percent: 100,
        misses_per_second: 1_000,
        miss_burst: 1_000,
        ..EngineSettings::default()
    };
    let world = World::with(settings).await;
    let mut watches = vec![];
    let mut refused = 0;
    for n in 0..400 {
        match world.engine.watch(&key(n, "a"), caller(u32::try_from(n % 4).unwrap())) {
            Ok(watch) => watches.push(watch),
            Err(TokenError::Overloaded { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        world.clock.advance(MS(20)).await;
    }
    assert!(world.engine.stats().slots <= 200, "{:?}", world.engine.stats());
    assert!(refused >= 200 && watches.len() >= 150, "{refused} refused, {} watched", watches.len());
    // A warm token is watched and pinned as often as anybody likes.
    let world =
        World::with(EngineSettings { misses_per_second: 1, miss_burst: 2, ..EngineSettings::default() })
            .await;
    let it = key(1, "a");
    world.token(&it).await.unwrap();
    let many: Vec<_> = (0..700).map(|_| world.engine.watch(&it, caller(1)).unwrap()).collect();
    assert_eq!(many.len(), 700);
    let forever = jeton_core::Wall::from_millis(i64::MAX);
    (0..700).for_each(|n| world.engine.pin(&key(n, "warm"), &caller(1), forever).unwrap());
}
