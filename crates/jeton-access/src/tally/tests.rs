use std::{
    iter::repeat_n,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use jeton_core::{Claims, Target, TokenHash, TokenType, audit::testing::MemoryTrail};
use jeton_testkit::ManualClock;

use super::*;
use crate::{testing::MemoryUseStore, usage::MOST_DUE};

struct World {
    trail: MemoryTrail,
    store: MemoryUseStore,
    clock: ManualClock,
    tally: Tally,
}

fn world(most_uses: usize) -> World {
    let (trail, store, clock) = (MemoryTrail::default(), MemoryUseStore::default(), ManualClock::default());
    let ports = TallyPorts {
        trail: Arc::new(trail.clone()),
        store: Arc::new(store.clone()),
        clock: Arc::new(clock.clone()),
        directory: SharedDirectory::default(),
    };
    let bounds = TallyBounds { batch: Duration::from_secs(1), refusals_per_minute: 10, most_uses };
    World { trail, store, clock, tally: Tally::new(ports, bounds) }
}

fn key(n: u8) -> TokenKey {
    TokenKey {
        identity: Uid::new(Wall::from_secs(1), [n; 10]),
        authority: Uid::LEAST,
        profile_version: 1,
        target: Target::from_canonical("resource:https://a.example").unwrap(),
        claims: None,
        token_type: TokenType::Bearer,
        cnf: None,
    }
}

fn token(n: u8) -> TokenHash {
    TokenHash::new(&[n; 32])
}

fn counts(trail: &MemoryTrail) -> Vec<(Option<TokenHash>, Option<u64>)> {
    trail.events().iter().map(|e| (e.token, e.count)).collect()
}

#[test]
fn many_uses_are_one_event_for_each_token_with_their_count_and_times() {
    let world = world(100);
    let usage = world.tally.usage(&Principal::loopback_dev(), &key(1));
    let at = Wall::from_secs;
    (10..15).for_each(|s| usage.served(token(1), at(s)));
    (15..17).for_each(|s| usage.served(token(2), at(s)));
    world.tally.gather();
    world.tally.gather();
    usage.served(token(2), at(20));
    world.tally.gather();
    let of = |n| Some(token(n));
    assert_eq!(counts(&world.trail), [(of(1), Some(5)), (of(2), Some(2)), (of(2), Some(1))]);
    let times: Vec<_> = world.trail.events().iter().map(|e| (e.first.unwrap(), e.last.unwrap())).collect();
    assert_eq!(times, [(at(10), at(14)), (at(15), at(16)), (at(20), at(20))]);
}

#[test]
fn what_threads_count_at_once_is_one_event_and_they_count_apart_only_within_a_millisecond() {
    let world = world(100);
    let usage = world.tally.usage(&Principal::loopback_dev(), &key(1));
    let served = |millis: &[i64]| millis.iter().for_each(|m| usage.served(token(1), Wall::from_millis(*m)));
    let by_another = |millis: &[i64]| {
        std::thread::scope(|scope| scope.spawn(|| served(millis)).join().unwrap());
    };
    served(&[1, 2, 3]);
    by_another(&[4, 5]);
    assert!(!usage.is_apart());
    by_another(&[5, 6, 7]);
    assert!(usage.is_apart());
    served(&[7, 8]);
    assert_eq!(usage.last(), Wall::from_millis(8));
    world.tally.gather();
    assert_eq!(counts(&world.trail), [(Some(token(1)), Some(10))]);
    let event = world.trail.events().remove(0);
    assert_eq!((event.first, event.last), (Some(Wall::from_millis(1)), Some(Wall::from_millis(8))));
    by_another(&[9]);
    world.tally.gather();
    assert_eq!(counts(&world.trail).len(), 2, "what is counted apart begins anew too");
}

#[test]
fn no_use_is_lost_where_threads_count_while_it_is_gathered() {
    for (threads, uses_of_a_token) in [(1, 20_000), (4, 20_000), (4, 100)] {
        let world = world(100);
        let counting = AtomicUsize::new(threads);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let usage = world.tally.usage(&Principal::loopback_dev(), &key(1));
                let counting = &counting;
                scope.spawn(move || {
                    for n in 0..20_000_u32 {
                        usage.served(
                            token((n / uses_of_a_token) as u8),
                            Wall::from_millis((n / 1_000).into()),
                        );
                    }
                    counting.fetch_sub(1, SeqCst);
                });
            }
            while counting.load(SeqCst) > 0 {
                world.tally.gather();
            }
        });
        world.tally.gather();
        let mut all = HashMap::new();
        for (token, count) in counts(&world.trail) {
            *all.entry(token.unwrap()).or_insert(0) += count.unwrap();
        }
        let each = u64::from(uses_of_a_token) * threads as u64;
        assert!(all.values().all(|count| *count == each), "{all:?}");
        assert_eq!(all.len() as u32, 20_000 / uses_of_a_token);
    }
}

#[test]
fn tokens_of_one_target_by_other_claims_that_take_turns_are_an_event_each() {
    let world = world(100);
    let claims = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#;
    let other = TokenKey { claims: Claims::parse(claims).unwrap(), ..key(1) };
    for _ in 0..100 {
        world.tally.usage(&Principal::loopback_dev(), &key(1)).served(token(1), Wall::from_secs(1));
        world.tally.usage(&Principal::loopback_dev(), &other).served(token(2), Wall::from_secs(1));
    }
    world.tally.gather();
    assert_eq!(counts(&world.trail), [(Some(token(1)), Some(100)), (Some(token(2)), Some(100))]);
}

#[test]
fn what_the_trail_has_no_room_for_waits_and_so_does_what_has_no_place_in_memory() {
    let world = world(1);
    let usage = |n| world.tally.usage(&Principal::loopback_dev(), &key(n));
    let (kept, other) = (usage(1), usage(2));
    world.trail.set_broken(true);
    for used in [&kept, &other] {
        used.served(token(1), Wall::from_secs(1));
        used.served(token(2), Wall::from_secs(2));
        assert!(!world.tally.gather());
    }
    assert!(counts(&world.trail).is_empty());
    world.trail.set_broken(false);
    assert!(world.tally.gather());
    let once = |n| (Some(token(n)), Some(1));
    assert_eq!(counts(&world.trail), [once(1), once(1), once(2), once(2)]);
}

#[tokio::test(start_paused = true)]
async fn first_and_last_use_survive_a_restart_and_are_told_before_they_are_stored() {
    let before = world(100);
    let task = before.tally.start();
    let usage = before.tally.usage(&Principal::loopback_dev(), &key(1));
    usage.served(token(1), before.clock.now().wall);
    let told = before.tally.uses_of(key(1).identity).await.unwrap();
    assert_eq!((told.len(), told[0].first), (1, before.clock.now().wall));
    task.shutdown().await;
    let mut after = world(100);
    let ports = TallyPorts {
        trail: Arc::new(after.trail.clone()),
        store: Arc::new(before.store.clone()),
        clock: Arc::new(before.clock.clone()),
        directory: SharedDirectory::default(),
    };
    after.tally = Tally::new(ports, before.tally.0.bounds);
    let task = after.tally.start();
    before.clock.advance(Duration::from_secs(3_600)).await;
    let usage = after.tally.usage(&Principal::loopback_dev(), &key(1));
    usage.served(token(1), before.clock.now().wall);
    before.clock.advance(Duration::from_secs(11)).await;
    let told = after.tally.uses_of(key(1).identity).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].last.saturating_since(told[0].first), Duration::from_secs(3_600));
    assert!(after.tally.uses_of(key(2).identity).await.unwrap().is_empty());
    before.clock.advance(IDLE).await;
    assert!(locked(&after.tally.0.usages).is_empty(), "what is idle is not kept in memory");
    task.shutdown().await;
}

#[test]
fn no_more_are_handed_out_while_very_much_waits_to_be_written() {
    let world = world(1);
    let usage = world.tally.usage(&Principal::loopback_dev(), &key(1));
    let usages = repeat_n(usage, MOST_DUE - 1).collect();
    world.tally.0.due.put_back(Waiting { usages, ..Waiting::default() });
    assert!(world.tally.has_room());
    world.tally.usage(&Principal::loopback_dev(), &key(2)).served(token(1), Wall::from_secs(1));
    assert!(!world.tally.has_room());
    assert!(world.tally.gather() && world.tally.has_room());
    assert_eq!(counts(&world.trail), [(Some(token(1)), Some(1))]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_without_room_in_the_trail_ends_with_everything_handed_over() {
    let world = world(1);
    let task = world.tally.start();
    world.trail.set_broken(true);
    world.tally.usage(&Principal::loopback_dev(), &key(1)).served(token(1), Wall::from_secs(1));
    task.shutdown().await;
    assert_eq!(counts(&world.trail), [(Some(token(1)), Some(1))]);
    assert_eq!(world.store.uses_of(key(1).identity).await.unwrap().len(), 1);
}
