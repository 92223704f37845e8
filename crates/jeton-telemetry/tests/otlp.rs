//! Metrics as collectors get them.

#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{sync::Arc, time::Instant};

use axum::{Router, body::Bytes, extract::State, routing::post};
use http::{HeaderMap, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jeton_telemetry::{Environment, Gathered, OtlpSettings, Resource, Telemetry, instrument};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    metrics::v1::{metric::Data, number_data_point},
};
use prost::Message;
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tonic::codec::CompressionEncoding;

/// A message as it came, with what stood in its headers.
struct Received {
    headers: HeaderMap,
    message: ExportMetricsServiceRequest,
}

struct Sink(UnboundedSender<Received>);

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let headers = request.metadata().clone().into_headers();
        self.0.send(Received { headers, message: request.into_inner() }).unwrap();
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

async fn grpc_sink() -> (String, UnboundedReceiver<Received>) {
    let (tell, told) = unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = MetricsServiceServer::new(Sink(tell)).accept_compressed(CompressionEncoding::Gzip);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    (format!("http://{address}"), told)
}

type Told = (UnboundedSender<Received>, Arc<std::sync::Mutex<Vec<StatusCode>>>);

async fn take(State((tell, answers)): State<Told>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let body = match headers.get("content-encoding") {
        Some(_) => {
            let mut unpacked = vec![];
            std::io::copy(&mut flate2::read::GzDecoder::new(&body[..]), &mut unpacked).unwrap();
            unpacked
        }
        None => body.to_vec(),
    };
    let message = if headers["content-type"] == "application/json" {
        serde_json::from_slice(&body).unwrap()
    } else {
        ExportMetricsServiceRequest::decode(&body[..]).unwrap()
    };
    tell.send(Received { headers, message }).unwrap();
    answers.lock().unwrap().pop().unwrap_or(StatusCode::OK)
}

/// That gives these answers, the last first, and then 200.
fn http_routes(answers: Vec<StatusCode>) -> (Router, UnboundedReceiver<Received>) {
    let (tell, told) = unbounded_channel();
    let state: Told = (tell, Arc::new(std::sync::Mutex::new(answers)));
    (Router::new().route("/v1/metrics", post(take)).with_state(state), told)
}

async fn http_sink(answers: Vec<StatusCode>) -> (String, UnboundedReceiver<Received>) {
    let (routes, told) = http_routes(answers);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, routes).into_future());
    (format!("http://{address}"), told)
}

fn telemetry(variables: &[(&str, &str)]) -> Telemetry {
    let environment = Environment::of(variables.iter().copied());
    let exports = environment.exports(&OtlpSettings::default());
    assert_eq!(exports.warnings, Vec::<String>::new());
    let gathered = Gathered::new(
        Arc::new(|snapshot| snapshot.count(&instrument::LOOKUPS, ["fresh"], 42)),
        &exports,
        Instant::now(),
    );
    Telemetry::start(
        &exports,
        (None, None),
        Resource::new("jeton", "1", "one", &[]).under(&environment),
        gathered,
    )
}

fn fresh(message: &ExportMetricsServiceRequest) -> i64 {
    let resource = &message.resource_metrics[0];
    let named: Vec<_> =
        resource.resource.iter().flat_map(|r| &r.attributes).map(|a| a.key.as_str()).collect();
    assert!(named.contains(&"service.name") && named.contains(&"team"), "{named:?}");
    let metrics = &resource.scope_metrics[0].metrics;
    assert!(metrics.iter().any(|m| m.name == "process.cpu.time" && m.unit == "s"));
    let lookups = metrics.iter().find(|m| m.name == "jeton.token.lookups").unwrap();
    let Some(Data::Sum(sum)) = &lookups.data else { panic!("{lookups:?}") };
    assert!(sum.is_monotonic);
    match sum.data_points[0].value {
        Some(number_data_point::Value::AsInt(value)) => value,
        other => panic!("{other:?}"),
    }
}

const OFTEN: (&str, &str) = ("OTEL_METRIC_EXPORT_INTERVAL", "50");
const TEAM: (&str, &str) = ("OTEL_RESOURCE_ATTRIBUTES", "team=tokens");
const HEADERS: (&str, &str) = ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b");
const GZIP: (&str, &str) = ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");

#[tokio::test]
async fn a_collector_gets_them_by_grpc_packed_and_with_its_headers() {
    let (url, mut told) = grpc_sink().await;
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str());
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let telemetry = telemetry(&[endpoint, grpc, OFTEN, TEAM, HEADERS, GZIP]);
    let Received { headers, message } = told.recv().await.unwrap();
    assert_eq!((fresh(&message), headers["x-tenant"].to_str().unwrap()), (42, "a b"));
    assert_eq!(headers["grpc-encoding"], "gzip");
    telemetry.shutdown().await;
}

#[tokio::test]
async fn a_collector_gets_them_by_http_as_protobuf_and_as_json() {
    for (protocol, kind) in [("http/protobuf", "application/x-protobuf"), ("http/json", "application/json")] {
        let (url, mut told) = http_sink(vec![]).await;
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str());
        let protocol = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", protocol);
        let telemetry = telemetry(&[endpoint, protocol, OFTEN, TEAM, HEADERS, GZIP]);
        let Received { headers, message } = told.recv().await.unwrap();
        assert_eq!((fresh(&message), headers["x-tenant"].to_str().unwrap()), (42, "a b"));
        assert_eq!(headers["content-type"], kind);
        telemetry.shutdown().await;
    }
}

#[tokio::test]
async fn a_collector_that_is_trusted_gets_them_over_tls_and_another_does_not() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [own, other] = ["own.pem", "other.pem"].map(|name| folder.path().join(name));
    std::fs::write(&own, made.cert.pem()).unwrap();
    let stranger = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&other, stranger.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (routes, mut told) = http_routes(vec![]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (refused, mut hears) = unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else {
                refused.send(()).unwrap();
                continue;
            };
            let service = hyper_util::service::TowerToHyperService::new(routes.clone());
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str());
    let trusting = |file: &std::path::Path| {
        telemetry(&[endpoint, OFTEN, TEAM, ("OTEL_EXPORTER_OTLP_CERTIFICATE", file.to_str().unwrap())])
    };
    let wrong = trusting(&other);
    hears.recv().await.unwrap();
    assert!(told.try_recv().is_err());
    let right = trusting(&own);
    assert_eq!(fresh(&told.recv().await.unwrap().message), 42);
    right.shutdown().await;
    wrong.shutdown().await;
}

#[tokio::test]
async fn a_push_that_a_collector_has_no_time_for_is_repeated_and_one_that_it_refuses_is_not() {
    let (url, mut told) = http_sink(vec![StatusCode::SERVICE_UNAVAILABLE]).await;
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str());
    let seldom = ("OTEL_METRIC_EXPORT_INTERVAL", "600000");
    // The one push is that of the stop.
    let pushing = telemetry(&[endpoint, seldom, TEAM]);
    pushing.shutdown().await;
    assert_eq!(fresh(&told.recv().await.unwrap().message), 42);
    assert_eq!(fresh(&told.recv().await.unwrap().message), 42, "again");
    let (url, mut told) = http_sink(vec![StatusCode::BAD_REQUEST]).await;
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str());
    telemetry(&[endpoint, seldom, TEAM]).shutdown().await;
    assert!(told.recv().await.is_some());
    assert!(told.try_recv().is_err(), "not again");
}
