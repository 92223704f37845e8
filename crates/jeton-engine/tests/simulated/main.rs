//! The engine in simulated time, against a scripted source. An oracle looks at every reply: it is for the asked identity and has
//! at least `min(30 s, lifetime / 4)` of life.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jeton_core::{Clock, Freshness, SharedDirectory, TokenKey, serve_floor};
use jeton_engine::{
    Ask, Engine, EngineSettings, EngineTasks, Hit, IssueErrorClass, Ports, Rejected, TokenError, WatchEvent,
    testing::{MemoryTokenStore, Script, ScriptedSource, caller, failure, key},
};
use jeton_testkit::ManualClock;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use secrecy::ExposeSecret;

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

struct World {
    clock: ManualClock,
    source: ScriptedSource,
    store: MemoryTokenStore,
    engine: Engine,
    tasks: EngineTasks,
}

impl World {
    async fn new() -> Self {
        Self::with(EngineSettings {
            misses_per_second: 1_000_000,
            miss_burst: 1_000_000,
            ..EngineSettings::default()
        })
        .await
    }

    async fn with(settings: EngineSettings) -> Self {
        let clock = ManualClock::default();
        let source = ScriptedSource::new(Arc::new(clock.clone()));
        let store = MemoryTokenStore::default();
        let (engine, tasks) = start(&settings, &clock, &source, &store).await;
        Self { clock, source, store, engine, tasks }
    }

    async fn restart(self, settings: &EngineSettings) -> Self {
        self.clock.advance(MS(200)).await;
        let Self { clock, source, store, .. } = self;
        let (engine, tasks) = start(settings, &clock, &source, &store).await;
        Self { clock, source, store, engine, tasks }
    }

    fn ask(&self, n: u32) -> Ask {
        Ask { caller: caller(n), wait: None, min_validity: None }
    }

    /// Asks while time goes on, as every caller does.
    async fn token(&self, key: &TokenKey) -> Result<Hit, TokenError> {
        let (engine, ask, wanted) = (self.engine.clone(), self.ask(1), key.clone());
        let asking = tokio::spawn(async move { engine.token(&wanted, ask).await });
        while !asking.is_finished() {
            self.clock.advance(MS(50)).await;
        }
        let answer = asking.await.unwrap();
        if let Ok(hit) = &answer {
            self.check(key, hit);
        }
        answer
    }

    fn check(&self, key: &TokenKey, hit: &Hit) {
        let text = hit.token.issued.access_token.expose_secret();
        assert!(text.starts_with(&key.identity.to_string()), "a token of another identity: {text}");
        let left = hit.token.remaining(self.clock.now());
        assert!(left >= serve_floor(hit.token.lifetime()), "only {left:?} left");
    }

    fn fail(&self, class: IssueErrorClass, retry_after: Option<Duration>) {
        self.source.script_all(Script { failure: Some(failure(class, retry_after)), ..Script::default() });
    }
}

async fn start(
    settings: &EngineSettings,
    clock: &ManualClock,
    source: &ScriptedSource,
    store: &MemoryTokenStore,
) -> (Engine, EngineTasks) {
    let ports = Ports {
        source: Arc::new(source.clone()),
        store: Arc::new(store.clone()),
        clock: Arc::new(clock.clone()),
        directory: SharedDirectory::default(),
        encoder: Arc::new(|token| {
            Bytes::copy_from_slice(token.issued.access_token.expose_secret().as_bytes())
        }),
        seed: 1,
    };
    Engine::start(settings.clone(), ports).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_warm_caller_never_waits_while_each_refresh_hangs() {
    let world = World::new().await;
    let it = key(1, "a");
    world.source.script_all(Script { latency: S(8), lifetime: S(60), failure: None });
    world.token(&it).await.unwrap();
    let mut serials = std::collections::BTreeSet::new();
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
async fn callers_of_a_cold_key_share_one_flight_and_a_cancelled_one_harms_nobody() {
    let world = World::new().await;
    let it = key(1, "a");
    world.source.script_all(Script { latency: S(2), ..Script::default() });
    let calls: Vec<_> = (0..10_000_u32)
        .map(|n| {
            let (engine, wanted) = (world.engine.clone(), it.clone());
            let ask = Ask { caller: caller(n % 7), wait: None, min_validity: None };
            tokio::spawn(async move { engine.token(&wanted, ask).await })
        })
        .collect();
    world.clock.advance(MS(500)).await;
    calls.iter().step_by(2).for_each(|call| call.abort());
    world.clock.advance(S(3)).await;
    let mut texts = std::collections::BTreeSet::new();
    for call in calls.into_iter().skip(1).step_by(2) {
        texts.insert(call.await.unwrap().unwrap().token.issued.access_token.expose_secret().to_owned());
    }
    assert_eq!((texts.len(), world.source.requests(&it).len()), (1, 1));
}

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
async fn keys_that_came_together_are_not_refreshed_together() {
    let world = World::new().await;
    world.source.script_all(Script { lifetime: S(300), latency: MS(1), failure: None });
    for n in 0..10_000 {
        let (engine, ask) = (world.engine.clone(), world.ask(1));
        let ask = Ask { wait: Some(S(10)), ..ask };
        tokio::spawn(async move { while engine.token(&key(n, "a"), ask.clone()).await.is_err() {} });
    }
    for _ in 0..45 {
        world.clock.advance(S(20)).await;
        (0..10_000).for_each(|n| drop(world.engine.cached(&key(n, "a"))));
    }
    let begin = world.source.all_requests()[0];
    let mut seconds = vec![0_u32; 1_000];
    for at in world.source.all_requests() {
        seconds[at.saturating_since(begin).as_secs() as usize] += 1;
    }
    // After three cycles of about 150 s.
    let late = &seconds[500..880];
    let mean = f64::from(late.iter().sum::<u32>()) / late.len() as f64;
    let busiest = f64::from(*late.iter().max().unwrap());
    assert!(mean > 30.0 && busiest <= mean * 3.0, "busiest second {busiest}, mean {mean}");
}

#[tokio::test(start_paused = true)]
async fn failing_identities_do_not_delay_the_others() {
    let world = World::new().await;
    let bad = |n| key(10_000 + n, "a");
    for n in 0..1_000 {
        world.source.script(
            bad(n).identity,
            Script { failure: Some(failure(IssueErrorClass::Permanent, None)), ..Script::default() },
        );
    }
    for n in 0..1_000 {
        let (engine, ask) = (world.engine.clone(), world.ask(1));
        tokio::spawn(async move { engine.token(&key(n, "a"), ask).await });
        let (engine, ask) = (world.engine.clone(), world.ask(2));
        tokio::spawn(async move { engine.token(&bad(n), ask).await });
    }
    for _ in 0..360 {
        world.clock.advance(S(10)).await;
        for n in 0..1_000 {
            assert!(world.engine.cached(&key(n, "a")).is_some());
            let (engine, ask) = (world.engine.clone(), world.ask(2));
            tokio::spawn(async move { engine.token(&bad(n), ask).await });
        }
    }
    let requests = world.source.requests(&bad(7));
    assert!(requests.len() <= 5 + 6, "{} requests in an hour", requests.len());
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
async fn what_nobody_uses_is_not_refreshed() {
    let world = World::new().await;
    for n in 0..500 {
        let (engine, ask) = (world.engine.clone(), world.ask(1));
        tokio::spawn(async move { engine.token(&key(n, "a"), ask).await });
    }
    world.clock.advance(S(24 * 3_600)).await;
    for n in 0..500 {
        let requests = world.source.requests(&key(n, "a")).len();
        assert!((1..=3).contains(&requests), "{requests} requests for a key that was used once");
    }
    assert_eq!(world.engine.stats().slots, 0, "and then forgotten");
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
        let outcome =
            world.engine.report_rejected(&it, |t| t.issued.access_token.expose_secret() == refused).unwrap();
        assert_eq!(outcome, Rejected::Refreshing);
    }
    assert_eq!(text(&world.engine.cached(&it).unwrap()), refused, "others keep the old one meanwhile");
    world.clock.advance(S(6)).await;
    let new = world.engine.cached(&it).unwrap();
    assert_ne!(text(&new), refused);
    assert!(new.token.issued_at >= old.token.issued_at);
    assert_eq!(world.source.requests(&it).len(), 2);
    let again = text(&new);
    let outcome =
        world.engine.report_rejected(&it, |t| t.issued.access_token.expose_secret() == again).unwrap();
    assert_eq!(outcome, Rejected::TooSoon);
    assert_eq!(world.engine.report_rejected(&it, |_| false).unwrap(), Rejected::Superseded);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_shorter_than_the_one_before_is_refreshed_in_its_own_time() {
    let world = World::new().await;
    let it = key(1, "a");
    world.token(&it).await.unwrap();
    world.source.script_all(Script { lifetime: S(12), ..Script::default() });
    assert_eq!(world.engine.report_rejected(&it, |_| true).unwrap(), Rejected::Refreshing);
    world.clock.advance(S(1)).await;
    for second in 0..120 {
        assert!(world.engine.cached(&it).is_some(), "after {second} s");
        world.clock.advance(S(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_the_current_token_every_refresh_and_the_end() {
    let world = World::new().await;
    let it = key(1, "a");
    world.source.script_all(Script { lifetime: S(60), ..Script::default() });
    let mut watch = world.engine.watch(&it, &caller(1)).unwrap();
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
        match world.engine.watch(&key(n, "a"), &caller(1)) {
            Err(TokenError::Overloaded { retry_after, .. }) => {
                assert!(retry_after <= MS(101) && !retry_after.is_zero());
                refused += 1;
            }
            Err(error) => panic!("{error}"),
            Ok(_) => {}
        }
    }
    assert_eq!(refused, 80);
    assert!(world.engine.watch(&key(200, "a"), &caller(2)).is_ok());
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

#[tokio::test(start_paused = true)]
async fn a_restart_that_finds_everything_due_asks_at_the_warm_up_rate() {
    let world = World::new().await;
    for n in 0..600 {
        let (engine, ask) = (world.engine.clone(), world.ask(1));
        tokio::spawn(async move { engine.token(&key(n, "a"), ask).await });
    }
    world.clock.advance(S(5)).await;
    let Stopped { clock, source, store } = stopped(world).await;
    clock.suspend(S(2_400));
    let before = source.all_requests().len();
    let (_engine, _tasks) = start(&EngineSettings::default(), &clock, &source, &store).await;
    clock.advance(S(10)).await;
    let asked = source.all_requests().len() - before;
    assert!((150..=260).contains(&asked), "{asked} requests in 10 s at 20/s with a burst of 40");
}

struct Stopped {
    clock: ManualClock,
    source: ScriptedSource,
    store: MemoryTokenStore,
}

async fn stopped(world: World) -> Stopped {
    let World { clock, source, store, tasks, .. } = world;
    let stopping = tokio::spawn(tasks.shutdown());
    while !stopping.is_finished() {
        clock.advance(MS(50)).await;
    }
    Stopped { clock, source, store }
}

#[tokio::test(start_paused = true)]
async fn random_cancellation_leaves_no_flight_stuck_and_crosses_no_tokens() {
    for seed in 0..20 {
        let world = World::new().await;
        let mut random = SmallRng::seed_from_u64(seed);
        world.source.script_all(Script { latency: MS(120), lifetime: S(20), failure: None });
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
        engine.token(&wanted, Ask { caller: caller(9), wait: None, min_validity: None }).await
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
async fn the_store_in_memory_keeps_the_contract() {
    let store = MemoryTokenStore::default();
    jeton_engine::testing::token_store_contract(async || store.clone()).await;
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
async fn a_watch_that_begins_while_nothing_can_be_asked_gets_its_token_later() {
    let world = World::new().await;
    let (failing, waiting) = (key(1, "a"), key(2, "b"));
    world.fail(IssueErrorClass::Transient, None);
    assert!(world.token(&failing).await.is_err());
    let mut watch = world.engine.watch(&failing, &caller(1)).unwrap();
    assert!(matches!(watch.next().await, Some(WatchEvent::Failed(_))), "the last error is told");
    // Another one while every permit is taken.
    world.source.script_all(Script { latency: S(34), ..Script::default() });
    for n in 0..200 {
        let (engine, ask) = (world.engine.clone(), world.ask(1));
        tokio::spawn(async move { engine.token(&key(100 + n, "x"), ask).await });
    }
    world.clock.advance(S(1)).await;
    let mut other = world.engine.watch(&waiting, &caller(1)).unwrap();
    world.clock.advance(S(12)).await;
    assert!(matches!(other.next().await, Some(WatchEvent::Failed(_))), "and that there was no permit");
    world.source.script_all(Script::default());
    world.clock.advance(S(60)).await;
    for watch in [&mut watch, &mut other] {
        loop {
            match tokio::time::timeout(S(1), watch.next()).await.expect("a token comes") {
                Some(WatchEvent::Token(_)) => break,
                Some(WatchEvent::Failed(_)) => {}
                None => panic!("the watch ended"),
            }
        }
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
        match world.engine.watch(&key(n, "a"), &caller(u32::try_from(n % 4).unwrap())) {
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
    let many: Vec<_> = (0..700).map(|_| world.engine.watch(&it, &caller(1)).unwrap()).collect();
    assert_eq!(many.len(), 700);
    let forever = jeton_core::Wall::from_millis(i64::MAX);
    (0..700).for_each(|n| world.engine.pin(&key(n, "warm"), &caller(1), forever).unwrap());
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
async fn a_report_inside_a_pause_is_told_so_and_does_not_count() {
    let world = World::new().await;
    let it = key(1, "a");
    world.token(&it).await.unwrap();
    world.fail(IssueErrorClass::Throttled, Some(S(20)));
    assert!(world.token(&key(1, "b")).await.is_err());
    assert!(matches!(world.engine.report_rejected(&it, |_| true), Err(TokenError::Authority(_))));
    world.source.script_all(Script::default());
    world.clock.advance(S(21)).await;
    assert_eq!(world.engine.report_rejected(&it, |_| true).unwrap(), Rejected::Refreshing);
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
