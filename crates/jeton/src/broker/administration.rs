//! The admin plane from its guard to the stores, without sockets: who is let do what by which role.

use std::collections::BTreeSet;

use jeton_access::CreateAssignment;
use jeton_core::{Role, audit::testing::MemoryTrail};
use jeton_proto::v1::{
    self, access_service_client::AccessServiceClient, authority_service_client::AuthorityServiceClient,
    event_service_client::EventServiceClient, identity_service_client::IdentityServiceClient,
    sealing_service_client::SealingServiceClient, status_service_client::StatusServiceClient,
    workload_service_client::WorkloadServiceClient,
};
use jeton_server::{
    door::{Caller, Peer},
    grpc::METHODS,
};
use tonic::{
    Code, Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
};
use tonic_types::StatusExt;

use super::{tests::World, *};

pub(super) const OTHER: &str = "unix://n/uid/7001";

#[derive(Clone)]
pub(super) struct As(Arc<Caller>);

impl Interceptor for As {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.extensions_mut().insert(Arc::clone(&self.0));
        Ok(request)
    }
}

pub(super) type Plane = InterceptedService<Routes, As>;
type Called = Vec<(&'static str, Result<(), Status>)>;

impl World {
    /// The admin plane as a principal meets it.
    pub(super) async fn plane(&self, principal: &Principal) -> Plane {
        let (routes, _) = grpc::admin_routes(&self.running.broker, false).await;
        let peer = Peer::Unix { uid: 7001, gid: 7001, pid: None };
        InterceptedService::new(
            routes,
            As(Arc::new(Caller { principal: principal.clone(), peer, until: None })),
        )
    }

    pub(super) async fn give(&self, member: &str, role: &str, identity: &str) -> Result<String, String> {
        let create = CreateAssignment {
            member: member.into(),
            role: role.into(),
            identity: identity.into(),
            targets: if role == "token-user" { vec!["*".into()] } else { vec![] },
            ..CreateAssignment::default()
        };
        let made = self.running.broker.access.create_assignment(create).await;
        made.map(|made| made.name.to_string()).map_err(|e| e.to_string())
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

/// Every RPC once, on what lies outside of any group.
async fn everything(plane: &Plane) -> Called {
    let mut called = vec![];
    macro_rules! call {
        ($client:ident, $name:literal, $method:ident, $request:expr) => {
            called.push(($name, $client.$method($request).await.map(drop)))
        };
    }
    let (identity, workload, authority) =
        (text("identities/billing"), text("workloads/w"), text("authorities/a"));
    let mut i = IdentityServiceClient::new(plane.clone());
    let named = |id: &str| v1::CreateIdentityRequest {
        identity_id: text(id),
        authority: text("authorities/a"),
        ..Default::default()
    };
    call!(i, "IdentityService/CreateIdentity", create_identity, named("new"));
    let secret = v1::AttachSecret { client_secret: text("s"), expire_time: None };
    let attach = v1::AttachIdentityRequest {
        identity_id: text("new"),
        authority: authority.clone(),
        client_id: text("c"),
        credential: Some(v1::attach_identity_request::Credential::Secret(secret)),
        ..Default::default()
    };
    call!(i, "IdentityService/AttachIdentity", attach_identity, attach);
    call!(i, "IdentityService/GetIdentity", get_identity, v1::GetIdentityRequest { name: identity.clone() });
    call!(i, "IdentityService/ListIdentities", list_identities, v1::ListIdentitiesRequest::default());
    let update = v1::UpdateIdentityRequest { name: identity.clone(), ..Default::default() };
    call!(i, "IdentityService/UpdateIdentity", update_identity, update);
    let delete = v1::DeleteIdentityRequest { name: identity.clone(), ..Default::default() };
    call!(i, "IdentityService/DeleteIdentity", delete_identity, delete);
    let rotate = v1::RotateCredentialRequest { name: identity.clone(), ..Default::default() };
    call!(i, "IdentityService/RotateCredential", rotate_credential, rotate);
    let disable = v1::DisableIdentityRequest { name: identity.clone(), ..Default::default() };
    call!(i, "IdentityService/DisableIdentity", disable_identity, disable);
    let enable = v1::EnableIdentityRequest { name: identity.clone(), ..Default::default() };
    call!(i, "IdentityService/EnableIdentity", enable_identity, enable);
    let refresh = v1::RefreshTokensRequest { name: identity.clone(), ..Default::default() };
    call!(i, "IdentityService/RefreshTokens", refresh_tokens, refresh);
    let mut w = WorkloadServiceClient::new(plane.clone());
    let create = v1::CreateWorkloadRequest { workload_id: text("new"), ..Default::default() };
    call!(w, "WorkloadService/CreateWorkload", create_workload, create);
    call!(w, "WorkloadService/GetWorkload", get_workload, v1::GetWorkloadRequest { name: workload.clone() });
    call!(w, "WorkloadService/ListWorkloads", list_workloads, v1::ListWorkloadsRequest::default());
    let update = v1::UpdateWorkloadRequest { name: workload.clone(), ..Default::default() };
    call!(w, "WorkloadService/UpdateWorkload", update_workload, update);
    let delete = v1::DeleteWorkloadRequest { name: workload.clone(), ..Default::default() };
    call!(w, "WorkloadService/DeleteWorkload", delete_workload, delete);
    let enable = v1::EnableSystemIdentityRequest {
        name: workload.clone(),
        authority: authority.clone(),
        ..Default::default()
    };
    call!(w, "WorkloadService/EnableSystemIdentity", enable_system_identity, enable);
    let disable = v1::DisableSystemIdentityRequest { name: workload.clone(), ..Default::default() };
    call!(w, "WorkloadService/DisableSystemIdentity", disable_system_identity, disable);
    let rotate = v1::RotateSecretRequest { name: workload.clone(), ..Default::default() };
    call!(w, "WorkloadService/RotateSecret", rotate_secret, rotate);
    let revoke = v1::RevokeSecretRequest { name: workload, ..Default::default() };
    call!(w, "WorkloadService/RevokeSecret", revoke_secret, revoke);
    let mut a = AuthorityServiceClient::new(plane.clone());
    call!(a, "AuthorityService/CreateAuthority", create_authority, v1::CreateAuthorityRequest::default());
    let get = v1::GetAuthorityRequest { name: authority.clone() };
    call!(a, "AuthorityService/GetAuthority", get_authority, get);
    call!(a, "AuthorityService/ListAuthorities", list_authorities, v1::ListAuthoritiesRequest::default());
    let update = v1::UpdateAuthorityRequest { name: authority.clone(), ..Default::default() };
    call!(a, "AuthorityService/UpdateAuthority", update_authority, update);
    let delete = v1::DeleteAuthorityRequest { name: authority.clone(), ..Default::default() };
    call!(a, "AuthorityService/DeleteAuthority", delete_authority, delete);
    call!(a, "AuthorityService/TestAuthority", test_authority, v1::TestAuthorityRequest { name: authority });
    let mut r = AccessServiceClient::new(plane.clone());
    let create = v1::CreateRoleAssignmentRequest {
        member: text("loopback://dev"),
        identity: identity.clone(),
        targets: vec![text("*")],
        ..Default::default()
    };
    call!(r, "AccessService/CreateRoleAssignment", create_role_assignment, create);
    let list = v1::ListRoleAssignmentsRequest::default();
    call!(r, "AccessService/ListRoleAssignments", list_role_assignments, list);
    let delete = v1::DeleteRoleAssignmentRequest { name: text("roleAssignments/x"), ..Default::default() };
    call!(r, "AccessService/DeleteRoleAssignment", delete_role_assignment, delete);
    let explain = v1::ExplainRequest {
        principal: text("loopback://dev"),
        identity: identity.clone(),
        scopes: vec![text("x")],
        ..Default::default()
    };
    call!(r, "AccessService/Explain", explain, explain);
    let scope = Some(v1::revoke_tokens_request::Scope::Identity(identity.clone()));
    let revoke = v1::RevokeTokensRequest { scope, ..Default::default() };
    call!(r, "AccessService/RevokeTokens", revoke_tokens, revoke);
    let mut sealing = SealingServiceClient::new(plane.clone());
    let rotate = v1::RotateSealingKeyRequest { key_file: text("/nonexistent/sealing.key") };
    call!(sealing, "SealingService/RotateSealingKey", rotate_sealing_key, rotate);
    let mut s = StatusServiceClient::new(plane.clone());
    call!(s, "StatusService/Status", status, v1::StatusRequest {});
    let tokens = v1::ListTokensRequest { identity: identity.clone(), ..Default::default() };
    call!(s, "StatusService/ListTokens", list_tokens, tokens);
    call!(s, "StatusService/WhoAmI", who_am_i, v1::WhoAmIRequest {});
    let one = v1::ListIdentityStatusesRequest { name: identity.clone(), ..Default::default() };
    call!(s, "StatusService/ListIdentityStatuses", list_identity_statuses, one);
    call!(s, "StatusService/GetHistory", get_history, v1::GetHistoryRequest {});
    let mut e = EventServiceClient::new(plane.clone());
    let list = v1::ListEventsRequest { identity: identity.clone(), ..Default::default() };
    call!(e, "EventService/ListEvents", list_events, list);
    call!(e, "EventService/WatchEvents", watch_events, v1::WatchEventsRequest { identity, after: None });
    called
}

pub(super) fn assert_refused(name: &str, outcome: &Result<(), Status>) {
    let status = outcome.as_ref().err().unwrap_or_else(|| panic!("{name} was permitted"));
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("{name}: {status:?}"));
    assert_eq!((status.code(), info.reason.as_str()), (Code::PermissionDenied, "NOT_PERMITTED"), "{name}");
    assert!(status.message().contains(&info.metadata["correlation_id"]), "{name}: {status:?}");
}

#[tokio::test]
async fn whoever_has_no_role_may_call_nothing_and_whoever_has_all_of_them_elsewhere_changes_and_sees_nothing_here()
 {
    let world = World::start().await;
    let broker = &world.running.broker;
    let other: Principal = OTHER.parse().unwrap();
    let plane = world.plane(&other).await;
    let called = everything(&plane).await;
    let names: BTreeSet<_> = called.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, METHODS.iter().map(|method| method.name).collect(), "every method is tried");
    called.iter().for_each(|(name, outcome)| assert_refused(name, outcome));
    let status = called.iter().find(|(name, _)| *name == "StatusService/Status").unwrap();
    let why = status.1.as_ref().unwrap_err().message();
    assert!(why.starts_with("StatusService/Status needs status.read on anything"), "{why}");
    // Being allowed to use tokens is no role here.
    world.give(OTHER, "token-user", "identities/billing").await.unwrap();
    everything(&plane).await.iter().for_each(|(name, outcome)| assert_refused(name, outcome));
    for role in Role::ALL.into_iter().filter(|role| role.is_administrative()) {
        world.give(OTHER, role.as_str(), "identities/elsewhere.*").await.unwrap();
    }
    let of_everybody = [
        "IdentityService/ListIdentities",
        "WorkloadService/ListWorkloads",
        "AuthorityService/GetAuthority",
        "AuthorityService/ListAuthorities",
        "AccessService/ListRoleAssignments",
        "StatusService/Status",
        "StatusService/GetHistory",
        "StatusService/WhoAmI",
    ];
    for (name, outcome) in everything(&plane).await {
        if of_everybody.contains(&name) {
            outcome.unwrap_or_else(|status| panic!("{name}: {status:?}"));
        } else {
            assert_refused(name, &outcome);
        }
    }
    let mut identities = IdentityServiceClient::new(plane.clone());
    let seen = identities.list_identities(v1::ListIdentitiesRequest::default()).await.unwrap().into_inner();
    assert!(seen.identities.is_empty(), "{seen:?}");
    let mut status = StatusServiceClient::new(plane.clone());
    let told = status.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert!(told.identities.is_empty() && told.problems.is_empty(), "{told:?}");
    let all = status.list_tokens(v1::ListTokensRequest::default()).await.unwrap().into_inner();
    assert!(all.tokens.is_empty(), "{all:?}");
    let all = v1::ListIdentityStatusesRequest::default();
    let all = status.list_identity_statuses(all).await.unwrap().into_inner();
    assert!(all.identities.is_empty() && all.total == 0, "{all:?}");
    let mut events = EventServiceClient::new(plane.clone());
    let all = events.list_events(v1::ListEventsRequest::default()).await.unwrap().into_inner();
    assert!(all.events.is_empty(), "{all:?}");
    let mut access = AccessServiceClient::new(plane);
    let all = access.list_role_assignments(v1::ListRoleAssignmentsRequest::default()).await.unwrap();
    let scopes: BTreeSet<_> = all.into_inner().role_assignments.into_iter().map(|a| a.identity).collect();
    assert_eq!(scopes, ["identities/elsewhere.*".to_owned()].into());
    assert!(broker.lifecycle.directory().identity_named(&"identities/billing".parse().unwrap()).is_some());
    world.running.shutdown().await;
}

#[tokio::test]
async fn what_is_not_there_and_what_may_not_be_seen_look_the_same_outside_of_ones_scope() {
    let world = World::start().await;
    let other: Principal = OTHER.parse().unwrap();
    let taken = world.give("loopback://dev", "token-user", "identities/billing").await.unwrap();
    world.give(OTHER, "identity-operator", "identities/elsewhere.*").await.unwrap();
    world.give(OTHER, "access-administrator", "identities/elsewhere.*").await.unwrap();
    let plane = world.plane(&other).await;
    let mut identities = IdentityServiceClient::new(plane.clone());
    let mut access = AccessServiceClient::new(plane);
    let mut said = vec![];
    let root = world.running.broker.root.clone().unwrap();
    let create = v1::CreateWorkloadRequest { workload_id: text("present"), ..Default::default() };
    WorkloadServiceClient::new(world.plane(&root).await).create_workload(create).await.unwrap();
    for (identity, assignment, workload) in
        [("billing", taken.as_str(), "present"), ("nothing", "roleAssignments/nothing", "absent")]
    {
        let name = format!("identities/{identity}");
        let got = identities.get_identity(v1::GetIdentityRequest { name: name.clone() }).await.unwrap_err();
        let request = v1::CreateIdentityRequest {
            identity_id: identity.into(),
            authority: text("authorities/a"),
            ..Default::default()
        };
        let made = identities.create_identity(request).await.unwrap_err();
        let request = v1::CreateRoleAssignmentRequest {
            member: text("loopback://dev"),
            identity: name.clone(),
            targets: vec![text("*")],
            ..Default::default()
        };
        let given = access.create_role_assignment(request).await.unwrap_err();
        let request = v1::DeleteRoleAssignmentRequest { name: assignment.into(), ..Default::default() };
        let taken_back = access.delete_role_assignment(request).await.unwrap_err();
        let request = v1::CreateRoleAssignmentRequest {
            member: format!("workloads/{workload}"),
            identity: text("identities/elsewhere.*"),
            targets: vec![text("*")],
            ..Default::default()
        };
        let given_to = access.create_role_assignment(request).await.unwrap_err();
        assert_refused("AccessService/CreateRoleAssignment", &Err(given_to.clone()));
        said.push([got, made, given, taken_back, given_to].map(|status| {
            let id = status.get_details_error_info().unwrap().metadata["correlation_id"].clone();
            let said = status.message().replace(&id, "ID").replace(&name, "NAME");
            (status.code(), said.replace(assignment, "ASSIGNMENT").replace(workload, "WORKLOAD"))
        }));
    }
    assert_eq!(said[0], said[1]);
    let inside = v1::GetIdentityRequest { name: text("identities/elsewhere.x") };
    assert_eq!(identities.get_identity(inside).await.unwrap_err().code(), Code::NotFound);
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_refused_change_is_on_the_audit_trail_under_the_id_that_its_caller_was_told() {
    let mut world = World::start().await;
    let trail = MemoryTrail::default();
    world.running.broker.trail = Arc::new(trail.clone());
    let mut identities = IdentityServiceClient::new(world.plane(&OTHER.parse().unwrap()).await);
    let delete = v1::DeleteIdentityRequest { name: text("identities/billing"), ..Default::default() };
    let refused = identities.delete_identity(delete).await.unwrap_err();
    let told = refused.get_details_error_info().unwrap().metadata["correlation_id"].clone();
    let events = trail.events();
    let outcome = events.last().unwrap();
    assert_eq!(
        (outcome.correlation_id.as_deref(), outcome.reason.as_deref()),
        (Some(&*told), Some("NOT_PERMITTED"))
    );
    assert!(world.running.broker.access.explain_denial(&told).is_some());
    world.running.shutdown().await;
}

#[tokio::test]
async fn an_administrator_of_a_part_makes_no_workload_of_whoever_has_something_outside_of_it() {
    let world = World::start().await;
    let other: Principal = OTHER.parse().unwrap();
    world.give(OTHER, "access-administrator", "identities/payments.*").await.unwrap();
    world.give("unix://n/uid/5001", "token-user", "identities/billing").await.unwrap();
    let mut workloads = WorkloadServiceClient::new(world.plane(&other).await);
    let create = |id: &str, principal: &str| v1::CreateWorkloadRequest {
        workload_id: text(id),
        principals: vec![text(principal)],
        ..Default::default()
    };
    let squat = workloads.create_workload(create("payments.squat", "unix://n/uid/5001")).await.map(drop);
    assert_refused("WorkloadService/CreateWorkload", &squat);
    workloads.create_workload(create("payments.api", "unix://n/uid/5002")).await.unwrap();
    let update = v1::UpdateWorkloadRequest {
        name: text("workloads/payments.api"),
        principals: vec![text("unix://n/uid/5002"), text("unix://n/uid/5001")],
        ..Default::default()
    };
    let joined = workloads.update_workload(update).await.map(drop);
    assert_refused("WorkloadService/UpdateWorkload", &joined);
    world.running.shutdown().await;
}

#[tokio::test]
async fn two_changes_at_once_do_not_give_an_administrator_what_neither_may() {
    let world = World::start().await;
    let other: Principal = OTHER.parse().unwrap();
    world.give(OTHER, "access-administrator", "*").await.unwrap();
    let plane = world.plane(&other).await;
    for n in 0..20 {
        let (mut workloads, mut access) =
            (WorkloadServiceClient::new(plane.clone()), AccessServiceClient::new(plane.clone()));
        let (id, name) = (format!("w{n}"), format!("workloads/w{n}"));
        let create = v1::CreateWorkloadRequest { workload_id: id, ..Default::default() };
        workloads.create_workload(create).await.unwrap();
        let joining = v1::UpdateWorkloadRequest {
            name: name.clone(),
            principals: vec![OTHER.into()],
            ..Default::default()
        };
        let giving = v1::CreateRoleAssignmentRequest {
            member: name.clone(),
            identity: text("identities/billing"),
            targets: vec![text("*")],
            ..Default::default()
        };
        let (joined, given) =
            tokio::join!(workloads.update_workload(joining), access.create_role_assignment(giving));
        assert!(joined.is_ok() != given.is_ok(), "{joined:?} {given:?}");
        let delete = v1::DeleteWorkloadRequest { name, ..Default::default() };
        workloads.delete_workload(delete).await.unwrap();
    }
    world.running.shutdown().await;
}

#[tokio::test]
async fn an_operator_of_everything_changes_no_profile_because_proofs_could_be_led_elsewhere() {
    let world = World::start().await;
    let other: Principal = OTHER.parse().unwrap();
    world.give(OTHER, "identity-operator", "*").await.unwrap();
    let mut authorities = AuthorityServiceClient::new(world.plane(&other).await);
    let get = v1::GetAuthorityRequest { name: text("authorities/a") };
    let there = authorities.get_authority(get).await.unwrap().into_inner().authority.unwrap();
    let rename = v1::UpdateAuthorityRequest {
        name: there.name.clone(),
        display_name: text("A"),
        ..Default::default()
    };
    authorities.update_authority(rename).await.unwrap();
    let lead = v1::UpdateAuthorityRequest {
        name: there.name,
        profile_json: there.profile_json.replace("https://", "https://evil."),
        ..Default::default()
    };
    let refused = authorities.update_authority(lead.clone()).await.map(drop);
    assert_refused("AuthorityService/UpdateAuthority", &refused);
    world.give(OTHER, "access-administrator", "*").await.unwrap();
    let permitted = authorities.update_authority(lead).await;
    assert!(!matches!(&permitted, Err(status) if status.code() == Code::PermissionDenied), "{permitted:?}");
    world.running.shutdown().await;
}

#[tokio::test]
async fn the_brokers_own_user_may_do_everything_without_a_role() {
    let world = World::start().await;
    let root = world.running.broker.root.clone().unwrap();
    for (name, outcome) in everything(&world.plane(&root).await).await {
        let refused = outcome.is_err_and(|status| status.code() == Code::PermissionDenied);
        assert!(!refused, "{name}");
    }
    world.running.shutdown().await;
}
