//! What is remembered of decisions is bounded, and being forgotten costs a caller nothing but the decision.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use benches::World;
use jeton_server::grpc::GetTokenShortcut;

/// The fewest that a shortcut remembers, whatever it is told, and how many more it may be: the count is not exact.
const MOST: usize = 1_024;
const MORE: usize = 8;

fn remembered(shortcut: &GetTokenShortcut) -> usize {
    let shown = format!("{shortcut:?}");
    let digits: String = shown.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn more_decisions_than_may_be_remembered_are_all_served_and_the_memory_stays_bounded() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = World::new(5_000, &runtime);
    let shortcut = GetTokenShortcut::new(
        world.engine.clone(),
        world.access.clone(),
        world.tally.clone(),
        world.clock.clone(),
        MOST as u64,
    );
    let served = |n: usize| {
        let (request, now) = (&world.requests[n], world.clock.now());
        shortcut.serve(&world.principal, request, now, |answer, _| answer.clone()).unwrap()
    };
    let mut most = 0;
    for n in 0..world.requests.len() {
        let uid = world.keys[n].identity.to_string();
        assert!(contains(&served(n), uid.as_bytes()), "{n}: another identity's token");
        most = most.max(remembered(&shortcut));
    }
    assert!((MOST / 2..=MOST + MORE).contains(&most), "{most} remembered");
    // The first ones were forgotten, and come back.
    assert_eq!(served(0), served(0));
    assert!(remembered(&shortcut) <= MOST + MORE);
}

fn contains(answer: &[u8], part: &[u8]) -> bool {
    answer.windows(part.len()).any(|window| window == part)
}
