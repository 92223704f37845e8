//! Flights as they are recorded.

use std::sync::{
    Arc,
    mpsc::{Receiver, channel},
};

use jeton_engine::{IssueErrorClass, testing::key};
use jeton_trace::{Context, Ended, Sampler, Tracer, Value};

use crate::world::{MS, S, World};

fn tracer(sampler: Sampler) -> (Tracer, Receiver<Ended>) {
    let (tell, told) = channel();
    // What ends after its test is of no use.
    (Tracer::new(sampler, Arc::new(move |ended| drop(tell.send(ended)))), told)
}

fn says(ended: &Ended, key: &str, text: &str) -> bool {
    ended.attributes.iter().any(|(known, value)| *known == key && *value == Value::Text(text.into()))
}

/// A caller that is recorded asks, and the place of its span comes back.
fn ask(world: &World, tracer: &Tracer, n: u32) -> Context {
    let (engine, ask, span) = (world.engine.clone(), world.ask(n), tracer.root("caller"));
    let context = span.context().unwrap().clone();
    tokio::spawn(span.within(async move { engine.token(&key(1, "a"), ask).await }));
    context
}

#[tokio::test(start_paused = true)]
async fn one_flight_is_part_of_what_its_first_caller_does_and_all_who_wait_are_linked_to_it() {
    let (tracer, told) = tracer(Sampler::ratio(1.0));
    let world = World::traced(tracer.clone()).await;
    let callers: Vec<_> = (1..=5).map(|n| ask(&world, &tracer, n)).collect();
    world.clock.advance(S(1)).await;
    let ended: Vec<_> = told.try_iter().collect();
    let [flight] = &ended.iter().filter(|e| e.name == "flight").collect::<Vec<_>>()[..] else {
        panic!("{ended:?}")
    };
    assert_eq!(flight.context.trace_id, callers[0].trace_id);
    assert_eq!(flight.parent.unwrap().span_id, callers[0].span_id);
    assert!(says(flight, "jeton.refresh.cause", "caller") && says(flight, "jeton.refresh.outcome", "issued"));
    let permit = ended.iter().find(|e| e.name == "permit").unwrap();
    assert_eq!(permit.parent.unwrap().span_id, flight.context.span_id);
    for caller in &callers {
        let waited = ended.iter().find(|e| e.context == *caller).unwrap();
        assert_eq!(waited.links, std::slice::from_ref(&flight.context));
        assert!(says(waited, "jeton.lookup.result", "miss"));
    }
    let hit = ask(&world, &tracer, 6);
    world.clock.advance(MS(50)).await;
    let ended: Vec<_> = told.try_iter().collect();
    assert!(ended.len() == 1 && ended[0].context == hit, "nothing flies: {ended:?}");
    assert!(ended[0].links.is_empty() && says(&ended[0], "jeton.lookup.result", "fresh"));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_by_plan_begins_a_trace_and_a_failed_one_says_how_it_failed() {
    let (tracer, told) = tracer(Sampler::ratio(1.0));
    let world = World::traced(tracer).await;
    let it = key(1, "a");
    world.token(&it).await.unwrap();
    let first: Vec<_> = told.try_iter().filter(|e| e.name == "flight").collect();
    assert!(first.len() == 1 && first[0].parent.is_none(), "its caller is not recorded: {first:?}");
    world.fail(IssueErrorClass::Throttled, None);
    for _ in 0..250 {
        world.clock.advance(S(10)).await;
        drop(world.engine.cached(&it));
    }
    let refresh = told.try_iter().find(|e| e.name == "flight").unwrap();
    assert!(refresh.parent.is_none() && refresh.failed);
    assert_ne!(refresh.context.trace_id, first[0].context.trace_id);
    assert!(says(&refresh, "jeton.refresh.cause", "plan") && says(&refresh, "error.type", "throttled"));
}

#[tokio::test(start_paused = true)]
async fn without_a_sampled_caller_flights_are_recorded_as_the_sampler_says() {
    let (tracer, told) = tracer(Sampler::parent_based(0.0));
    let world = World::traced(tracer).await;
    world.token(&key(1, "a")).await.unwrap();
    assert_eq!(told.try_iter().count(), 0);
}
