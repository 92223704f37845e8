//! Refreshing ahead: when it starts, for whom, and what clocks do to it.

use std::{collections::BTreeSet, time::Duration};

use jeton_core::Clock;
use jeton_engine::{
    Rejected,
    testing::{Script, caller, key},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use secrecy::ExposeSecret;

use crate::world::{MS, S, World, keys};

#[tokio::test(start_paused = true)]
async fn a_warm_caller_never_waits_while_each_refresh_hangs() {
    let world = World::new().await;
    let it = key(1, "a");
    world.source.script_all(Script { latency: S(8), lifetime: S(60), ..Script::default() });
    world.token(&it).await.unwrap();
    let mut serials = BTreeSet::new();
    for _ in 0..(100 * 30) {
        world.clock.advance(S(1)).await;
        let hit = world.engine.cached(&it).expect("a warm caller never waits");
        world.check(&it, &hit);
        serials.insert(hit.token.issued.access_token.expose_secret().to_owned());
    }
    assert!(serials.len() >= 90, "{} cycles", serials.len());
    assert!(world.source.requests(&it).len() <= serials.len() + 1, "one request for each refresh");
    assert_eq!(world.source.most_in_flight(), 1);
    assert!(
        world.source.prepared(&it) as usize >= serials.len() - 1,
        "an assertion was asked for ahead of each"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_shorter_than_the_one_before_is_refreshed_in_its_own_time() {
    let world = World::new().await;
    let it = key(1, "a");
    world.token(&it).await.unwrap();
    world.source.script_all(Script { lifetime: S(12), ..Script::default() });
    assert_eq!(world.engine.report_rejected(&it, caller(1), |_| true).unwrap(), Rejected::Refreshing);
    world.clock.advance(S(1)).await;
    for second in 0..120 {
        assert!(world.engine.cached(&it).is_some(), "after {second} s");
        world.clock.advance(S(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pin_ends_at_its_time() {
    let world = World::new().await;
    let it = key(1, "a");
    world.source.script_all(Script { lifetime: S(60), ..Script::default() });
    world.engine.pin(&it, &caller(1), world.clock.now().wall + S(600)).unwrap();
    world.clock.advance(S(590)).await;
    let pinned = world.source.requests(&it).len();
    assert!(pinned >= 15, "{pinned}");
    world.clock.advance(S(3_600)).await;
    let after = world.source.requests(&it).len() - pinned;
    assert!(after <= 3, "{after} requests after its end");
}

#[tokio::test(start_paused = true)]
async fn no_clock_that_is_set_or_sleeps_serves_an_expired_token() {
    for (step, suspend) in [(7_200_000, 0), (-7_200_000, 0), (0, 172_800), (-7_200_000, 3_580)] {
        let world = World::new().await;
        let it = key(1, "a");
        world.token(&it).await.unwrap();
        world.clock.step_wall(step);
        world.clock.suspend(S(suspend));
        if let Some(hit) = world.engine.cached(&it) {
            world.check(&it, &hit);
            assert!(suspend == 0, "it is expired by boot time");
        }
        let requests = world.source.requests(&it).len();
        if step > 0 || suspend > 0 {
            world.engine.token(&it, world.ask(1)).await.ok();
            world.clock.advance(S(30)).await;
            assert!(world.source.requests(&it).len() > requests, "a refresh starts within 30 s");
        }
        let hit = world.token(&it).await.unwrap();
        world.check(&it, &hit);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_over_the_expiry_of_what_is_in_use_starts_a_refresh() {
    for jump in [(S(2 * 3_600), S(0)), (S(2 * 86_400), S(2 * 86_400))] {
        let world = World::new().await;
        let it = key(1, "a");
        world.token(&it).await.unwrap();
        world.clock.advance(S(60)).await;
        world.engine.cached(&it).expect("warm");
        let (wall, boot) = jump;
        world.clock.step_wall(i64::try_from(wall.as_millis()).unwrap());
        world.clock.suspend(boot);
        assert!(world.engine.cached(&it).is_none(), "nothing expired is served");
        world.clock.advance(S(30)).await;
        assert!(world.engine.cached(&it).is_some(), "and nobody had to ask for the new one");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_its_life_a_token_is_refreshed_around_half_of_it_and_no_caller_waits() {
    // The step of the clock, the tick and the flight.
    const LATE: Duration = Duration::from_secs(3);
    for seed in 0..3 {
        let world = World::spacious(seed).await;
        let mut random = SmallRng::seed_from_u64(seed);
        let all = keys(16);
        let mut lives = vec![S(60), S(86_400)];
        // Evenly over the orders of magnitude: as many of minutes as of hours.
        lives.resize_with(all.len(), || S(60).mul_f64(1_440_f64.powf(random.random())));
        for (it, life) in all.iter().zip(&lives) {
            world
                .source
                .script(it.identity, Script { lifetime: *life, latency: MS(200), ..Script::default() });
        }
        world.load(&all).await;
        let start = world.clock.now().boot;
        let mut next = vec![start; all.len()];
        while world.clock.now().boot < start + S(26 * 3_600) {
            world.clock.advance_in_steps(S(1), S(1)).await;
            let now = world.clock.now();
            for ((it, life), next) in
                all.iter().zip(&lives).zip(&mut next).filter(|(_, next)| **next <= now.boot)
            {
                let hit = world.engine.cached(it).expect("a warm caller never waits");
                world.check(it, &hit);
                let left = hit.token.remaining(now);
                assert!(left + LATE >= life.mul_f64(0.4), "seed {seed}: {left:?} left of {life:?}");
                *next = now.boot + life.mul_f64(random.random_range(0.0..0.1));
            }
        }
        for (it, life) in all.iter().zip(&lives) {
            let requests = world.source.requests(it);
            assert!(requests.len() >= 2, "seed {seed}: {} requests in a life of {life:?}", requests.len());
            for pair in requests.windows(2) {
                let after = pair[1].saturating_since(pair[0]);
                let around_half = life.mul_f64(0.4)..=life.mul_f64(0.6) + LATE;
                assert!(
                    around_half.contains(&after),
                    "seed {seed}: a life of {life:?} is refreshed after {after:?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_used_once_costs_two_requests_more_and_is_forgotten() {
    let world = World::spacious(1).await;
    let all = keys(10_000);
    world.ask_for(&all);
    world.clock.advance_in_steps(S(24 * 3_600), S(1)).await;
    for it in &all {
        let requests = world.source.requests(it).len();
        assert!((1..=3).contains(&requests), "{requests} requests for a key that was used once");
    }
    assert_eq!(world.engine.stats().slots, 0, "and then forgotten");
}
