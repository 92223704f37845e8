//! To a collector and back: one client for HTTP/1.1, HTTP/2 and gRPC, with the broker's one crypto backend.

use std::{fs, io::Write, sync::Arc, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use jeton_core::{Clock, SystemClock, retry_after};
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use prost::Message;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body, client::Grpc, codec::CompressionEncoding};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use super::environment::{Otlp, Protocol};

const MAX_ANSWER_BYTES: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of what a collector says for people.
const MAX_REASON_CHARS: usize = 256;
const MIN_IDLE: Duration = Duration::from_secs(60);

/// A message of one signal.
pub(crate) trait Export: Message + Clone + serde::Serialize + Sync + 'static {
    /// The method that takes it.
    const METHOD: &'static str;
    type Answer: Message + Default + DeserializeOwned;

    /// How much of it the collector did not take, and why.
    fn rejected(answer: Self::Answer) -> Option<(i64, String)>;
}

macro_rules! exports {
    ($($request:ty, $answer:ty, $method:literal, $rejected:ident;)*) => {$(
        impl Export for $request {
            const METHOD: &'static str = $method;
            type Answer = $answer;

            fn rejected(answer: $answer) -> Option<(i64, String)> {
                answer.partial_success.map(|partial| (partial.$rejected, partial.error_message))
            }
        }
    )*};
}

exports! {
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", rejected_data_points;
    ExportTraceServiceRequest, ExportTraceServiceResponse,
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export", rejected_spans;
    ExportLogsServiceRequest, ExportLogsServiceResponse,
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export", rejected_log_records;
}

/// Why an export did not arrive.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct ExportError {
    pub(super) message: String,
    /// Whether the same may arrive if it is sent again.
    pub(super) again: bool,
    /// How long the collector asks to be left alone.
    pub(super) after: Option<Duration>,
}

pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    otlp: Otlp,
    uri: Uri,
}

impl Transport {
    pub(super) fn new(otlp: Otlp) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls(&otlp)?).https_or_http();
        let grpc = otlp.protocol == Protocol::Grpc;
        let connector = match grpc {
            true => https.enable_http2().wrap_connector(tcp),
            false => https.enable_http1().enable_http2().wrap_connector(tcp),
        };
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout((otlp.interval * 2).max(MIN_IDLE))
            .pool_max_idle_per_host(1)
            .http2_only(grpc)
            .build(connector);
        let mut url = otlp.endpoint.clone();
        if grpc {
            url.set_path("");
        }
        let uri = url.as_str().parse().map_err(|_| "the endpoint is no URI".to_owned())?;
        Ok(Self { client, otlp, uri })
    }

    /// Sends it once, within the timeout of a request, and before this end.
    pub(super) async fn send<M: Export>(&self, message: &M, end: Instant) -> Result<(), ExportError> {
        let timeout = self.otlp.timeout.min(end.saturating_duration_since(Instant::now()));
        let sending = async {
            match self.otlp.protocol {
                Protocol::Grpc => self.by_grpc(message).await,
                Protocol::HttpProtobuf => {
                    self.by_http::<M>(message.encode_to_vec(), "application/x-protobuf").await
                }
                Protocol::HttpJson => {
                    let text = serde_json::to_vec(message).unwrap_or_default();
                    self.by_http::<M>(text, "application/json").await
                }
            }
        };
        tokio::time::timeout(timeout, sending)
            .await
            .unwrap_or_else(|_| Err(failed(format!("no answer within {} ms", timeout.as_millis()), true)))
    }

    async fn by_grpc<M: Export>(&self, message: &M) -> Result<(), ExportError> {
        let client = Grpc::with_origin(self.client.clone(), self.uri.clone());
        let mut client = client.max_decoding_message_size(MAX_ANSWER_BYTES);
        if self.otlp.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        let mut request = tonic::Request::new(message.clone());
        let headers = self.otlp.headers.iter().cloned();
        *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers.collect());
        client.ready().await.map_err(|error| failed(root_cause(&error), true))?;
        let (method, codec) = (PathAndQuery::from_static(M::METHOD), ProstCodec::<M, M::Answer>::default());
        let answer = client.unary(request, method, codec).await.map_err(|status| of_status(&status))?;
        taken::<M>(answer.into_inner())
    }

    async fn by_http<M: Export>(&self, body: Vec<u8>, kind: &'static str) -> Result<(), ExportError> {
        let (body, encoding) = if self.otlp.gzip {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            let packed = encoder.write_all(&body).and_then(|()| encoder.finish());
            (packed.map_err(|e| failed(e.to_string(), false))?, Some(HeaderValue::from_static("gzip")))
        } else {
            (body, None)
        };
        let mut request = Request::post(self.uri.clone()).header(header::CONTENT_TYPE, kind);
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.otlp.headers.iter().cloned());
            headers.insert(
                header::USER_AGENT,
                HeaderValue::from_static(concat!("jeton/", env!("CARGO_PKG_VERSION"))),
            );
            headers.extend(encoding.map(|encoding| (header::CONTENT_ENCODING, encoding)));
        }
        let request = request.body(Body::new(Full::new(Bytes::from(body))));
        let request = request.map_err(|_| failed("the request cannot be made".into(), false))?;
        let answer = self.client.request(request).await.map_err(|e| failed(root_cause(&e), true))?;
        let (head, body) = answer.into_parts();
        // Read to its end, so that the connection is of use again.
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        if head.status.is_success() {
            // It is there already, or nobody knows: twice would be worse.
            let body =
                body.map_err(|e| failed(format!("the collector's answer cannot be read: {e}"), false))?;
            return taken::<M>(answered(&body.to_bytes(), self.otlp.protocol)?);
        }
        let again = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        let after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| retry_after::parse(text, SystemClock.now().wall));
        let message = format!("the collector answered {}", head.status);
        Err(ExportError { after, ..failed(message, again.contains(&head.status)) })
    }
}

/// What a collector answered over HTTP; nothing at all is as good as a message without anything in it.
fn answered<A: Message + Default + DeserializeOwned>(
    body: &[u8],
    protocol: Protocol,
) -> Result<A, ExportError> {
    let answer = match protocol {
        Protocol::HttpJson if !body.is_empty() => of_json(body).ok(),
        _ => A::decode(body).ok(),
    };
    answer.ok_or_else(|| failed("the collector's answer is no message of OTLP".into(), false))
}

fn of_json<A: DeserializeOwned>(body: &[u8]) -> serde_json::Result<A> {
    let mut answer: Value = serde_json::from_slice(body)?;
    // JSON has 64-bit numbers as text too (protobuf's mapping), which the generated code does not read.
    let partial = answer.get_mut("partialSuccess").and_then(Value::as_object_mut);
    for (name, value) in partial.into_iter().flatten() {
        if name.starts_with("rejected")
            && let Some(number) = value.as_str().and_then(|text| text.parse::<i64>().ok())
        {
            *value = number.into();
        }
    }
    serde_json::from_value(answer)
}

/// Part of it may be rejected, and is lost.
fn taken<M: Export>(answer: M::Answer) -> Result<(), ExportError> {
    match M::rejected(answer) {
        Some((rejected, why)) if rejected > 0 => {
            let why: String = why.chars().take(MAX_REASON_CHARS).collect();
            Err(failed(format!("the collector rejected {rejected} of what was sent: {why}"), false))
        }
        _ => Ok(()),
    }
}

fn failed(message: String, again: bool) -> ExportError {
    ExportError { message, again, after: None }
}

/// By the specification's table of what may be repeated.
fn of_status(status: &Status) -> ExportError {
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let again = matches!(
        status.code(),
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    ) || status.code() == Code::ResourceExhausted && after.is_some();
    let cause = std::error::Error::source(status).map(|source| format!(" ({})", root_cause(source)));
    let message = format!("{:?}: {}{}", status.code(), status.message(), cause.unwrap_or_default());
    ExportError { after, ..failed(message, again) }
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Whom to trust, and who we are.
fn tls(otlp: &Otlp) -> Result<ClientConfig, String> {
    let Some((certificate, key)) = &otlp.client_certificate else {
        return jeton_http::trust(otlp.ca_file.as_deref()).map_err(|e| e.to_string());
    };
    let wrong = |path: &str, e: &dyn std::fmt::Display| {
        format!("the file {path} of the exporter cannot be used: {e}")
    };
    let pem = |path: &str| fs::read(path).map_err(|e| wrong(path, &e));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem(certificate)?).collect();
    let chain = chain.map_err(|e| wrong(certificate, &e))?;
    let private = PrivateKeyDer::from_pem_slice(&pem(key)?).map_err(|e| wrong(key, &e))?;
    let roots = jeton_http::roots(otlp.ca_file.as_deref()).map_err(|e| e.to_string())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?.with_root_certificates(roots);
    builder.with_client_auth_cert(chain, private).map_err(|e| wrong(certificate, &e))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess;
    use tokio::net::TcpListener;
    use tonic_types::ErrorDetails;

    use super::*;
    use crate::{Environment, OtlpSettings};

    /// Sends to a collector that answers 200 with this body.
    async fn answered_with(protocol: &str, body: Vec<u8>) -> Result<(), ExportError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(move || std::future::ready(body));
        let server = tokio::spawn(axum::serve(listener, routes).into_future());
        let variables = [
            ("OTEL_LOGS_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ];
        let otlp = Environment::of(variables).exports(&OtlpSettings::default()).logs.unwrap();
        let end = Instant::now() + otlp.timeout;
        let sent = Transport::new(otlp).unwrap().send(&ExportLogsServiceRequest::default(), end).await;
        server.abort();
        sent
    }

    #[tokio::test]
    async fn what_a_collector_rejected_or_answered_beyond_understanding_over_http_has_failed_for_good() {
        let binary = |rejected_log_records, why: &str| {
            let partial = ExportLogsPartialSuccess { rejected_log_records, error_message: why.into() };
            ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec()
        };
        let text = |rejected: &str| {
            let why = "too old";
            format!(r#"{{"partialSuccess":{{"rejectedLogRecords":{rejected},"errorMessage":"{why}"}}}}"#)
                .into_bytes()
        };
        let (protobuf, json) = ("http/protobuf", "http/json");
        let said = "the collector rejected 3 of what was sent: too old";
        let garbage = "the collector's answer is no message of OTLP";
        let beyond = "the collector's answer cannot be read: length limit exceeded";
        for (protocol, body, expected) in [
            (protobuf, vec![], None),
            (protobuf, binary(0, "a hint"), None),
            (protobuf, binary(3, "too old"), Some(said)),
            (protobuf, b"<html>".to_vec(), Some(garbage)),
            (protobuf, vec![0; MAX_ANSWER_BYTES + 1], Some(beyond)),
            (json, vec![], None),
            (json, b"{}".to_vec(), None),
            (json, text("\"0\""), None),
            (json, text("\"3\""), Some(said)),
            (json, text("3"), Some(said)),
            (json, b"<html>".to_vec(), Some(garbage)),
            (json, vec![b' '; MAX_ANSWER_BYTES + 1], Some(beyond)),
        ] {
            let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
            let error = answered_with(protocol, body).await.err();
            assert_eq!(error.as_ref().map(|e| e.message.as_str()), expected, "{protocol} {shown}");
            assert!(!error.is_some_and(|e| e.again), "{protocol} {shown}");
        }
    }

    #[test]
    fn a_status_with_retry_info_says_how_long_to_wait_and_exhausted_resources_are_retried_only_with_it() {
        let delay = Duration::from_secs(40);
        let details = ErrorDetails::with_retry_info(Some(delay));
        for code in [Code::Unavailable, Code::ResourceExhausted] {
            let error = of_status(&Status::with_error_details(code, "busy", details.clone()));
            assert_eq!((error.again, error.after), (true, Some(delay)), "{code:?}");
        }
        let error = of_status(&Status::resource_exhausted("full"));
        assert_eq!((error.again, error.after), (false, None));
    }
}
