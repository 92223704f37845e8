//! Events, as the admin plane tells them.

use jeton_core::Permission;
use jeton_proto::v1::{
    self, event_service_client::EventServiceClient, identity_service_client::IdentityServiceClient,
};
use jeton_server::{Event, EventKind, Severity};
use tonic::Code;
use tonic_types::StatusExt;

use super::{
    administration::{OTHER, assert_refused},
    tests::World,
    *,
};

fn text(text: &str) -> String {
    text.to_owned()
}

#[tokio::test]
async fn whoever_watches_events_hears_of_its_part_alone_and_of_nothing_when_its_role_is_taken_back() {
    let world = World::start().await;
    let (broker, other): (_, Principal) = (&world.running.broker, OTHER.parse().unwrap());
    let given = world.give(OTHER, "reader", "identities/billing").await.unwrap();
    let mut events = EventServiceClient::new(world.plane(&other).await);
    let mut watch = events.watch_events(v1::WatchEventsRequest::default()).await.unwrap().into_inner();
    let about = |name: &str, needs, message: &str| {
        let found = broker.lifecycle.directory().identity_named(&name.parse().unwrap()).map(|i| i.uid);
        let now = broker.clock.now().wall;
        let event = Event::new(now, EventKind::Changed, Severity::Info, message);
        Event { identity: found.map(|uid| (uid, name.into())), needs, ..event }
    };
    broker.events.record(about("identities/nobody", Permission::ReadIdentities, "of the broker itself"));
    broker.events.record(about("identities/billing", Permission::ReadAssignments, "who has what"));
    broker.events.record(about("identities/billing", Permission::ReadIdentities, "heard"));
    let told = watch.message().await.unwrap().unwrap().told;
    let Some(v1::watch_events_response::Told::Event(event)) = told else { panic!("{told:?}") };
    assert_eq!((event.message.as_str(), event.identity.as_str()), ("heard", "identities/billing"));
    let of = |identity: &str| v1::ListEventsRequest { identity: text(identity), ..Default::default() };
    let listed = events.list_events(of("")).await.unwrap().into_inner().events;
    assert_eq!(listed, std::slice::from_ref(&event));
    let life = events.list_events(of("identities/billing")).await.unwrap().into_inner().events;
    let kinds: Vec<_> = life.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["changed", "key_made", "created"], "the latest first, with what the registry knows");
    broker.access.delete_assignment(&given.parse().unwrap(), "").await.unwrap();
    let refused = watch.message().await.map(drop);
    assert_refused("EventService/WatchEvents", &refused);
    world.running.shutdown().await;
}

#[tokio::test]
async fn watches_of_events_are_bounded_and_end_with_the_broker() {
    let world = World::start().await;
    let root = world.running.broker.root.clone().unwrap();
    let mut events = EventServiceClient::new(world.plane(&root).await);
    let mut watches = vec![];
    for _ in 0..grpc::MAX_WATCHERS {
        watches.push(events.watch_events(v1::WatchEventsRequest::default()).await.unwrap().into_inner());
    }
    let refused = events.watch_events(v1::WatchEventsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let mut last = watches.pop().unwrap();
    drop(watches);
    world.running.shutdown().await;
    let ended = last.message().await.unwrap_err();
    assert_eq!(ended.get_details_error_info().unwrap().reason, "SHUTTING_DOWN");
}

#[tokio::test]
async fn what_an_administrator_changes_is_an_event_in_its_name() {
    let world = World::start().await;
    let root = world.running.broker.root.clone().unwrap();
    let plane = world.plane(&root).await;
    let mut identities = IdentityServiceClient::new(plane.clone());
    let name = text("identities/billing");
    let disable = v1::DisableIdentityRequest { name: name.clone(), ..Default::default() };
    identities.disable_identity(disable).await.unwrap();
    let create = v1::CreateIdentityRequest {
        identity_id: text("billing"),
        authority: text("authorities/a"),
        ..Default::default()
    };
    identities.create_identity(create).await.unwrap_err();
    let list = v1::ListEventsRequest::default();
    let told = EventServiceClient::new(plane).list_events(list).await.unwrap().into_inner().events;
    let about: Vec<_> = told.iter().map(|event| (event.kind.as_str(), event.identity.as_str())).collect();
    assert_eq!(about, [("refused", name.as_str()), ("disabled", name.as_str())]);
    assert_eq!(told[1].message, format!("disabled by {root}"));
    assert!(told[0].message.contains("ALREADY_EXISTS") && !told[0].correlation_id.is_empty(), "{told:?}");
    world.running.shutdown().await;
}
