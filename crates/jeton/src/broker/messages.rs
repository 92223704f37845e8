//! How long messages may be, over a connection: the longest that a call takes, and one byte more.

use futures_util::stream;
use jeton_proto::v1::{
    self, identity_service_client::IdentityServiceClient, token_service_client::TokenServiceClient,
    watch_tokens_request::Action, watch_tokens_response::Event,
};
use jeton_server::door::{Door, DoorSettings, Listen, Listener, LoopbackDev, Protocol, serve};
use prost::Message;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use super::{tests::World, *};

const ONE: usize = 64 * 1024;
const BATCH: usize = 512 * 1024;
const ADMIN: usize = 512 * 1024;

/// Routes behind a door on loopback, and a caller's connection to it.
async fn behind_a_door(routes: Routes) -> Channel {
    let listener = Listener::bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let address = listener.tcp_address().unwrap();
    let door = Door {
        name: "test",
        protocol: Protocol::Http2,
        listener,
        settings: DoorSettings::default(),
        tls: None,
        authenticate: Some(Arc::new(LoopbackDev)),
        bearer: None,
        clock: Arc::new(SystemClock),
        routes,
        shortcut: None,
        calls: None,
        streaming: grpc::is_streaming,
        finishes: false,
        complete: grpc::complete,
    };
    let (_accepting, _stats) = serve(door, Drain::default());
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A message of exactly so many bytes, made of one with a part that may be long.
fn of_length<M: Message>(bytes: usize, made: impl Fn(usize) -> M) -> M {
    let beside = made(bytes).encoded_len() - bytes;
    let message = made(bytes - beside);
    assert_eq!(message.encoded_len(), bytes);
    message
}

fn asking(claims: usize) -> v1::GetTokenRequest {
    v1::GetTokenRequest {
        identity: "identities/billing".into(),
        scopes: vec!["https://vault.azure.net/.default".into()],
        claims: "x".repeat(claims),
        ..Default::default()
    }
}

fn reason(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("{status:?} has no details"));
    (status.code(), info.reason)
}

/// Refused for its length.
fn too_large() -> (Code, String) {
    (Code::InvalidArgument, "REQUEST_TOO_LARGE".into())
}

/// Read, and refused for what it says.
fn read() -> (Code, String) {
    (Code::InvalidArgument, "INVALID_CLAIMS".into())
}

#[tokio::test]
async fn a_call_takes_64_kib_and_a_batch_512_and_not_a_byte_more() {
    let world = World::start().await;
    let (routes, _) = grpc::data_routes(&world.running.broker, false).await;
    let mut tokens = TokenServiceClient::new(behind_a_door(routes).await);
    for (bytes, expected) in [(ONE, read()), (ONE + 1, too_large())] {
        let refused = tokens.get_token(of_length(bytes, asking)).await.unwrap_err();
        assert_eq!(reason(&refused), expected, "GetToken with {bytes} bytes");
        let reporting = |claims| {
            let v1::GetTokenRequest { identity, scopes, claims, .. } = asking(claims);
            let token_sha256 = vec![7; 32];
            v1::ReportRejectedTokenRequest { identity, scopes, claims, token_sha256, ..Default::default() }
        };
        let refused = tokens.report_rejected_token(of_length(bytes, reporting)).await.unwrap_err();
        assert_eq!(reason(&refused), expected, "ReportRejectedToken with {bytes} bytes");
    }
    let batch = |claims| v1::BatchGetTokensRequest { requests: vec![asking(0), asking(claims)] };
    let results = tokens.batch_get_tokens(of_length(BATCH, batch)).await.unwrap().into_inner().results;
    assert_eq!(results.len(), 2, "each fails by itself");
    let refused = tokens.batch_get_tokens(of_length(BATCH + 1, batch)).await.unwrap_err();
    assert_eq!(reason(&refused), too_large());
}

#[tokio::test]
async fn a_watch_takes_64_kib_at_a_time_and_is_told_when_it_ends_for_more() {
    let world = World::start().await;
    let (routes, _) = grpc::data_routes(&world.running.broker, false).await;
    let mut tokens = TokenServiceClient::new(behind_a_door(routes).await);
    let add = |claims| {
        let add = v1::WatchTokensAdd { id: "one".into(), request: Some(asking(claims)) };
        v1::WatchTokensRequest { action: Some(Action::Add(add)) }
    };
    let asked = stream::iter([of_length(ONE, add), of_length(ONE + 1, add)]);
    let mut answers = tokens.watch_tokens(asked).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    let Some(Event::Failure(failure)) = first.event else { panic!("{first:?}") };
    assert_eq!((first.id.as_str(), failure.reason.as_str()), ("one", "INVALID_CLAIMS"));
    let end = answers.message().await.unwrap_err();
    assert_eq!(reason(&end), too_large());
}

#[tokio::test]
async fn the_admin_plane_takes_512_kib_and_not_a_byte_more() {
    let world = World::start().await;
    let mut broker = world.running.broker.clone();
    broker.root = Some(Principal::loopback_dev());
    let (routes, _) = grpc::admin_routes(&broker, false).await;
    let mut identities = IdentityServiceClient::new(behind_a_door(routes).await);
    // One that only reads, and one that is written down before it is made.
    let shown = |name| v1::GetIdentityRequest { name: "x".repeat(name) };
    let made = |name| v1::CreateIdentityRequest {
        identity_id: "x".repeat(name),
        authority: "authorities/a".into(),
        request_id: "one".into(),
        ..Default::default()
    };
    let read = ["INVALID_NAME", "INVALID_FIELD"].map(|why| (Code::InvalidArgument, why.to_owned()));
    for (bytes, expected) in [(ADMIN, read), (ADMIN + 1, [too_large(), too_large()])] {
        let shown = identities.get_identity(of_length(bytes, shown)).await.unwrap_err();
        let made = identities.create_identity(of_length(bytes, made)).await.unwrap_err();
        assert_eq!([reason(&shown), reason(&made)], expected, "{bytes} bytes");
    }
}
