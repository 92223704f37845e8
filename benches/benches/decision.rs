//! What a hit spares, and what it costs: the token key of a request, the decision.
#![allow(clippy::expect_used, missing_docs, reason = "a benchmark")]

use std::{hint::black_box, time::Duration};

use benches::World;
use criterion::{Criterion, criterion_group, criterion_main};
use jeton_core::{Claims, IdentityName, Target, TargetRequest, TokenKey, TokenType, profile::Profile};
use jeton_proto::v1;
use prost::Message;

/// A claims challenge as Entra's resources send it.
const CHALLENGE: &str =
    r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"},"xms_cc":{"values":["cp1"]}}}"#;

fn decisions(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let world = World::new(10_000, &runtime);
    let mut group = c.benchmark_group("decision");
    let profile = jeton_lifecycle::testing::authority("a", world.keys[0].authority, true).profile;
    let plain = v1::GetTokenRequest::decode(&world.requests[0][..]).expect("a request");
    let challenged = v1::GetTokenRequest { claims: CHALLENGE.into(), ..plain.clone() };
    for (what, request) in [("", plain), (" and a claims challenge", challenged)] {
        let bytes = request.encode_to_vec();
        let read = key(&bytes, &world.keys[0], &profile);
        assert_eq!(read, TokenKey { claims: read.claims.clone(), ..world.keys[0].clone() });
        group.bench_function(format!("a token key of a request{what}"), |b| {
            b.iter(|| key(black_box(&bytes), &world.keys[0], &profile));
        });
    }
    let name = "identities/load.n0".parse().expect("a name");
    let target = TargetRequest { scopes: vec!["orders.read.s0".into()], resources: vec![] };
    group.bench_function("access decision, with the token key", |b| {
        b.iter(|| black_box(world.access.allowed(&world.principal, Some(&name), &target, None)));
    });
    let now = world.clock.now();
    world.hit(0, now);
    group.bench_function("the same, remembered, with the token", |b| b.iter(|| black_box(world.hit(0, now))));
    group.bench_function("the three clocks", |b| b.iter(|| black_box(world.clock.now())));
    group.finish();
}

/// Reads a request, as the broker does; whom its name means is known.
fn key(request: &[u8], known: &TokenKey, profile: &Profile) -> TokenKey {
    let request = v1::GetTokenRequest::decode(request).expect("a request");
    let _: IdentityName = black_box(request.identity.parse().expect("a name"));
    let target = TargetRequest { scopes: request.scopes, resources: request.resources };
    TokenKey {
        identity: known.identity,
        authority: known.authority,
        profile_version: known.profile_version,
        target: Target::resolve(&target, profile).expect("a target"),
        claims: Claims::parse(&request.claims).expect("claims"),
        token_type: TokenType::default(),
        cnf: None,
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = decisions
}
criterion_main!(benches);
