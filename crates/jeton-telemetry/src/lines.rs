//! The log's lines as data: one JSON object on a line, and one OTLP record. Both are made of the same members.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use jeton_core::Wall;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::Context,
    registry::{LookupSpan, Scope},
};

use crate::otlp::{Queue, any, keyed, nanos};

/// Longest text of a member or message, in bytes. A principal has no more, and of others the beginning says enough.
const MOST_TEXT: usize = 4_096;
/// What the exporter says of itself is not exported: each failure would make another record. What libraries say is not either.
const OURS: &str = "jeton";
const EXPORTER: &str = "jeton_telemetry";

/// Where a line belongs: the trace and the span under which its task works.
pub type TraceIds = fn() -> Option<(u128, u64)>;

/// Takes a line with its end, and must not block.
pub type Writer = Box<dyn Fn(&[u8]) + Send + Sync>;

/// Writes lines as JSON, exports them, or both.
pub struct Lines {
    json: Option<Writer>,
    export: Option<Queue<LogRecord>>,
    trace: TraceIds,
}

/// The members of a span.
struct Members(Map<String, Value>);

/// One line.
struct Line {
    at: SystemTime,
    level: Level,
    target: String,
    message: String,
    /// The event's own, and those of the spans around it that it has not: the inner ones first.
    members: Map<String, Value>,
    trace: Option<(u128, u64)>,
}

impl Lines {
    /// For whatever `json` and `export` are there for.
    pub(crate) fn new(export: Option<Queue<LogRecord>>, trace: TraceIds) -> Self {
        Self { json: None, export, trace }
    }

    /// Lines are written as well.
    #[must_use]
    pub fn to(self, writer: Writer) -> Self {
        Self { json: Some(writer), ..self }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("export", &self.export).finish_non_exhaustive()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut members = Map::new();
        attributes.record(&mut Reading { members: &mut members, message: &mut String::new() });
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Members(members));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(Members(members)) = span.extensions_mut().get_mut()
        {
            values.record(&mut Reading { members, message: &mut String::new() });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let target = event.metadata().target();
        let export = self.export.as_ref().filter(|_| is_exported(target));
        if self.json.is_none() && export.is_none() {
            return;
        }
        let line = Line::of(event, context.event_scope(event), (self.trace)());
        if let Some(write) = &self.json {
            write(line.json().as_bytes());
        }
        if let Some(queue) = export {
            queue.put(line.record());
        }
    }
}

fn is_exported(target: &str) -> bool {
    target.starts_with(OURS) && !target.starts_with(EXPORTER)
}

impl Line {
    fn of<'a, S: LookupSpan<'a>>(
        event: &Event<'_>,
        scope: Option<Scope<'a, S>>,
        trace: Option<(u128, u64)>,
    ) -> Self {
        let (mut members, mut message) = (Map::new(), String::new());
        event.record(&mut Reading { members: &mut members, message: &mut message });
        for span in scope.into_iter().flatten() {
            if let Some(Members(around)) = span.extensions().get() {
                for (key, value) in around {
                    members.entry(key).or_insert_with(|| value.clone());
                }
            }
        }
        let (level, target) = (*event.metadata().level(), event.metadata().target().to_owned());
        Self { at: SystemTime::now(), level, target, message, members, trace }
    }

    /// One line, with its end. What says when and where comes first, and is over members that have the same name.
    fn json(&self) -> String {
        let since = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let at = Wall::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)).rfc3339();
        let mut first: Vec<(&str, Value)> = vec![
            ("timestamp", at.into()),
            ("level", self.level.as_str().into()),
            ("message", self.message.as_str().into()),
            ("target", self.target.as_str().into()),
        ];
        if let Some((trace, span)) = self.trace {
            first.push(("trace_id", format!("{trace:032x}").into()));
            first.push(("span_id", format!("{span:016x}").into()));
        }
        let more = self.members.iter().filter(|(key, _)| !first.iter().any(|(known, _)| known == key));
        let all =
            first.iter().map(|(key, value)| (*key, value)).chain(more.map(|(key, value)| (&**key, value)));
        let members: Vec<_> = all.map(|(key, value)| format!("{}:{value}", Value::from(key))).collect();
        format!("{{{}}}\n", members.join(","))
    }

    fn record(&self) -> LogRecord {
        let at = nanos(self.at);
        let (trace, span) = self.trace.unzip();
        let target = keyed("target", any(&self.target.as_str().into()));
        let members = self.members.iter().map(|(key, value)| keyed(key, any(value)));
        LogRecord {
            time_unix_nano: at,
            observed_time_unix_nano: at,
            severity_number: severity(self.level) as i32,
            severity_text: self.level.as_str().into(),
            body: Some(any(&self.message.as_str().into())),
            attributes: members.chain([target]).collect(),
            trace_id: trace.map_or_else(Vec::new, |id| id.to_be_bytes().into()),
            span_id: span.map_or_else(Vec::new, |id| id.to_be_bytes().into()),
            // Who has ids here is recorded.
            flags: u32::from(trace.is_some()),
            ..LogRecord::default()
        }
    }
}

fn severity(level: Level) -> SeverityNumber {
    match level {
        Level::ERROR => SeverityNumber::Error,
        Level::WARN => SeverityNumber::Warn,
        Level::INFO => SeverityNumber::Info,
        Level::DEBUG => SeverityNumber::Debug,
        _ => SeverityNumber::Trace,
    }
}

/// Fields, as they come.
struct Reading<'a> {
    members: &'a mut Map<String, Value>,
    message: &'a mut String,
}

impl Reading<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.members.insert(field.name().into(), value.into());
    }
}

impl Visit for Reading<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = format!("{value:?}");
        text.truncate(text.floor_char_boundary(MOST_TEXT));
        match field.name() {
            "message" => *self.message = text,
            _ => self.put(field, text),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let text = &value[..value.floor_char_boundary(MOST_TEXT)];
        match field.name() {
            "message" => text.clone_into(self.message),
            _ => self.put(field, text),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::{Registry, layer::SubscriberExt};

    use super::*;

    static WRITTEN: Mutex<Vec<Value>> = Mutex::new(vec![]);

    fn keep(line: &[u8]) {
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
        WRITTEN.lock().unwrap().push(serde_json::from_slice(line).unwrap());
    }

    #[test]
    fn a_line_is_one_flat_object_with_what_its_spans_say_and_the_event_itself_over_them() {
        let lines = Lines { json: Some(Box::new(keep)), export: None, trace: || Some((0xab, 0xcd)) };
        tracing::subscriber::with_default(Registry::default().with(lines), || {
            let outer = tracing::error_span!("request", principal = "unix://n/uid/1", correlation_id = "c-1");
            let _outer = outer.entered();
            let inner = tracing::error_span!("item", correlation_id = "c-2", later = tracing::field::Empty);
            inner.record("later", 7);
            let _inner = inner.entered();
            tracing::warn!(target: "jeton_x", failures = 3_u64, done = false, level = "mine", "two\nlines of {}", "text");
            tracing::warn!(target: "jeton_x", correlation_id = "c-3", long = "ü".repeat(9_000), "own");
        });
        let written = std::mem::take(&mut *WRITTEN.lock().unwrap());
        let [first, second] = &written[..] else { panic!("{written:?}") };
        let mut first = first.clone();
        let at = first.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert!(at.as_str().unwrap().ends_with('Z') && at.as_str().unwrap().len() == 24, "{at}");
        let expected = serde_json::json!({
            "level": "WARN", "target": "jeton_x", "message": "two\nlines of text", "failures": 3, "done": false,
            "principal": "unix://n/uid/1", "correlation_id": "c-2", "later": 7,
            "trace_id": format!("{:032x}", 0xab), "span_id": format!("{:016x}", 0xcd),
        });
        assert_eq!(first, expected);
        assert_eq!(
            (&second["correlation_id"], second["long"].as_str().unwrap().len()),
            (&"c-3".into(), 4_096)
        );
    }

    #[test]
    fn what_the_exporter_and_libraries_say_is_not_exported() {
        assert!(is_exported("jeton") && is_exported("jeton_engine::flight"));
        for target in ["jeton_telemetry::otlp::export", "h2::client", "hyper_util", "tonic"] {
            assert!(!is_exported(target), "{target}");
        }
    }
}
