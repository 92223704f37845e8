//! Thousands of keys at one authority: spread, paced, and not in each other's way.

use std::{collections::HashMap, time::Duration};

use jeton_core::{Clock, TokenKey, profile::AuthorityLimits};
use jeton_engine::{
    EngineSettings, IssueErrorClass,
    testing::{Script, failure, key},
};
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};

use crate::world::{MS, S, World, generous, keys};

#[tokio::test(start_paused = true)]
async fn keys_that_came_together_are_not_refreshed_together() {
    const LIFE: u64 = 300;
    let world = World::spacious(1).await;
    world.source.script_all(Script { lifetime: S(LIFE), latency: MS(1), ..Script::default() });
    let all = keys(10_000);
    world.load(&all).await;
    for _ in 0..20 * 2 {
        world.clock.advance_in_steps(S(LIFE / 2), MS(250)).await;
        assert!(all.iter().all(|it| world.engine.cached(it).is_some()));
    }
    let requests = world.source.all_requests();
    let mut seconds = vec![0.0; 20 * LIFE as usize];
    for at in &requests {
        if let Some(second) = seconds.get_mut(at.saturating_since(requests[0]).as_secs() as usize) {
            *second += 1.0;
        }
    }
    let cycle = LIFE as usize / 2;
    let after_three = &seconds[3 * cycle..];
    let mean = mean(after_three);
    let busiest = after_three.iter().copied().fold(0.0, f64::max);
    assert!(mean > 30.0 && busiest <= mean * 3.0, "busiest second {busiest}, mean {mean}");
    // What came together is out of step for good after ten cycles.
    let echo = autocorrelation(&seconds[10 * cycle..], cycle);
    assert!(echo < 0.1, "half a life later there is an echo of {echo}");
}

fn mean(of: &[f64]) -> f64 {
    of.iter().sum::<f64>() / of.len() as f64
}

fn autocorrelation(of: &[f64], lag: usize) -> f64 {
    let mean = mean(of);
    let variance: f64 = of.iter().map(|it| (it - mean).powi(2)).sum();
    let shifted: f64 = of.iter().zip(&of[lag..]).map(|(it, later)| (it - mean) * (later - mean)).sum();
    shifted / variance
}

#[tokio::test(start_paused = true)]
async fn failing_identities_ask_rarely_and_do_not_delay_the_others() {
    let (alone, _) = an_hour_beside(&[]).await;
    let failing: Vec<_> = (0..1_000).map(|n| key(10_000 + n, "a")).collect();
    let (beside, world) = an_hour_beside(&failing).await;
    assert!(
        beside <= alone.mul_f64(1.1),
        "the 99th of 100 waits {alone:?} alone and {beside:?} beside failing ones"
    );
    for it in &failing {
        let requests = world.source.requests(it);
        assert!(requests.len() > 5, "{it:?} was tried {} times", requests.len());
        for pair in requests[4..].windows(2) {
            let pause = pair[1].saturating_since(pair[0]);
            assert!(pause >= S(600), "{it:?} was asked for again after {pause:?}");
        }
    }
}

/// A thousand good identities, and beside them those that fail, all asked for again and again: how long after it was due the slowest
/// but one of a hundred refreshes of the good ones began.
async fn an_hour_beside(failing: &[TokenKey]) -> (Duration, World) {
    let world = World::new().await;
    let good = keys(1_000);
    world.source.script_all(Script { lifetime: S(600), ..Script::default() });
    world.ask_for(&good);
    world.clock.advance(S(10)).await;
    for (n, it) in failing.iter().enumerate() {
        let class = [IssueErrorClass::Permanent, IssueErrorClass::Credential][n % 2];
        world.source.script(it.identity, Script { failure: Some(failure(class, None)), ..Script::default() });
    }
    let mut due = HashMap::<_, Vec<_>>::new();
    for _ in 0..60 {
        world.ask_for(failing);
        for it in &good {
            let hit = world.engine.cached(it).expect("no failure of others costs a token");
            let seen = due.entry(it).or_default();
            if seen.last() != Some(&hit.token.refresh_boot) {
                seen.push(hit.token.refresh_boot);
            }
        }
        world.clock.advance(S(60)).await;
    }
    let mut delays = vec![];
    for (it, due) in due {
        let refreshes = world.source.requests(it).into_iter().skip(1);
        delays.extend(due.into_iter().zip(refreshes).map(|(due, at)| at.saturating_since(due)));
    }
    assert!(delays.len() >= 10_000, "{} refreshes", delays.len());
    (p99(delays), world)
}

fn p99(mut of: Vec<Duration>) -> Duration {
    of.sort_unstable();
    of[of.len() * 99 / 100]
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_finds_everything_due_asks_at_the_warm_up_rate_and_first_for_what_is_in_demand() {
    let world = World::spacious(1).await;
    let mut kept = keys(10_000);
    world.load(&kept).await;
    let world = world.stop_and_start(&EngineSettings::default(), S(2_400)).await;
    world.source.script_all(Script { latency: MS(100), ..Script::default() });
    let start = world.clock.now().boot;
    kept.shuffle(&mut SmallRng::seed_from_u64(1));
    let mut demanded = vec![];
    let mut waiting = vec![];
    for second in 0..60 {
        for it in kept.drain(..10) {
            world.check(&it, &world.engine.cached(&it).expect("what was kept is served at once"));
            demanded.push((it, world.clock.now().boot));
        }
        for n in 0..5 {
            let (engine, clock, ask) = (world.engine.clone(), world.clock.clone(), world.ask(1));
            waiting.push(tokio::spawn(async move {
                let asked = clock.now().boot;
                engine.token(&key(100_000 + second * 5 + n, "new"), ask).await.unwrap();
                clock.now().boot.saturating_since(asked)
            }));
        }
        world.clock.advance(S(1)).await;
    }
    world.clock.advance(S(3)).await;
    let asked = |it: &TokenKey| world.source.requests(it).into_iter().find(|at| *at >= start);
    let refreshes = demanded.iter().map(|(it, at)| asked(it).expect("refreshed").saturating_since(*at));
    let refreshes = p99(refreshes.collect());
    let mut waits = vec![];
    for call in waiting {
        waits.push(call.await.unwrap());
    }
    let waits = p99(waits);
    assert!(refreshes <= S(2) && waits <= S(2), "refreshed after {refreshes:?}, waited for {waits:?}");
    let mut warmed: Vec<_> = kept.iter().filter_map(asked).map(|at| at.saturating_since(start)).collect();
    warmed.sort_unstable();
    for (n, at) in warmed.iter().enumerate() {
        let allowed = 40.0 + 20.0 * at.as_secs_f64();
        assert!((n + 1) as f64 <= allowed, "{} requests in {at:?} at 20/s with a burst of 40", n + 1);
    }
    assert!(warmed.len() >= 1_000, "only {} requests in a minute", warmed.len());
}

#[tokio::test(start_paused = true)]
async fn a_restart_takes_over_what_was_kept_without_asking_the_authority() {
    let settings = EngineSettings::default();
    let world = World::new().await;
    for n in 0..50 {
        world.token(&key(n, "a")).await.unwrap();
    }
    let before = world.source.all_requests().len();
    let world = world.restart(&settings).await;
    for n in 0..50 {
        let hit = world.engine.cached(&key(n, "a")).expect("warm after the restart");
        world.check(&key(n, "a"), &hit);
    }
    assert_eq!(world.source.all_requests().len(), before);
}

/// With room for three refreshes beside callers.
fn narrow() -> AuthorityLimits {
    AuthorityLimits { max_concurrent: 4, requests_per_second: 100_000, ..AuthorityLimits::default() }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_waits_for_room_goes_out_as_soon_as_another_comes_back() {
    let world = World::at(narrow(), generous(), 1).await;
    let all = keys(600);
    world.source.script_all(Script { lifetime: S(3_600), latency: MS(1), ..Script::default() });
    world.ask_for(&all);
    world.clock.advance_in_steps(S(10), MS(10)).await;
    let loaded = world.source.all_requests().len();
    assert_eq!(loaded, all.len());
    world.source.script_all(Script { lifetime: S(3_600), latency: MS(10), ..Script::default() });
    world.clock.suspend(S(2_400));
    // Three at a time, each 10 ms.
    world.clock.advance_in_steps(S(3), MS(10)).await;
    assert_eq!(world.source.all_requests().len(), loaded + all.len());
}

#[tokio::test(start_paused = true)]
async fn among_those_who_wait_for_room_what_expires_first_is_first() {
    let world = World::at(narrow(), generous(), 1).await;
    let all = keys(60);
    for (it, life) in all.iter().zip(3_000..) {
        world.source.script(it.identity, Script { lifetime: S(life), latency: MS(10), ..Script::default() });
    }
    let mut shuffled = all.clone();
    shuffled.shuffle(&mut SmallRng::seed_from_u64(1));
    world.ask_for(&shuffled);
    world.clock.advance_in_steps(S(10), MS(10)).await;
    world.clock.suspend(S(2_000));
    world.clock.advance_in_steps(S(10), MS(10)).await;
    let refreshed: Vec<_> = all.iter().map(|it| *world.source.requests(it).last().unwrap()).collect();
    // Those that found room at once were not in line.
    let late = refreshed.iter().filter(|at| **at > *refreshed.iter().min().unwrap());
    assert!(late.is_sorted() && refreshed.len() == all.len(), "{refreshed:?}");
}
