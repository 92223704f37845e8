//! Steps as they are recorded.

use std::sync::{
    Arc,
    mpsc::{Receiver, channel},
};

use jeton_core::Step;
use jeton_lifecycle::{RotationSettings, testing::Fault};
use jeton_trace::{Ended, Sampler, Tracer, Value};

use crate::world::World;

fn tracer(sampler: Sampler) -> (Tracer, Receiver<Ended>) {
    let (tell, told) = channel();
    // What ends after its test is of no use.
    (Tracer::new(sampler, Arc::new(move |ended| drop(tell.send(ended)))), told)
}

#[tokio::test(start_paused = true)]
async fn the_steps_of_a_recorded_call_are_recorded_in_traces_of_their_own_with_a_link_to_it() {
    let (calls, called) = tracer(Sampler::ratio(1.0));
    let (steps, told) = tracer(Sampler::parent_based(0.0));
    let world = World::traced(RotationSettings::default(), steps).await;
    world.create("identities/unrecorded", "entra").await.unwrap();
    world.settle("identities/unrecorded").await;
    assert_eq!(told.try_iter().count(), 0, "nobody asks for them");
    calls.root("call").within(world.create("identities/a", "entra")).await.unwrap();
    let call = called.recv().unwrap();
    world.settle("identities/a").await;
    let ended: Vec<_> = told.try_iter().collect();
    let names: Vec<_> = ended.iter().map(|step| step.name.as_ref()).collect();
    assert_eq!(
        names,
        ["provision/key_made", "provision/registered", "provision/verified", "provision/switched"]
    );
    for step in &ended {
        assert_eq!((&step.links[..], step.parent), (&[call.context.clone()][..], None));
        assert_ne!(step.context.trace_id, call.context.trace_id);
        assert!(step.attributes.contains(&("jeton.identity", Value::Text("identities/a".into()))));
        assert!(step.attributes.contains(&("jeton.lifecycle.outcome", Value::Text("done".into()))));
    }
    let ids = |key| ended[0].attributes.iter().any(|(known, _)| *known == key);
    assert!(ids("jeton.correlation_id"), "as on the audit log: {ended:?}");
    // What comes later and was asked for by nobody who is recorded.
    world.lifecycle.rotate_credential(&"identities/a".parse().unwrap(), "").await.unwrap();
    world.settle("identities/a").await;
    assert_eq!(told.try_iter().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_failed_says_by_which_kind_of_fault() {
    let (tracer, told) = tracer(Sampler::ratio(1.0));
    let world = World::traced(RotationSettings::default(), tracer).await;
    world.registry.fail(Step::Registered, Fault::Refused);
    world.create("identities/a", "entra").await.unwrap();
    world.settle("identities/a").await;
    let failed = told.try_iter().find(|step| step.name == "provision/registered").unwrap();
    assert!(failed.failed && failed.attributes.contains(&("error.type", Value::Text("permanent".into()))));
}
