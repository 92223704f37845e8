//! Logs as collectors get them.

#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{sync::Arc, time::Instant};

use axum::{Router, body::Bytes, routing::post};
use jeton_core::Wall;
use jeton_telemetry::{Audit, Environment, Gathered, Lines, OtlpSettings, Resource, Telemetry, logs};
use opentelemetry_proto::tonic::{
    collector::logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    common::v1::any_value::Value,
    logs::v1::{LogRecord, SeverityNumber},
};
use prost::Message;
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tracing_subscriber::{Registry, layer::SubscriberExt};

type Told = UnboundedReceiver<ExportLogsServiceRequest>;

struct Sink(UnboundedSender<ExportLogsServiceRequest>);

#[tonic::async_trait]
impl LogsService for Sink {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

async fn grpc_sink() -> (String, Told) {
    let (tell, told) = unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(LogsServiceServer::new(Sink(tell)));
    tokio::spawn(server.serve_with_incoming(incoming));
    (format!("http://{address}"), told)
}

async fn http_sink() -> (String, Told) {
    let (tell, told) = unbounded_channel();
    let take = move |body: Bytes| {
        tell.send(ExportLogsServiceRequest::decode(&body[..]).unwrap()).unwrap();
        std::future::ready(())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, Router::new().route("/v1/logs", post(take))).into_future());
    (format!("http://{address}"), told)
}

/// What exports to there, with these variables.
fn exporting(url: &str, more: &[(&str, &str)]) -> (Lines, Audit, Telemetry) {
    let named = [("OTEL_LOGS_EXPORTER", "otlp"), ("OTEL_METRICS_EXPORTER", "none")];
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", url);
    let environment = Environment::of(named.iter().chain([&endpoint]).chain(more).copied());
    let exports = environment.exports(&OtlpSettings::default());
    assert_eq!(exports.warnings, Vec::<String>::new());
    let (lines, logs) = logs(&exports, || Some((0xabc, 0xdef)));
    let logs = logs.unwrap();
    let (audit, resource) = (logs.audit(), Resource::new("jeton", "1", "one", &[]));
    let gathered = Gathered::new(Arc::new(|_| {}), &exports, Instant::now());
    (lines, audit, Telemetry::start(&exports, (None, Some(logs)), resource, gathered))
}

/// Everything that came, by the name of its scope.
fn records(mut told: Told) -> Vec<(String, LogRecord)> {
    let mut all = vec![];
    while let Ok(message) = told.try_recv() {
        for resource in message.resource_logs {
            let attributes = resource.resource.unwrap().attributes;
            assert!(attributes.iter().any(|attribute| attribute.key == "service.name"), "{attributes:?}");
            for scope in resource.scope_logs {
                let name = scope.scope.unwrap().name;
                all.extend(scope.log_records.into_iter().map(|record| (name.clone(), record)));
            }
        }
    }
    all
}

fn said(record: &LogRecord, key: &str) -> Option<Value> {
    record.attributes.iter().find(|a| a.key == key)?.value.clone()?.value
}

fn text(text: &str) -> Option<Value> {
    Some(Value::StringValue(text.into()))
}

#[tokio::test]
async fn lines_and_audited_events_come_over_grpc_and_http_each_under_its_scope() {
    let by_grpc = ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc");
    for ((url, told), more) in [(grpc_sink().await, &[by_grpc][..]), (http_sink().await, &[])] {
        let (lines, audit, telemetry) = exporting(&url, more);
        tracing::subscriber::with_default(Registry::default().with(lines), || {
            let _span = tracing::error_span!("request", principal = "unix://n/uid/1").entered();
            tracing::warn!(target: "jeton_engine", failures = 3, "no token was issued");
            tracing::error!(target: "jeton_telemetry::otlp", "of the exporter itself");
            tracing::error!(target: "h2::client", "of a library");
        });
        audit.put(
            7,
            Wall::from_secs(9),
            r#"{"kind":"admin.change","outcome":"failed","resources":[{"name":"identities/a"}]}"#,
        );
        // What is left goes out at the stop.
        telemetry.shutdown().await;
        let mut records = records(told);
        records.sort_by(|a, b| a.0.cmp(&b.0));
        let [(scope, line), (audited, event)] = &records[..] else { panic!("{records:?}") };
        assert_eq!((scope.as_str(), audited.as_str()), ("jeton", "jeton.audit"));
        assert_eq!(line.body.clone().unwrap().value, text("no token was issued"));
        assert_eq!(
            (line.severity_number, line.severity_text.as_str()),
            (SeverityNumber::Warn as i32, "WARN")
        );
        assert_eq!(said(line, "failures"), Some(Value::IntValue(3)));
        assert_eq!(said(line, "principal"), text("unix://n/uid/1"));
        assert_eq!(line.trace_id, 0xabc_u128.to_be_bytes());
        assert_eq!(line.span_id, 0xdef_u64.to_be_bytes());
        assert_eq!((event.event_name.as_str(), event.time_unix_nano), ("jeton.audit", 9_000_000_000));
        assert_eq!(event.body.clone().unwrap().value, text("admin.change failed"));
        assert_eq!(event.severity_number, SeverityNumber::Warn as i32);
        assert_eq!((said(event, "seq"), said(event, "outcome")), (Some(Value::IntValue(7)), text("failed")));
        let Some(Value::ArrayValue(resources)) = said(event, "resources") else { panic!("{event:?}") };
        assert_eq!(resources.values.len(), 1);
    }
}

#[tokio::test]
async fn a_storm_of_lines_waits_for_nobody_and_pushes_out_no_audited_event() {
    let (url, told) = http_sink().await;
    let (lines, audit, telemetry) = exporting(&url, &[("OTEL_BLRP_MAX_QUEUE_SIZE", "4")]);
    audit.put(1, Wall::from_secs(1), r#"{"kind":"key.step","outcome":"ok"}"#);
    // No task gets a turn meanwhile.
    tracing::subscriber::with_default(Registry::default().with(lines), || {
        (0..100).for_each(|n| tracing::info!(target: "jeton_engine", n, "again"));
    });
    telemetry.shutdown().await;
    let records = records(told);
    assert_eq!(records.iter().filter(|(scope, _)| scope == "jeton").count(), 4);
    assert_eq!(records.iter().filter(|(scope, _)| scope == "jeton.audit").count(), 1);
}
