//! A trace from its caller to the authority, as a collector gets it.

use std::time::{Duration, Instant};

use jeton_proto::v1;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_stream::wrappers::TcpListenerStream;

use crate::{
    metrics::got,
    support::{Process, VAULT, World, request, token},
};

const ORDERS: &str = "https://orders.example/.default";
const CALLERS: u8 = 5;

struct Sink(UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn sink() -> (String, UnboundedReceiver<ExportTraceServiceRequest>) {
    let (tell, told) = unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Sink(tell)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (endpoint, told)
}

/// Of a caller with this number, which is its trace and its span.
fn traced<T>(message: T, caller: u8, sampled: bool) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let flags = u8::from(sampled);
    let traceparent = format!("00-{caller:032x}-{caller:016x}-{flags:02x}");
    for (name, value) in [("traceparent", traceparent), ("baggage", "who=canary".into())] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    request
}

/// What arrived, and what may be asked of it.
struct Arrived(Vec<Span>);

impl Arrived {
    fn all(&self, is: impl Fn(&Span) -> bool) -> Vec<&Span> {
        self.0.iter().filter(|span| is(span)).collect()
    }

    fn one(&self, what: &str, is: impl Fn(&Span) -> bool) -> &Span {
        let all = self.all(is);
        assert_eq!(all.len(), 1, "{what}: {all:?}");
        all[0]
    }

    /// The request of a caller.
    fn of(&self, caller: u8) -> &Span {
        let trace = u128::from(caller).to_be_bytes();
        let span = self.one("a caller's", |s| s.trace_id == trace && s.kind == SpanKind::Server as i32);
        assert_eq!(span.parent_span_id, u64::from(caller).to_be_bytes());
        assert_eq!(span.flags, 0x301, "sampled, and its parent is another process's");
        span
    }

    fn parts_of(&self, parent: &Span, name: &str) -> Vec<&Span> {
        self.all(|s| s.trace_id == parent.trace_id && s.parent_span_id == parent.span_id && s.name == name)
    }
}

fn says<'a>(span: &'a Span, key: &str) -> &'a str {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?} in {span:?}"),
    }
}

fn is_linked(from: &Span, to: &Span) -> bool {
    matches!(&from.links[..], [link] if (&link.trace_id, &link.span_id) == (&to.trace_id, &to.span_id))
}

/// The authority answers nobody until so many callers wait for its token.
async fn ask_at_once(world: &World) {
    let url = world.broker.endpoints["metrics"].as_str().unwrap();
    let channel = world.broker.local_tokens().await;
    world.sandbox.process.pause(true);
    let asking: Vec<_> = (1..=CALLERS)
        .map(|caller| {
            let (mut client, asked) = (channel.clone(), request("identities/billing", ORDERS));
            tokio::spawn(async move { client.get_token(traced(asked, caller, true)).await })
        })
        .collect();
    let waiting = format!("\njeton_token_waiting_callers {CALLERS}\n");
    while !got(url, "/metrics").await.2.contains(&waiting) {
        assert!(asking.iter().all(|asked| !asked.is_finished()), "they do not wait for each other");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.sandbox.process.pause(false);
    for asked in asking {
        asked.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_leads_from_its_caller_to_the_authority_and_all_who_wait_are_linked_to_the_one_flight() {
    let (endpoint, mut told) = sink().await;
    let endpoint = format!("telemetry.otlp.endpoint={endpoint}");
    let settings = [
        &endpoint,
        "telemetry.otlp.protocol=grpc",
        "telemetry.traces.sampler=parentbased_always_on",
        "log.filter=trace",
    ];
    let arguments: Vec<_> = settings.into_iter().flat_map(|setting| ["--set", setting]).collect();
    let mut world = World::with(&arguments, json!({"token_lifetime_seconds": 20})).await;
    ask_at_once(&world).await;
    let mut tokens = world.broker.local_tokens().await;
    let asked = || request("identities/billing", ORDERS);
    let hit = tokens.get_token(traced(asked(), 20, true)).await.unwrap().into_inner().token.unwrap();
    let denied = tokens.get_token(traced(request("identities/none", ORDERS), 21, true)).await.unwrap_err();
    // Who keeps it wanted is not recorded; its refresh is.
    let (client_id, end) =
        (world.broker.client_id("identities/billing"), Instant::now() + Duration::from_secs(120));
    while world.sandbox.requests(&client_id, ORDERS).await < 2 {
        assert!(Instant::now() < end, "no refresh");
        tokens.get_token(traced(asked(), 22, false)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let created = v1::CreateIdentityRequest {
        identity_id: "traced".into(),
        authority: "authorities/entra".into(),
        display_name: "canary".into(),
        ..Default::default()
    };
    world.broker.identities().await.create_identity(traced(created, 23, true)).await.unwrap();
    let state = || world.broker.json(&["identity", "get", "traced"])["state"].to_string();
    while !state().contains("ACTIVE") {
        assert!(Instant::now() < end, "{}", state());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What is left goes out at the stop.
    assert!(world.broker.process.stop().success(), "{}", world.broker.process.log());
    let (mut arrived, mut bytes) = (Arrived(vec![]), vec![]);
    while let Ok(message) = told.try_recv() {
        bytes.extend(message.encode_to_vec());
        let scopes = message.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        arrived.0.extend(scopes.flat_map(|scope| scope.spans));
    }
    assert_the_flight(&arrived, world.sandbox.text("/entra/token_endpoint"));
    let fresh = arrived.of(20);
    assert_eq!((says(fresh, "jeton.lookup.result"), fresh.links.len()), ("fresh", 0));
    assert!(denied.message().contains(says(arrived.of(21), "jeton.correlation_id")), "{denied}");
    assert!(arrived.all(|s| s.trace_id == 22_u128.to_be_bytes()).is_empty(), "unsampled");
    assert_the_steps(&arrived);
    let text = String::from_utf8_lossy(&bytes);
    for canary in [
        "canary",
        "eyJ",
        &hit.access_token,
        world.sandbox.text("/administrator/client_secret"),
        world.sandbox.text("/initial_access_token"),
    ] {
        assert!(!text.contains(canary), "{canary} was exported");
    }
}

fn assert_the_flight(arrived: &Arrived, endpoint: &str) {
    let is_cold = |s: &Span| s.name == "flight" && s.trace_id[..15] == [0; 15];
    let flight = arrived.one("the flight of the callers", is_cold);
    for caller in 1..=CALLERS {
        let waited = arrived.of(caller);
        assert_eq!(waited.name, "jeton.v1.TokenService/GetToken");
        assert_eq!(says(waited, "rpc.response.status_code"), "OK");
        assert!(is_linked(waited, flight), "{waited:?}");
    }
    let first = arrived.of(flight.trace_id[15]);
    assert_eq!(flight.parent_span_id, first.span_id);
    let planned = |s: &Span| {
        s.name == "flight"
            && s.parent_span_id.is_empty()
            && says(s, "jeton.refresh.cause") == "plan"
            && says(s, "jeton.refresh.outcome") == "issued"
            && says(s, "jeton.identity") == "identities/billing"
    };
    let planned = arrived.all(planned);
    assert!(!planned.is_empty(), "a refresh by plan begins a trace");
    for flight in planned.into_iter().chain([flight]) {
        assert_eq!(says(flight, "jeton.identity"), "identities/billing");
        assert_eq!(arrived.parts_of(flight, "assertion").len(), 1);
        let calls = arrived.parts_of(flight, "POST");
        assert!(calls.len() == 1 && calls[0].kind == SpanKind::Client as i32, "{calls:?}");
        assert_eq!(says(calls[0], "url.full"), endpoint);
        assert!(calls[0].start_time_unix_nano >= flight.start_time_unix_nano);
        assert!(calls[0].end_time_unix_nano <= flight.end_time_unix_nano);
    }
}

fn assert_the_steps(arrived: &Arrived) {
    let call = arrived.of(23);
    assert_eq!(call.name, "jeton.v1.IdentityService/CreateIdentity");
    let steps = arrived.all(|s| is_linked(s, call));
    let named: Vec<_> = steps.iter().map(|s| s.name.as_str()).collect();
    for name in ["provision/key_made", "provision/registered", "provision/verified", "provision/switched"] {
        assert!(named.contains(&name), "{name} among {named:?}");
    }
    let registered = steps.iter().find(|s| s.name == "provision/registered").unwrap();
    assert!(!arrived.parts_of(registered, "POST").is_empty(), "it asks the authority");
    assert_ne!(says(registered, "jeton.correlation_id"), says(call, "jeton.correlation_id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_costs_callers_nothing_and_what_waits_for_it_is_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let set = format!(
        "export OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://{} OTEL_TRACES_SAMPLER=always_on OTEL_BSP_MAX_QUEUE_SIZE=10",
        listener.local_addr().unwrap()
    );
    let arguments = ["dev", "--free-ports", "--data-dir", data_dir.to_str().unwrap()];
    let process = Process::after(&set, &arguments, &folder.path().join("log"));
    let mut broker = crate::support::Broker::announced(process, &data_dir);
    let mut tokens = broker.tokens().await;
    for _ in 0..100 {
        token(&mut tokens, "identities/billing", VAULT).await.unwrap();
    }
    let url = broker.endpoints["metrics"].as_str().unwrap().to_owned();
    let end = Instant::now() + Duration::from_secs(60);
    let dropped = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with("jeton_telemetry_dropped_total{") && line.contains("traces"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
    };
    while dropped(&got(&url, "/metrics").await.2) < 50.0 {
        assert!(Instant::now() < end, "nothing is dropped");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(broker.process.stop().success(), "{}", broker.process.log());
}
