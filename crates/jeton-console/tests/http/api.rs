//! Answers of the broker as the page gets them.

use jeton_proto::v1::{self, watch_events_response::Told};
use prost_types::{Duration, Timestamp};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::world::World;

fn row() -> v1::IdentityStatus {
    v1::IdentityStatus {
        name: "identities/pay.x".into(),
        state: v1::IdentityState::Active.into(),
        starves_in: Some(Duration { seconds: 90, nanos: 500_000_000 }),
        last_error: "invalid_client".into(),
        consumers: Some(2),
        may_change: true,
        ..Default::default()
    }
}

fn event(id: u64) -> v1::Event {
    let severity = v1::EventSeverity::Warning.into();
    let time = Some(Timestamp { seconds: 1_767_225_600, nanos: 0 });
    v1::Event {
        id,
        time,
        kind: "refresh_failed".into(),
        severity,
        message: "why".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_list_is_searched_ordered_and_paged_by_the_broker() {
    let world = World::start().await;
    let cookie = world.enter().await;
    let answer = v1::ListIdentityStatusesResponse {
        identities: vec![row()],
        next_page_token: "200".into(),
        previous_page_token: String::new(),
        total: 100_000,
    };
    world.plane.says("StatusService/ListIdentityStatuses", answer);
    let path = "/api/identities?q=pay&state=active&authority=authorities%2Fa&sort=last_use&descending=true&page_size=100&page_token=100";
    let told = world.get(path, &[("cookie", &cookie)]).await.json();
    assert_eq!((told["total"].as_u64(), &told["next_page_token"]), (Some(100_000), &json!("200")));
    assert_eq!(told["previous_page_token"], Value::Null);
    let first = &told["identities"][0];
    assert_eq!((&first["starves_in_seconds"], &first["state"]), (&json!(90.5), &json!("active")));
    assert_eq!((&first["consumers"], &first["client_id"]), (&json!(2), &Value::Null));
    let asked: v1::ListIdentityStatusesRequest = world.plane.request("ListIdentityStatuses");
    let expected = v1::ListIdentityStatusesRequest {
        page_size: 100,
        page_token: "100".into(),
        query: "pay".into(),
        state: v1::IdentityState::Active.into(),
        authority: "authorities/a".into(),
        order: v1::IdentityOrder::LastUse.into(),
        descending: true,
        name: String::new(),
    };
    assert_eq!(asked, expected);
    let wrong = world.get("/api/identities?sort=nonsense", &[("cookie", &cookie)]).await;
    assert_eq!((wrong.status, &wrong.json()["error"]["reason"]), (400, &json!("INVALID_FIELD")));
}

#[tokio::test]
async fn a_button_is_one_call_and_its_answer_is_the_row() {
    let world = World::start().await;
    let cookie = world.enter().await;
    let one = v1::ListIdentityStatusesResponse { identities: vec![row()], total: 1, ..Default::default() };
    world.plane.says("StatusService/ListIdentityStatuses", one);
    world.plane.says("IdentityService/RefreshTokens", v1::RefreshTokensResponse { under_way: 1, left: 0 });
    let done = world.post("/api/identities/pay.x/refresh", &cookie, "{}").await;
    let told = done.json();
    assert_eq!(
        (done.status, &told["last_error"], &told["under_way"]),
        (200, &json!("invalid_client"), &json!(1))
    );
    assert_eq!(world.plane.calls(), ["IdentityService/RefreshTokens", "StatusService/ListIdentityStatuses"]);
    let asked: v1::RefreshTokensRequest = world.plane.request("RefreshTokens");
    assert_eq!(asked.name, "identities/pay.x");
    assert_eq!(world.post("/api/identities/pay.x/delete", &cookie, "{}").await.status, 404);
    assert_eq!(world.get("/api/identities/pay.x/refresh", &[("cookie", &cookie)]).await.status, 405);
}

#[tokio::test]
async fn a_refusal_of_the_broker_keeps_its_reason_and_says_what_helps() {
    let world = World::start().await;
    let cookie = world.enter().await;
    let metadata: std::collections::HashMap<_, _> = [("correlation_id".to_owned(), "c-1".to_owned())].into();
    let details = ErrorDetails::with_error_info("NOT_PERMITTED", "jeton", metadata);
    let refused = Status::with_error_details(Code::PermissionDenied, "needs identities.change", details);
    world.plane.refuses("IdentityService/RotateCredential", refused);
    let told = world.post("/api/identities/x/rotate", &cookie, "{}").await;
    let error = &told.json()["error"];
    assert_eq!(
        (told.status, &error["reason"], &error["message"]),
        (403, &json!("NOT_PERMITTED"), &json!("needs identities.change"))
    );
    assert!(error["remedy"].as_str().unwrap().contains("--correlation c-1"), "{error}");
    let missing = world.get("/api/me", &[("cookie", &cookie)]).await;
    assert_eq!(missing.status, 501, "a broker that is older");
}

#[tokio::test]
async fn whoever_may_not_see_role_assignments_sees_everything_else_of_an_identity() {
    let world = World::start().await;
    let cookie = world.enter().await;
    let one = v1::ListIdentityStatusesResponse { identities: vec![row()], total: 1, ..Default::default() };
    world.plane.says("StatusService/ListIdentityStatuses", one);
    let certificate = v1::CertificateCredential {
        x5t_s256: "thumb".into(),
        key: "p256".into(),
        certificate_pem: "CANARY".into(),
        ..Default::default()
    };
    let kind = Some(v1::credential::Kind::Certificate(certificate));
    let credentials = vec![v1::Credential { kind, ..Default::default() }];
    let identity = Some(v1::Identity { credentials, ..Default::default() });
    world.plane.says("IdentityService/GetIdentity", v1::GetIdentityResponse { identity, uses: vec![] });
    world.plane.says("StatusService/ListTokens", v1::ListTokensResponse::default());
    let events = v1::ListEventsResponse { events: vec![event(7)], next_page_token: String::new() };
    world.plane.says("EventService/ListEvents", events);
    world.plane.refuses("AccessService/ListRoleAssignments", Status::permission_denied("no"));
    let answer = world.get("/api/identities/pay.x", &[("cookie", &cookie)]).await;
    let told = answer.json();
    assert_eq!((answer.status, &told["role_assignments"]), (200, &Value::Null));
    assert_eq!(
        (&told["credentials"][0]["thumbprint"], &told["timeline"][0]["id"]),
        (&json!("thumb"), &json!(7))
    );
    assert!(!answer.body.contains("CANARY"));
    let all = v1::ListRoleAssignmentsResponse {
        role_assignments: vec![v1::RoleAssignment::default()],
        next_page_token: String::new(),
    };
    world.plane.says("AccessService/ListRoleAssignments", all);
    let told = world.get("/api/identities/pay.x", &[("cookie", &cookie)]).await.json();
    assert_eq!(told["role_assignments"].as_array().unwrap().len(), 3, "on it, on its group, on everything");
}

#[tokio::test]
async fn a_stream_begins_with_what_was_and_goes_on_where_a_browser_lost_it() {
    let world = World::start().await;
    let cookie = world.enter().await;
    let events = v1::ListEventsResponse { events: vec![event(6), event(5)], next_page_token: String::new() };
    world.plane.says("EventService/ListEvents", events);
    let told = |told| v1::WatchEventsResponse { told: Some(told) };
    world.plane.streams("EventService/WatchEvents", &[told(Told::Missed(3)), told(Told::Event(event(10)))]);
    let stream = world.get("/api/events", &[("cookie", &cookie)]).await;
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    let ids: Vec<_> = stream.body.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["5", "6", "10"], "{}", stream.body);
    assert!(stream.body.contains("event: lagged\ndata: {\"missed\":3}"), "{}", stream.body);
    let asked: v1::WatchEventsRequest = world.plane.request("WatchEvents");
    assert_eq!(asked.after, Some(6));
    let again = world.get("/api/events", &[("cookie", &cookie), ("last-event-id", "6")]).await;
    assert!(!again.body.contains("id: 5"), "{}", again.body);
    assert_eq!(world.plane.request::<v1::WatchEventsRequest>("WatchEvents").after, Some(6));
}
