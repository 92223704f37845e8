//! Tokens that are taken back: nobody gets one any more that was asked for before, however it was under way.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use jeton_core::{Clock, TokenKey};
use jeton_engine::{
    Ask, EngineSettings, Hit, IssueErrorClass, Revocation, Scope, TokenError, WatchEvent,
    testing::{Script, caller, failure, key},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use secrecy::ExposeSecret;

use crate::world::{MS, S, World, keys};

/// Which request brought it.
fn serial(hit: &Hit) -> u64 {
    hit.token.issued.access_token.expose_secret().rsplit('|').next().unwrap().parse().unwrap()
}

/// Takes back while time goes on.
async fn revoke(world: &World, scope: Scope) -> Revocation {
    let engine = world.engine.clone();
    let revoking = tokio::spawn(async move { engine.revoke(scope, None).await });
    while !revoking.is_finished() {
        world.clock.advance(MS(10)).await;
    }
    revoking.await.unwrap().unwrap()
}

fn ask(world: &World, key: &TokenKey) -> tokio::task::JoinHandle<Result<Hit, TokenError>> {
    let (engine, it, ask) = (world.engine.clone(), key.clone(), world.ask(1));
    tokio::spawn(async move { engine.token(&it, ask).await })
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_is_gone_from_memory_and_store_and_the_next_caller_gets_a_new_token() {
    for (scope, gone) in [
        (Scope::Identity(key(1, "a").identity), 2),
        (Scope::Authority(key(1, "a").authority), 3),
        (Scope::Authority(key(1, "a").identity), 0),
        (Scope::Everything, 3),
    ] {
        let world = World::new().await;
        let all = [key(1, "a"), key(1, "b"), key(2, "a")];
        for it in &all {
            world.token(it).await.unwrap();
        }
        world.clock.advance(S(1)).await;
        let done = revoke(&world, scope).await;
        assert_eq!((done.dropped, done.revoked, done.not_revoked), (gone, 0, gone), "{scope:?}");
        let left = all.iter().filter(|it| world.engine.cached(it).is_some()).count() as u64;
        assert_eq!(left, 3 - gone, "{scope:?}");
        // Killed right after the answer.
        let world = world.killed(&EngineSettings::default()).await;
        let kept = all.iter().filter(|it| world.engine.cached(it).is_some()).count() as u64;
        assert_eq!(kept, 3 - gone, "{scope:?}");
        let before = world.source.serial();
        for it in &all {
            let covered = scope.covers(it);
            assert_eq!(serial(&world.token(it).await.unwrap()) > before, covered, "{scope:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_asked_for_before_is_never_served_whenever_the_revocation_comes() {
    // A request takes 100 ms: before it goes out, under way, as it lands, and after.
    for after in (0..=140).step_by(5) {
        let world = World::new().await;
        let it = key(1, "a");
        world.source.script_all(Script { latency: MS(100), ..Script::default() });
        let calls: Vec<_> = (0..5).map(|_| ask(&world, &it)).collect();
        world.clock.advance(MS(after)).await;
        let before = world.source.serial();
        let landed = world.engine.cached(&it).is_some();
        let done = revoke(&world, Scope::Everything).await;
        assert_eq!(done.dropped, u64::from(landed), "after {after} ms");
        world.clock.advance(S(1)).await;
        for call in calls {
            let hit = call.await.unwrap().unwrap();
            assert!(landed || serial(&hit) > before, "after {after} ms: an old token was served");
        }
        assert!(world.engine.cached(&it).is_none_or(|hit| serial(&hit) > before), "after {after} ms");
        assert_eq!(world.source.most_in_flight(), 1, "after {after} ms");
        let world = world.killed(&EngineSettings::default()).await;
        assert!(world.engine.cached(&it).is_none_or(|hit| serial(&hit) > before), "kept: after {after} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_under_way_or_in_line_brings_nothing_back() {
    for after in [0, 20, 60, 100, 120, 200, 400] {
        let world = World::new().await;
        let it = key(1, "a");
        world.source.script_all(Script { latency: MS(100), lifetime: S(60), ..Script::default() });
        world.token(&it).await.unwrap();
        let due = world.engine.cached(&it).unwrap().token.refresh_boot;
        world.clock.advance(due.saturating_since(world.clock.now().boot)).await;
        assert!(world.engine.cached(&it).is_some(), "used, so it is refreshed");
        world.clock.advance(MS(after)).await;
        let before = world.source.serial();
        revoke(&world, Scope::Identity(it.identity)).await;
        world.clock.advance(S(2)).await;
        assert!(world.engine.cached(&it).is_none_or(|hit| serial(&hit) > before), "after {after} ms");
        assert!(serial(&world.token(&it).await.unwrap()) > before, "after {after} ms");
        assert_eq!(world.source.most_in_flight(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_callers_and_revocations_do_no_answer_is_older_than_the_last_revocation() {
    for seed in 0..20 {
        let world = World::new().await;
        let mut random = SmallRng::seed_from_u64(seed);
        world.source.script_all(Script { latency: MS(60), lifetime: S(20), ..Script::default() });
        let newest_taken_back = Arc::new(AtomicU64::new(0));
        let mut calls = vec![];
        for _ in 0..300 {
            let it = key(random.random_range(0..5), "a");
            let (engine, ask) = (world.engine.clone(), world.ask(random.random_range(0..5)));
            let taken_back = Arc::clone(&newest_taken_back);
            calls.push(tokio::spawn(async move {
                let hit = engine.token(&it, ask).await?;
                Ok::<_, TokenError>((serial(&hit), taken_back.load(SeqCst)))
            }));
            if random.random_bool(0.3) {
                world.clock.advance(MS(random.random_range(0..80))).await;
            }
            if random.random_bool(0.05) {
                let (engine, source) = (world.engine.clone(), world.source.clone());
                let taken_back = Arc::clone(&newest_taken_back);
                tokio::spawn(async move {
                    let before = source.serial();
                    engine.revoke(Scope::Everything, None).await.unwrap();
                    taken_back.fetch_max(before, SeqCst);
                });
            }
        }
        world.clock.advance(S(2)).await;
        for call in calls {
            let (brought, taken_back) = call.await.unwrap().unwrap();
            assert!(
                brought > taken_back,
                "seed {seed}: {brought} was served after {taken_back} was taken back"
            );
        }
        assert_eq!(world.source.most_in_flight(), 1, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn watches_end_with_a_word_and_a_new_one_sees_a_new_token() {
    let world = World::new().await;
    let it = key(1, "a");
    let mut watch = world.engine.watch(&it, caller(1)).unwrap();
    let mut waiting = world.engine.watch(&key(2, "a"), caller(1)).unwrap();
    world.clock.advance(S(1)).await;
    assert!(matches!(watch.next().await, Some(WatchEvent::Token(_))));
    let before = world.source.serial();
    revoke(&world, Scope::Everything).await;
    for watch in [&mut watch, &mut waiting] {
        assert!(matches!(watch.next().await, Some(WatchEvent::Revoked)));
        assert!(watch.next().await.is_none());
    }
    let mut again = world.engine.watch(&it, caller(1)).unwrap();
    world.clock.advance(S(1)).await;
    assert!(matches!(again.next().await, Some(WatchEvent::Token(hit)) if serial(&hit) > before));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_warm_is_fetched_anew_and_what_failed_is_tried_at_once() {
    let world = World::new().await;
    let (pinned, failing) = (key(1, "a"), key(2, "a"));
    world.engine.pin(&pinned, &caller(1), world.clock.now().wall + S(86_400)).unwrap();
    world.clock.advance(S(1)).await;
    let before = serial(&world.engine.cached(&pinned).unwrap());
    world.fail(IssueErrorClass::Permanent, None);
    assert!(world.token(&failing).await.is_err());
    world.source.script_all(Script::default());
    revoke(&world, Scope::Everything).await;
    world.clock.advance(S(1)).await;
    assert!(serial(&world.engine.cached(&pinned).unwrap()) > before);
    world.token(&failing).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn authorities_revoke_within_their_budget_and_the_answer_counts_what_they_did() {
    let world = World::new().await;
    let all = keys(100);
    world.load(&all).await;
    world.source.script_revocation(Some(Ok(())));
    world.source.script_all(Script { latency: MS(200), ..Script::default() });
    let done = revoke(&world, Scope::Everything).await;
    assert_eq!((done.dropped, done.revoked, done.not_revoked, done.valid_until), (100, 100, 0, None));
    let (revoked, most) = world.source.revocations();
    assert_eq!(revoked.len(), 100);
    assert!((2..=16).contains(&most), "{most} at once");
    // One that says no, or to wait: its tokens stay valid, and nobody asks inside its Retry-After.
    world.source.script_all(Script::default());
    for it in &all[..10] {
        world.token(it).await.unwrap();
    }
    let expires = all[..10].iter().map(|it| world.engine.cached(it).unwrap().token.expires_at).max();
    world.source.script_revocation(Some(Err(failure(IssueErrorClass::Throttled, Some(S(30))))));
    let done = revoke(&world, Scope::Everything).await;
    assert_eq!((done.dropped, done.revoked, done.not_revoked, done.valid_until), (10, 0, 10, expires));
    assert!(world.token(&all[0]).await.is_err(), "the pause that it asked for holds for tokens too");
    world.clock.advance(S(31)).await;
    world.token(&all[0]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_hangs_delays_the_answer_and_not_for_ever() {
    let world = World::new().await;
    world.token(&key(1, "a")).await.unwrap();
    let expires = world.engine.cached(&key(1, "a")).unwrap().token.expires_at;
    world.source.script_revocation(Some(Ok(())));
    world.source.script_all(Script { latency: S(34), ..Script::default() });
    let began = world.clock.now().boot;
    let done = revoke(&world, Scope::Everything).await;
    let took = world.clock.now().boot.saturating_since(began);
    assert!(took < S(30), "{took:?}");
    assert_eq!((done.not_revoked, done.valid_until), (1, Some(expires)));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_replaced_is_nobodys_to_revoke_and_the_answer_says_how_long_it_lives() {
    const LIFE: Duration = Duration::from_secs(600);
    let world = World::new().await;
    let it = key(1, "a");
    world.source.script_revocation(Some(Ok(())));
    world.source.script_all(Script { lifetime: LIFE, ..Script::default() });
    let first = world.token(&it).await.unwrap().token.expires_at;
    world.clock.advance(LIFE * 7 / 10).await;
    assert!(serial(&world.engine.cached(&it).unwrap()) > 1, "it was refreshed");
    world.clock.advance(S(1)).await;
    let world = world.killed(&EngineSettings::default()).await;
    let done = revoke(&world, Scope::Identity(it.identity)).await;
    assert_eq!((done.dropped, done.revoked, done.valid_until), (1, 1, Some(first)));
    world.clock.advance(LIFE).await;
    assert_eq!(revoke(&world, Scope::Everything).await.valid_until, None);
}

#[tokio::test(start_paused = true)]
async fn what_an_eviction_takes_meanwhile_is_revoked_all_the_same() {
    let world = World::new().await;
    let (it, other) = (key(1, "a"), key(2, "a"));
    world.source.script_revocation(Some(Ok(())));
    world.token(&it).await.unwrap();
    world.token(&other).await.unwrap();
    let leaving = world.engine.leaving(it.identity);
    world.engine.evict_identity(it.identity);
    world.engine.evict_identity(other.identity);
    let engine = world.engine.clone();
    let revoking =
        tokio::spawn(async move { engine.revoke(Scope::Identity(it.identity), Some(leaving)).await });
    world.clock.advance(S(1)).await;
    let done = revoking.await.unwrap().unwrap();
    assert_eq!((done.dropped, done.revoked), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_an_eviction_has_in_hand_is_never_missed_by_the_revocation_beside_it() {
    const TRIES: usize = 2_000;
    let world = World::new().await;
    let it = key(1, "a");
    world.source.script_revocation(Some(Ok(())));
    for _ in 0..TRIES {
        world.token(&it).await.unwrap();
        let leaving = world.engine.leaving(it.identity);
        let (engine, start) = (world.engine.clone(), Arc::new(Barrier::new(2)));
        let evicting = std::thread::spawn({
            let start = Arc::clone(&start);
            move || {
                start.wait();
                engine.evict_identity(it.identity);
            }
        });
        start.wait();
        let engine = world.engine.clone();
        let revoking = async move { engine.revoke(Scope::Identity(it.identity), Some(leaving)).await };
        let done = tokio::spawn(revoking).await.unwrap().unwrap();
        evicting.join().unwrap();
        assert_eq!((done.dropped, done.revoked), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_keeps_its_own_deadline_over_a_revocation() {
    let world = World::new().await;
    let it = key(1, "a");
    world.source.script_all(Script { latency: S(3), ..Script::default() });
    let (engine, wanted) = (world.engine.clone(), it.clone());
    let ask = Ask { wait: Some(S(4)), ..world.ask(1) };
    let call = tokio::spawn(async move { engine.token(&wanted, ask).await });
    world.clock.advance(S(2)).await;
    revoke(&world, Scope::Everything).await;
    world.clock.advance(S(3)).await;
    assert!(matches!(call.await.unwrap(), Err(TokenError::Deadline)));
}
