//! Changes on the admin plane are on the audit trail before they are made, and their outcome is before it is told.
//!
//! This stands around the services, so that no method can be forgotten: whatever does not only read is a change. Of a request nothing
//! gets into the log but what names a resource or a principal, and what a role is assigned for.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use http_body_util::{BodyExt, Full, Limited};
use jeton_core::{
    AssignmentName, AuditEvent, AuditKind, AuditOutcome, AuditResource, AuditTrail, AuditUnavailable,
    AuthorityName, Principal, PrincipalPattern, Role, ScopeName, Uid, Workload, WorkloadName,
};
use jeton_proto::v1;
use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use tonic::{Code, Status, service::Routes};
use tonic_types::StatusExt;

use super::{
    encoded::PREFIX,
    error::{Failure, Reason},
    routes::{Broker, MAX_ADMIN_REQUEST_BYTES},
};
use crate::{correlation, door::Caller};

const SERVICES: &str = "/jeton.v1.";
/// Methods that begin so change nothing.
const READING: [&str; 7] = ["Get", "List", "Explain", "Status", "Test", "Watch", "Who"];
/// What a message may have at most, as everywhere on the admin plane.
const MAX_BYTES: usize = MAX_ADMIN_REQUEST_BYTES + PREFIX;

type Lookup<K, V> = Arc<dyn Fn(&K) -> Option<V> + Send + Sync>;

/// What it takes to write down a change.
#[derive(Clone)]
pub(super) struct Auditor {
    pub(super) trail: Arc<dyn AuditTrail>,
    /// The uid of a resource that has this name now.
    pub(super) uid: Lookup<str, Uid>,
    /// The workload of a principal.
    pub(super) workload: Lookup<Principal, Arc<Workload>>,
}

/// The same routes, every change of which is written down.
pub(super) fn audited(routes: Routes, auditor: Auditor) -> Routes {
    routes.into_axum_router().layer(from_fn_with_state(auditor, audit)).into()
}

impl Auditor {
    pub(super) fn of(broker: &Broker) -> Self {
        let (lifecycle, access) = (broker.lifecycle.clone(), broker.access.clone());
        let workloads = lifecycle.clone();
        let uid = move |name: &str| {
            let directory = lifecycle.directory();
            let identity = || directory.identity_named(&name.parse().ok()?).map(|i| i.uid);
            let workload = || directory.workload_named(&name.parse().ok()?).map(|w| w.uid);
            let authority = || directory.authority_named(&name.parse().ok()?).map(|a| a.uid);
            let assignment = || access.snapshot().assignment(&name.parse().ok()?).map(|a| a.uid);
            identity().or_else(workload).or_else(authority).or_else(assignment)
        };
        Self {
            trail: Arc::clone(&broker.trail),
            uid: Arc::new(uid),
            workload: Arc::new(move |principal| workloads.directory().workload_of(principal).cloned()),
        }
    }
}

async fn audit(State(auditor): State<Auditor>, request: Request, next: Next) -> Response {
    if !is_change(request.uri().path()) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BYTES).collect().await.map(|body| body.to_bytes()) else {
        return refusal(Failure::too_large("the message is longer than 512 KiB, or its sender went away"));
    };
    let caller = parts.extensions.get::<Arc<Caller>>().cloned();
    // A refusal has the id by which the event is found.
    let id = correlation::id();
    let mut event = auditor.event(caller.as_deref(), parts.uri.path(), &body);
    event.correlation_id = Some(id.as_str().into());
    jeton_trace::current().text("jeton.correlation_id", &id);
    if let Err(error) = auditor.trail.record(event.clone()).await {
        return refusal(error.into());
    }
    let response = correlation::under(id, next.run(Request::from_parts(parts, Body::from(body)))).await;
    let (parts, body) = response.into_parts();
    // The answer of a service in this process: whole, or its error is in the headers.
    let answer = match body.collect().await {
        Ok(answer) => answer,
        Err(error) => return refusal(Failure::new(Reason::Internal, error.to_string())),
    };
    let trailers = answer.trailers().cloned();
    let answer = answer.to_bytes();
    let said = [Some(&parts.headers), trailers.as_ref()].into_iter().flatten();
    let refused = said.filter_map(Status::from_header_map).find(|status| status.code() != Code::Ok);
    let (outcome, reason) = outcome(refused.as_ref());
    auditor.complete(&mut event, &answer);
    if let Err(error) = auditor.trail.record(event.with_outcome(outcome, reason.as_deref())).await
        && outcome == AuditOutcome::Ok
    {
        return refusal(unsure(&error));
    }
    // Without trailers the headers are the whole answer, and must be the stream's end: one in empty data is a malformed answer.
    let body = match trailers {
        Some(trailers) => Body::new(Full::new(answer).with_trailers(async move { Some(Ok(trailers)) })),
        None => Body::from(answer),
    };
    Response::from_parts(parts, body)
}

impl Auditor {
    fn event(&self, caller: Option<&Caller>, path: &str, body: &[u8]) -> AuditEvent {
        let mut event = AuditEvent::new(AuditKind::AdminChange, AuditOutcome::Intent);
        event.method = Some(path.trim_start_matches('/').into());
        if let Some(caller) = caller {
            event.principal = Some(caller.principal.clone());
            event.peer = Some(caller.peer.to_string().into());
            let workload = (self.workload)(&caller.principal);
            event.workload = workload.map(|w| AuditResource::new(w.name.as_str(), Some(w.uid)));
        }
        let message = body.get(PREFIX..).unwrap_or_default();
        event.resources = named(path, message).map(|name| self.resource(&name)).collect();
        if path.ends_with("/CreateRoleAssignment")
            && let Ok(wanted) = v1::CreateRoleAssignmentRequest::decode(message)
        {
            event.role =
                if wanted.role.is_empty() { Some(Role::TokenUser) } else { wanted.role.parse().ok() };
            event.target = Some(wanted.targets.join(" ")).filter(|t| !t.is_empty()).map(Into::into);
        }
        event
    }

    /// What was made has a uid only now, and maybe a name that was made too.
    fn complete(&self, event: &mut AuditEvent, answer: &[u8]) {
        let shown = fields(answer.get(PREFIX..).unwrap_or_default()).find(|(number, _)| *number == 1);
        let name = shown.and_then(|(_, resource)| fields(resource).find(|(number, _)| *number == 1));
        if let Some(name) = name.and_then(|(_, name)| resource_name(name))
            && event.resources.iter().all(|known| *known.name != *name)
        {
            event.resources.insert(0, self.resource(&name));
        }
        for resource in &mut event.resources {
            resource.uid = resource.uid.or_else(|| (self.uid)(&resource.name));
        }
    }

    fn resource(&self, name: &str) -> AuditResource {
        AuditResource::new(name, (self.uid)(name))
    }
}

fn is_change(path: &str) -> bool {
    let method = path.strip_prefix(SERVICES).and_then(|rest| rest.split_once('/'));
    method.is_some_and(|(_, method)| !READING.iter().any(|reading| method.starts_with(reading)))
}

fn outcome(refused: Option<&Status>) -> (AuditOutcome, Option<String>) {
    let Some(status) = refused else { return (AuditOutcome::Ok, None) };
    let outcome = match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => AuditOutcome::Denied,
        _ => AuditOutcome::Failed,
    };
    let reason = status.get_details_error_info().map(|info| info.reason);
    (outcome, reason.or_else(|| Some(format!("{:?}", status.code()))))
}

fn refusal(failure: Failure) -> Response {
    Status::from(failure).into_http()
}

fn unsure(error: &AuditUnavailable) -> Failure {
    let text = format!(
        "the change was made, and its outcome is not on the audit log yet ({}): look at the resource, or repeat the request with the same request_id",
        error.0
    );
    Failure::new(Reason::AuditUnavailable, text)
}

/// The resources and principals that a request names: first the one that it is about, by its id where that is all it says.
fn named(path: &str, message: &[u8]) -> impl Iterator<Item = Box<str>> {
    let collection = match path.strip_prefix(SERVICES).and_then(|rest| rest.split_once('/')) {
        Some(("IdentityService", _)) => "identities/",
        Some(("WorkloadService", _)) => "workloads/",
        Some(("AuthorityService", _)) => "authorities/",
        // It names a file and no resource.
        Some(("SealingService", _)) => "",
        _ => "roleAssignments/",
    };
    fields(message).filter_map(move |(number, bytes)| {
        let by_id = || resource_name([collection.as_bytes(), bytes].concat().as_slice());
        resource_name(bytes).or_else(|| if number == 1 { by_id() } else { None }).or_else(|| principal(bytes))
    })
}

fn resource_name(bytes: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_name = text.parse::<ScopeName>().is_ok()
        || text.parse::<WorkloadName>().is_ok()
        || text.parse::<AuthorityName>().is_ok()
        || text.parse::<AssignmentName>().is_ok();
    is_name.then(|| text.into())
}

fn principal(bytes: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_one = text.parse::<Principal>().is_ok() || text.parse::<PrincipalPattern>().is_ok();
    is_one.then(|| text.into())
}

/// The fields of a message that have a length: texts, bytes and messages. Ends where the bytes are no message.
fn fields(message: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = message;
    std::iter::from_fn(move || {
        loop {
            let (number, wire_type) = decode_key(&mut rest).ok()?;
            if wire_type == WireType::LengthDelimited {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let (field, after) = rest.split_at_checked(length)?;
                rest = after;
                return Some((number, field));
            }
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).ok()?;
        }
    })
}

impl From<AuditUnavailable> for Failure {
    fn from(error: AuditUnavailable) -> Self {
        Self::new(Reason::AuditUnavailable, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use axum::{Router, routing::post};
    use bytes::Bytes;
    use jeton_core::{Wall, audit::testing::MemoryTrail};
    use jeton_proto::FILE_DESCRIPTOR_SET;
    use tower::ServiceExt;

    use super::*;
    use crate::door::Peer;

    const CREATE: &str = "/jeton.v1.IdentityService/CreateIdentity";

    fn framed(message: &impl Message) -> Vec<u8> {
        let bytes = message.encode_to_vec();
        [&[0], u32::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), &bytes].concat()
    }

    fn request() -> v1::CreateIdentityRequest {
        v1::CreateIdentityRequest {
            identity_id: "billing".into(),
            authority: "authorities/entra".into(),
            display_name: "canary".into(),
            labels: [("canary".to_owned(), "identities/canary".to_owned())].into(),
            request_id: "canary".into(),
        }
    }

    fn auditor(trail: &MemoryTrail) -> Auditor {
        Auditor {
            trail: Arc::new(trail.clone()),
            uid: Arc::new(|name| {
                (name == "authorities/entra").then(|| Uid::new(Wall::from_secs(1), [1; 10]))
            }),
            workload: Arc::new(|_| None),
        }
    }

    /// A service that answers so, behind the audit; how often it was called.
    async fn call(trail: &MemoryTrail, path: &str, answer: Result<Vec<u8>, Status>) -> (Response, usize) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let service = move |_: Bytes| async move {
            counted.fetch_add(1, Relaxed);
            answer.map_or_else(|status| status.into_http(), |body| Response::new(Body::from(body)))
        };
        let router = Router::new().route(path, post(service));
        let auditor = auditor(trail);
        let caller = Caller {
            principal: Principal::loopback_dev(),
            peer: Peer::Tcp { remote: ([127, 0, 0, 1], 9).into() },
            until: None,
        };
        let request = Request::post(path).extension(Arc::new(caller)).body(Body::from(framed(&request())));
        let routes = audited(router.into(), auditor).into_axum_router();
        let response = routes.oneshot(request.unwrap()).await.unwrap();
        (response, calls.load(Relaxed))
    }

    #[tokio::test]
    async fn a_change_is_on_the_trail_before_it_is_made_and_nothing_but_names_of_what_it_said() {
        let trail = MemoryTrail::default();
        let made = v1::Identity { name: "identities/billing".into(), ..Default::default() };
        let answer = framed(&v1::CreateIdentityResponse { identity: Some(made) });
        let (response, calls) = call(&trail, CREATE, Ok(answer.clone())).await;
        assert_eq!((calls, response.into_body().collect().await.unwrap().to_bytes().to_vec()), (1, answer));
        let events = trail.events();
        assert_eq!(
            events.iter().map(|e| e.outcome).collect::<Vec<_>>(),
            [AuditOutcome::Intent, AuditOutcome::Ok]
        );
        assert_eq!(events[0].correlation_id, events[1].correlation_id);
        let names: Vec<_> = events[0].resources.iter().map(|r| (&*r.name, r.uid.is_some())).collect();
        assert_eq!(names, [("identities/billing", false), ("authorities/entra", true)]);
        assert_eq!(events[0].method.as_deref(), Some(&CREATE[1..]));
        assert_eq!(events[0].peer.as_deref(), Some("127.0.0.1:9"));
        assert!(!serde_json::to_string(&events).unwrap().contains("canary"), "{events:?}");
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_written_down_is_not_made_and_the_caller_is_told_why() {
        let trail = MemoryTrail::default();
        trail.set_broken(true);
        let (response, calls) = call(&trail, CREATE, Ok(vec![])).await;
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!((calls, status.code()), (0, Code::Unavailable));
        assert_eq!(status.get_details_error_info().unwrap().reason, "AUDIT_UNAVAILABLE");
        let (_, calls) = call(&trail, "/jeton.v1.IdentityService/GetIdentity", Ok(vec![])).await;
        assert_eq!(calls, 1, "who only reads needs no trail");
    }

    #[tokio::test]
    async fn a_refusal_is_the_outcome_with_its_reason() {
        let trail = MemoryTrail::default();
        call(&trail, CREATE, Err(Failure::not_found("authorities/x").into())).await;
        call(&trail, CREATE, Err(Failure::new(Reason::AccessDenied, "no").into())).await;
        let ends: Vec<_> =
            trail.events().into_iter().skip(1).step_by(2).map(|e| (e.outcome, e.reason)).collect();
        let (failed, denied) = (Some("NOT_FOUND".into()), Some("ACCESS_DENIED".into()));
        assert_eq!(ends, [(AuditOutcome::Failed, failed), (AuditOutcome::Denied, denied)]);
    }

    #[tokio::test]
    async fn an_answer_that_is_all_headers_stays_one_also_for_a_method_that_nobody_knows() {
        use axum::body::HttpBody;
        let trail = MemoryTrail::default();
        let (refused, _) = call(&trail, CREATE, Err(Failure::not_found("authorities/x").into())).await;
        let unknown = || async { Status::unimplemented("").into_http::<Body>() };
        let nobody = Router::new().fallback(unknown);
        let request = Request::post("/jeton.v1.Nope/Nope").body(Body::empty()).unwrap();
        let routes = audited(nobody.into(), auditor(&trail)).into_axum_router();
        let nope = routes.oneshot(request).await.unwrap();
        for (response, code) in [(refused, Code::NotFound), (nope, Code::Unimplemented)] {
            assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), code);
            assert!(response.body().is_end_stream(), "the stream ends with the headers");
        }
    }

    #[tokio::test]
    async fn who_was_given_which_role_on_what_is_on_the_trail_and_no_text_that_is_none() {
        let given = |member: &str, role: &str, identity: &str| v1::CreateRoleAssignmentRequest {
            member: member.into(),
            role: role.into(),
            identity: identity.into(),
            ..Default::default()
        };
        let auditor = auditor(&MemoryTrail::default());
        for (request, role, names) in [
            (given("spiffe://a/b/", "reader", "*"), Some(Role::Reader), &["spiffe://a/b/", "*"][..]),
            (
                given("workloads/w", "", "identities/x.*"),
                Some(Role::TokenUser),
                &["workloads/w", "identities/x.*"],
            ),
            (given("canary", "canary", "canary*"), None, &[]),
        ] {
            let path = "/jeton.v1.AccessService/CreateRoleAssignment";
            let event = auditor.event(None, path, &framed(&request));
            assert_eq!(event.role, role);
            let shown: Vec<_> = event.resources.iter().map(|r| &*r.name).collect();
            assert_eq!(shown, names);
            assert!(!serde_json::to_string(&event).unwrap().contains("canary"), "{event:?}");
        }
    }

    #[test]
    fn every_method_of_the_admin_plane_either_reads_or_is_a_change() {
        let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let services = set.file.iter().flat_map(|file| &file.service);
        let methods = services
            .flat_map(|s| s.method.iter().map(move |m| format!("{SERVICES}{}/{}", s.name(), m.name())));
        let (changes, reads): (Vec<_>, Vec<_>) = methods.partition(|path| is_change(path));
        assert!(changes.len() > 15 && reads.len() > 8, "{changes:#?}");
        for change in ["Create", "Attach", "Update", "Delete", "Rotate", "Disable", "Enable"] {
            assert!(changes.iter().any(|path| path.contains(&format!("/{change}"))), "{change}");
            assert!(!reads.iter().any(|path| path.contains(&format!("/{change}"))), "{change}");
        }
        assert!(!is_change("/grpc.health.v1.Health/Check"));
    }

    #[test]
    fn bytes_that_are_no_message_name_nothing() {
        for bytes in [&b"\xff\xff\xff"[..], b"\x0a\xff", b"\x0a\x05ab", b""] {
            assert_eq!(named(CREATE, bytes).count(), 0, "{bytes:?}");
        }
    }
}
