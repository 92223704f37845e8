//! Two hours of refreshes, failures, discards and drifting clocks, before an authority that lets nothing pass.

use std::{collections::HashSet, time::Duration};

use jeton_core::{AssertionRequest, Assertions, CertificateFacts, Clock, KeyKind, SigningAlgorithm, Wall};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use secrecy::ExposeSecret;

use crate::{World, claims, with_lifetime};

const HOURS: Duration = Duration::from_secs(2 * 3_600);
const LEAD: Duration = Duration::from_secs(10);

/// Refuses what it saw before, what lives too long, and what has too little life left.
#[derive(Default)]
struct Authority {
    seen: HashSet<String>,
}

impl Authority {
    fn accepts(&mut self, jwt: &str, facts: &CertificateFacts, request: &AssertionRequest, now: Wall) {
        let claims = claims(jwt, facts, &request.profile.audience);
        assert!(self.seen.insert(claims["jti"].as_str().unwrap().to_owned()), "seen before: {claims}");
        let at = |name: &str| claims[name].as_i64().unwrap();
        let lifetime = i64::from(request.profile.lifetime_seconds);
        assert!(at("exp") - at("iat") <= lifetime.min(600), "lives too long: {claims}");
        let theirs = now.shifted(request.skew_millis);
        assert!(Wall::from_secs(at("iat")) <= theirs, "from the future: {claims}");
        let left = at("exp") * 1_000 - theirs.as_millis();
        // Within the tolerance, a skew that was learned since costs as much life.
        assert!(left + 2_000 >= 120_000.min(lifetime * 1_000 / 3), "{left} ms of life left: {claims}");
    }
}

#[tokio::test]
async fn in_two_hours_no_assertion_is_reused_or_old_and_most_are_signed_ahead() {
    let (world, mut random) = (World::new(), SmallRng::seed_from_u64(12));
    let (mut authority, mut clients, mut due) = (Authority::default(), vec![], vec![]);
    for lifetime in [600, 300, 60] {
        let credential = world.credential(KeyKind::P256).await;
        let request = world.request(&credential, SigningAlgorithm::Es256);
        clients.push((credential.1, with_lifetime(&request, lifetime)));
    }
    let start = world.clock.now().wall;
    // Four targets of each client, with tokens of one to ten minutes.
    for target in 0..12 {
        due.push((start + Duration::from_secs(20), target % 3, Duration::from_secs(60 + 49 * target as u64)));
    }
    let mut sent = 0_u64;
    while world.clock.now().wall < start + HOURS {
        due.sort_unstable_by_key(|(at, ..)| std::cmp::Reverse(*at));
        let (at, client, token) = due.pop().unwrap();
        // Whatever is due within the lead is prepared, as the engine does.
        let wait = at.saturating_since(world.clock.now().wall);
        world.clock.suspend(wait.saturating_sub(LEAD));
        let (facts, request) = &mut clients[client];
        world.keys.prepare(request, wait.min(LEAD));
        world.presigned().await;
        match random.random_range(0..40) {
            0 => world.keys.discard(request.credential),
            1 => request.skew_millis += random.random_range(-4_000..4_000),
            // The machine sleeps.
            2 => world.clock.suspend(Duration::from_secs(random.random_range(1..300))),
            _ => {}
        }
        world.clock.suspend(at.saturating_since(world.clock.now().wall));
        // One request in five fails after the assertion was sent.
        let tries = 1 + usize::from(random.random_ratio(1, 5));
        for _ in 0..tries {
            let assertion = world.keys.take(request.clone()).await.unwrap();
            authority.accepts(assertion.jwt.expose_secret(), facts, request, world.clock.now().wall);
            sent += 1;
        }
        let half = token.mul_f64(random.random_range(0.4..0.6));
        due.push((world.clock.now().wall + half, client, token));
    }
    let stats = world.keys.stats();
    assert!(sent > 300, "{sent} sent");
    assert!(stats.taken_from_pool * 10 >= sent * 7, "{stats:?} of {sent} sent");
}
