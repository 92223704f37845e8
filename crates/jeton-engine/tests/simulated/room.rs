//! The cache is full: who makes room, and who stays.

use jeton_engine::{
    Ask, EngineSettings, TokenError,
    testing::{Script, caller, key},
};

use crate::world::{MS, S, World};

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
