//! A hit takes no memory. A process of its own, so that every allocation in it is counted and nobody else's is.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::sync::Arc;

use benches::{AtOnce, Before, DAY, ShiftedClock, Size, TOKEN_BYTES, World};
use bytes::Buf;
use http::HeaderMap;
use jeton_engine::EngineSettings;
use jeton_proto::v1::TokenState;
use jeton_server::door::{Caller, Moment, Peer, Shortcut};
use jeton_trace::{Sampler, Tracer};

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

#[test]
fn a_hit_allocates_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let clock = ShiftedClock::default();
    let size = Size { slots: 1_000, scopes: 1_000, token_bytes: TOKEN_BYTES, lifetime: DAY };
    let (source, shown) = (Arc::new(AtOnce::new(size)), Arc::new(clock.clone()));
    let world = World::with(size, EngineSettings::default(), source, Before::default(), shown, &runtime);
    // Its tick and its writer would be counted too.
    drop(runtime);
    let remote = ([127, 0, 0, 1], 1).into();
    let caller = Caller { principal: world.principal.clone(), peer: Peer::Tcp { remote }, until: None };
    let framed = |request: &[u8]| {
        let length = u32::try_from(request.len()).unwrap();
        [&[0], length.to_be_bytes().as_slice(), request].concat()
    };
    let bodies: Vec<_> = world.requests.iter().map(|request| framed(request)).collect();
    // One that its caller does not sample, and one whose trace begins here.
    let tracer = Tracer::new(Sampler::parent_based(0.0), Arc::new(|_| panic!("nothing is recorded")));
    let mut unsampled = HeaderMap::new();
    unsampled
        .insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".parse().unwrap());
    let headers = [unsampled, HeaderMap::new()];
    let everything = |state: TokenState| {
        for (n, body) in bodies.iter().enumerate() {
            assert!(world.hit(n, world.clock.now()) > 0);
            let span = tracer.request(&headers[n % 2], || panic!("its name is of no use"));
            assert!(!span.is_recording() && !jeton_trace::current().is_recording());
            let mut answer = world.shortcut.answer(&caller, body, &mut Moment::default()).unwrap();
            answer.advance(answer.remaining() - 1);
            assert_eq!(answer.chunk(), [state as u8]);
        }
    };
    let _profiler = dhat::Profiler::builder().testing().build();
    // What is asked for the first time is decided and remembered.
    everything(TokenState::Fresh);
    let first = dhat::HeapStats::get();
    assert!(first.total_blocks > 0, "the allocator counts");
    everything(TokenState::Fresh);
    let second = dhat::HeapStats::get();
    assert_eq!(second.total_blocks - first.total_blocks, 0, "blocks for 2000 hits");
    // As when no authority answers: past the refresh of all, and nobody refreshes.
    clock.forward(DAY / 10 * 7);
    everything(TokenState::Stale);
    let third = dhat::HeapStats::get();
    assert_eq!(third.total_blocks - second.total_blocks, 0, "blocks for 2000 hits of stale tokens");
}
