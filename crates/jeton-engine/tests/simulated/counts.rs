//! What the engine tells of itself.

use jeton_core::{Clock, serve_floor};
use jeton_engine::{
    EngineCounts, IssueErrorClass, SlotState,
    testing::{Script, key},
};

use crate::world::{MS, S, World};

/// How often requests of this cause ended so, at the one authority.
fn ended(counts: &EngineCounts, cause: &str, how: &str) -> u64 {
    let (_, of) = counts.authorities.iter().find(|(uid, _)| *uid == Some(key(1, "a").authority)).unwrap();
    of.ended.iter().find(|(c, h, _)| (*c, *h) == (cause, how)).unwrap().2
}

#[tokio::test(start_paused = true)]
async fn look_ups_and_requests_are_counted_by_what_came_of_them() {
    let world = World::new().await;
    let it = key(1, "a");
    world.token(&it).await.unwrap();
    let before = world.engine.counts();
    (0..10).for_each(|_| drop(world.engine.cached(&it)));
    world.engine.count_served(5, 2);
    let after = world.engine.counts();
    assert_eq!((before.missed, after.missed), (1, 1));
    assert_eq!((after.fresh - before.fresh, after.stale - before.stale), (15, 2));
    assert_eq!((ended(&after, "caller", "issued"), ended(&after, "plan", "issued")), (1, 0));
    // Through the refresh, in use.
    for _ in 0..250 {
        world.clock.advance(S(10)).await;
        drop(world.engine.cached(&it));
    }
    let refreshed = world.engine.counts();
    assert_eq!(ended(&refreshed, "plan", "issued"), 1);
    let delay = &refreshed.authorities.iter().find(|(uid, _)| uid.is_some()).unwrap().1.delay;
    assert_eq!(delay.counts.iter().sum::<u64>(), 1);
    assert!(delay.nanos < 11_000_000_000, "within a step of this clock: {delay:?}");
}

#[tokio::test(start_paused = true)]
async fn the_time_to_starvation_runs_down_while_the_refresh_fails_and_is_gone_when_it_succeeds() {
    let world = World::new().await;
    let it = key(1, "a");
    let hit = world.token(&it).await.unwrap();
    assert!(world.engine.census().starving.is_empty());
    world.fail(IssueErrorClass::Transient, None);
    for _ in 0..250 {
        world.clock.advance(S(10)).await;
        drop(world.engine.cached(&it));
    }
    let left = || {
        let census = world.engine.census();
        assert_eq!(census.failing.get(&it.authority), Some(&1));
        assert_eq!(census.starving[&it.authority], census.starving_identities[&it.identity]);
        assert_eq!(census.states[&SlotState::Stale], 1);
        census.starving[&it.authority]
    };
    let expected = hit.token.remaining(world.clock.now()) - serve_floor(hit.token.lifetime());
    assert_eq!(left(), expected);
    world.clock.advance(S(60)).await;
    assert_eq!(left(), expected - S(60));
    assert!(ended(&world.engine.counts(), "plan", "transient") >= 1);
    world.source.script_all(Script::default());
    world.clock.advance(S(120)).await;
    world.clock.advance(MS(100)).await;
    let census = world.engine.census();
    assert!(census.failing.is_empty() && census.starving.is_empty(), "{census:?}");
}
