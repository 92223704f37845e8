//! Log records on their way to a collector: the log's lines, and what is on the audit log. Each has a queue of its own, so that no storm of
//! lines pushes out what was recorded.

use std::time::{Duration, SystemTime};

use jeton_core::Wall;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::{
    Exports, Lines, Resource, Signal, TraceIds,
    otlp::{Batches, Queue, any, keyed, nanos, queue, scope},
};

const LOG: &str = "jeton";
/// Scope and name of an audited event.
const AUDIT: &str = "jeton.audit";

/// Where logs are exported, before there is somebody to do it.
#[derive(Debug)]
pub struct Logs {
    lines: Batches<LogRecord>,
    audited: Batches<LogRecord>,
    audit: Audit,
}

/// Takes what is on the audit log. Whoever hands over waits for nobody.
#[derive(Debug, Clone)]
pub struct Audit(Queue<LogRecord>);

/// The layer that makes lines, and what exports them, where the exports say so.
pub fn logs(exports: &Exports, trace: TraceIds) -> (Lines, Option<Logs>) {
    let Some(otlp) = exports.logs.clone() else { return (Lines::new(None, trace), None) };
    let counts = exports.counts(Signal::Logs);
    let (lines, exported) = queue(otlp.clone(), counts.clone());
    let (audit, audited) = queue(otlp, counts);
    let logs = Logs { lines: exported, audited, audit: Audit(audit) };
    (Lines::new(Some(lines), trace), Some(logs))
}

impl Logs {
    /// Where audited events are handed over.
    pub fn audit(&self) -> Audit {
        self.audit.clone()
    }

    /// Exports both, until told to stop and then what is left.
    pub(crate) async fn run(self, resource: Resource, stop: CancellationToken) {
        let Self { lines, audited, .. } = self;
        let lines = lines.run(|records| request(LOG, records, &resource), stop.clone());
        tokio::join!(lines, audited.run(|records| request(AUDIT, records, &resource), stop));
    }
}

impl Audit {
    /// An event that is on disk: its number there, when it was, and its members as JSON.
    pub fn put(&self, seq: u64, at: Wall, event: &str) {
        // What the audit log writes is an object.
        let Ok(members) = serde_json::from_str::<Map<String, Value>>(event) else { return };
        let said = |key: &str| members.get(key).and_then(Value::as_str).unwrap_or_default();
        let (severity, text) = match said("outcome") {
            "denied" | "failed" => (SeverityNumber::Warn, "WARN"),
            _ => (SeverityNumber::Info, "INFO"),
        };
        let body = [said("kind"), said("outcome")].join(" ");
        let millis = Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0));
        let attributes = members.iter().map(|(key, value)| keyed(key, any(value)));
        self.0.put(LogRecord {
            time_unix_nano: nanos(SystemTime::UNIX_EPOCH + millis),
            observed_time_unix_nano: nanos(SystemTime::now()),
            severity_number: severity as i32,
            severity_text: text.into(),
            body: Some(any(&body.trim_end().into())),
            attributes: attributes.chain([keyed("seq", any(&seq.into()))]).collect(),
            event_name: AUDIT.into(),
            ..LogRecord::default()
        });
    }
}

fn request(name: &str, log_records: Vec<LogRecord>, resource: &Resource) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { scope: Some(scope(name)), log_records, schema_url: String::new() }];
    let resource = Some(resource.message());
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { resource, scope_logs, schema_url: String::new() }],
    }
}
