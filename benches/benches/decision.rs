//! What a hit spares, and what it costs: the reading of a request, the decision.
#![allow(clippy::expect_used, missing_docs, reason = "a benchmark")]

use std::{hint::black_box, time::Duration};

use benches::World;
use criterion::{Criterion, criterion_group, criterion_main};
use jeton_core::{Claims, TargetRequest};
use jeton_proto::v1;
use prost::Message;

fn decisions(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let world = World::new(10_000, &runtime);
    let mut group = c.benchmark_group("decision");
    group.bench_function("GetTokenRequest into names, target and claims", |b| {
        b.iter(|| {
            let request = v1::GetTokenRequest::decode(&world.requests[0][..]).expect("a request");
            let target = TargetRequest { scopes: request.scopes, resources: request.resources };
            let identity: Result<jeton_core::IdentityName, _> = request.identity.parse();
            black_box((identity, target, Claims::parse(&request.claims)))
        });
    });
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

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = decisions
}
criterion_main!(benches);
