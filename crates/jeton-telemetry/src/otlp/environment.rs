//! OpenTelemetry's variables, read to its specification. What they say of one signal is over what they say of all.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use url::Url;

use super::export::Counts;
use crate::{OtlpSettings, Signal, resource::pairs};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_EXPORT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_QUEUE: usize = 2_048;
const DEFAULT_BATCH: usize = 512;
/// What may wait, whatever the variables say.
const MOST_QUEUED: usize = 100_000;

/// Variables whose names begin with `OTEL_`. Some hold secrets.
#[derive(Clone, Default)]
pub struct Environment(HashMap<String, String>);

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// HTTP with protobuf.
    HttpProtobuf,
    /// HTTP with JSON.
    HttpJson,
}

/// Which sums begin anew with each push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temporality {
    Cumulative,
    /// Counters and histograms.
    Delta,
    /// Histograms.
    LowMemory,
}

/// Where a signal is exported, and how.
#[derive(Clone)]
pub struct Otlp {
    /// Which.
    pub signal: Signal,
    /// How.
    pub protocol: Protocol,
    /// Where; over gRPC its path means nothing.
    pub endpoint: Url,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Of one request.
    pub(crate) timeout: Duration,
    pub(crate) gzip: bool,
    pub(crate) ca_file: Option<String>,
    pub(crate) client_certificate: Option<(String, String)>,
    /// Of metrics.
    pub(crate) temporality: Temporality,
    /// Between two pushes of metrics; the longest that a span or a log record waits for others.
    pub(crate) interval: Duration,
    /// Of one export with its repetitions.
    pub(crate) export_timeout: Duration,
    /// Spans or log records that may wait.
    pub(crate) max_queued: usize,
    /// Those that go together.
    pub(crate) max_batch: usize,
}

/// Where each signal is exported; none: nowhere.
#[derive(Debug, Clone, Default)]
pub struct Exports {
    /// Metrics.
    pub metrics: Option<Otlp>,
    /// Traces.
    pub traces: Option<Otlp>,
    /// Logs.
    pub logs: Option<Otlp>,
    /// What could not be understood and was left out, as the specification wants; for the log.
    pub warnings: Vec<String>,
    counts: [Arc<Counts>; Signal::ALL.len()],
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Otlp");
        shown.field("signal", &self.signal).field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl Exports {
    /// What became of a signal's exports.
    pub(crate) fn counts(&self, signal: Signal) -> Arc<Counts> {
        Arc::clone(&self.counts[signal as usize])
    }
}

impl Protocol {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "grpc" => Self::Grpc,
            "http/protobuf" => Self::HttpProtobuf,
            "http/json" => Self::HttpJson,
            _ => return None,
        })
    }

    fn port(self) -> u16 {
        if self == Self::Grpc { 4317 } else { 4318 }
    }
}

impl Environment {
    /// Of this process.
    pub fn of_process() -> Self {
        let text = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::of(text)
    }

    /// These. An empty value is as good as none.
    pub fn of<N: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        let all = variables.into_iter().map(|(name, value)| (name.into(), value.into().trim().to_owned()));
        Self(all.filter(|(name, value)| name.starts_with("OTEL_") && !value.is_empty()).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// The exporters that `OTEL_{signal}_EXPORTER` lists; none: it is not set.
    fn exporters(&self, signal: Signal) -> Option<Vec<&str>> {
        let listed = self.get(&format!("OTEL_{}_EXPORTER", signal.variable()))?;
        Some(listed.split(',').map(str::trim).collect())
    }

    /// The address for a Prometheus server to pull from, where the variables alone ask for one.
    pub fn prometheus_address(&self) -> Option<String> {
        if self.is_true("OTEL_SDK_DISABLED") || !self.exporters(Signal::Metrics)?.contains(&"prometheus") {
            return None;
        }
        let host = self.get("OTEL_EXPORTER_PROMETHEUS_HOST").unwrap_or("localhost");
        let host = if host == "localhost" { "127.0.0.1" } else { host };
        let host =
            if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.into() };
        Some(format!("{host}:{}", self.get("OTEL_EXPORTER_PROMETHEUS_PORT").unwrap_or("9464")))
    }

    /// Where each signal is exported, by these variables and settings.
    pub fn exports(&self, settings: &OtlpSettings) -> Exports {
        let mut exports = Exports::default();
        let mut of = |signal| Reading { of: self, signal, settings, warnings: &mut exports.warnings }.otlp();
        (exports.metrics, exports.traces, exports.logs) =
            (of(Signal::Metrics), of(Signal::Traces), of(Signal::Logs));
        exports
    }
}

/// The variables as one signal sees them.
struct Reading<'a> {
    of: &'a Environment,
    signal: Signal,
    settings: &'a OtlpSettings,
    warnings: &'a mut Vec<String>,
}

impl<'a> Reading<'a> {
    fn otlp(mut self) -> Option<Otlp> {
        let asked = self.is_asked_for();
        // Whoever says where the log goes wants it there.
        let usual = self.settings.exports(self.signal)
            || self.signal == Signal::Logs && self.own_endpoint().is_some();
        if self.of.is_true("OTEL_SDK_DISABLED") || !asked.unwrap_or(usual) {
            return None;
        }
        let protocol = self.protocol();
        let endpoint = self.endpoint(protocol, asked == Some(true));
        if endpoint.is_none() && self.settings.logs && self.signal == Signal::Logs {
            self.warn("telemetry.otlp.logs is on and no collector is named: set telemetry.otlp.endpoint, or OTEL_EXPORTER_OTLP_ENDPOINT".into());
        }
        let endpoint = endpoint?;
        let certificate = self.exporter("CLIENT_CERTIFICATE").1.zip(self.exporter("CLIENT_KEY").1);
        let (prefix, every, interval) = match self.signal {
            Signal::Metrics => ("OTEL_METRIC", "EXPORT_INTERVAL", 60_000),
            Signal::Traces => ("OTEL_BSP", "SCHEDULE_DELAY", 5_000),
            Signal::Logs => ("OTEL_BLRP", "SCHEDULE_DELAY", 1_000),
        };
        let named = |name: &str| (format!("{prefix}_{name}"), self.of.get(&format!("{prefix}_{name}")));
        let [every, within] = [every, "EXPORT_TIMEOUT"].map(named);
        let [queued, batch] = ["MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE"].map(named);
        let max_queued = self.number(queued, DEFAULT_QUEUE);
        let timeout = self.exporter("TIMEOUT");
        Some(Otlp {
            signal: self.signal,
            protocol,
            endpoint,
            headers: self.headers(),
            timeout: self.millis(timeout, DEFAULT_TIMEOUT),
            gzip: self.gzip(),
            ca_file: self.exporter("CERTIFICATE").1.map(Into::into),
            client_certificate: certificate.map(|(certificate, key)| (certificate.into(), key.into())),
            temporality: self.temporality(),
            interval: self.millis(every, Duration::from_millis(interval)),
            export_timeout: self.millis(within, DEFAULT_EXPORT_TIMEOUT),
            max_queued,
            max_batch: self.number(batch, DEFAULT_BATCH).min(max_queued),
        })
    }

    /// Once, although three signals may meet the same.
    fn warn(&mut self, text: String) {
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    /// What is said of this signal is over what is said of all. With the variable's name.
    fn exporter(&self, name: &str) -> (String, Option<&'a str>) {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{name}", self.signal.variable());
        let of_all = format!("OTEL_EXPORTER_OTLP_{name}");
        let variable = if self.of.get(&own).is_some() { own } else { of_all };
        let value = self.of.get(&variable);
        (variable, value)
    }

    /// Whether `OTEL_{signal}_EXPORTER` names OTLP; none: it is not set.
    fn is_asked_for(&mut self) -> Option<bool> {
        let exporters = self.of.exporters(self.signal)?;
        let known: &[&str] = match self.signal {
            Signal::Metrics => &["otlp", "prometheus", "none"],
            Signal::Traces | Signal::Logs => &["otlp", "none"],
        };
        for unknown in exporters.iter().filter(|exporter| !known.contains(exporter)) {
            self.warn(format!(
                "OTEL_{}_EXPORTER names {unknown:?}, which this broker does not have: {}",
                self.signal.variable(),
                known.join(", ")
            ));
        }
        Some(exporters.contains(&"otlp"))
    }

    fn protocol(&mut self) -> Protocol {
        let (variable, value) = self.exporter("PROTOCOL");
        let Some(text) = given(&self.settings.protocol).or(value) else { return Protocol::HttpProtobuf };
        Protocol::parse(text).unwrap_or_else(|| {
            self.warn(format!("{variable} is {text:?}; http/protobuf is used"));
            Protocol::HttpProtobuf
        })
    }

    fn own_endpoint(&self) -> Option<&'a str> {
        self.of.get(&format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", self.signal.variable()))
    }

    /// A URL that is for one signal alone is taken as it is. None: there is none, and nobody asked for the default one.
    fn endpoint(&mut self, protocol: Protocol, asked: bool) -> Option<Url> {
        let own = self.own_endpoint().filter(|_| self.settings.endpoint.is_empty());
        let text = own
            .or_else(|| given(&self.settings.endpoint))
            .or_else(|| self.of.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
            .map(str::to_owned)
            .or_else(|| asked.then(|| format!("http://localhost:{}", protocol.port())))?;
        let scheme = match self.exporter("INSECURE").1 {
            _ if text.contains("://") => "",
            Some(value) if value.eq_ignore_ascii_case("true") => "http://",
            _ => "https://",
        };
        // gRPC's targets may come without a scheme.
        let whole = scheme.is_empty() || protocol == Protocol::Grpc;
        let url = Url::parse(&format!("{scheme}{text}")).ok();
        let url = url.filter(|u| whole && matches!(u.scheme(), "http" | "https") && u.has_host());
        let Some(mut url) = url else {
            // What stands before an @ or behind a ? may be a secret.
            let shown = text.rsplit('@').next().and_then(|rest| rest.split('?').next()).unwrap_or_default();
            let signal = self.signal.as_str();
            self.warn(format!(
                "{signal} are exported nowhere: {shown:?} is no URL of a collector, such as http://collector:4318"
            ));
            return None;
        };
        if own.is_none() && protocol != Protocol::Grpc {
            url.set_path(&format!("{}/v1/{}", url.path().trim_end_matches('/'), self.signal.as_str()));
        }
        Some(url)
    }

    /// Those of one signal are over those of all, by name.
    fn headers(&mut self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = http::HeaderMap::new();
        let own = format!("OTEL_EXPORTER_OTLP_{}_HEADERS", self.signal.variable());
        for variable in ["OTEL_EXPORTER_OTLP_HEADERS", &own] {
            for (position, pair) in pairs(self.of.get(variable).unwrap_or_default()) {
                let header = pair.and_then(|(name, value)| {
                    Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(&value).ok()?))
                });
                let Some((name, mut value)) = header else {
                    // Whatever stands there may be a secret.
                    self.warn(format!(
                        "{variable} has no header as number {position} of its list, and none is sent for it: name=value, percent-encoded"
                    ));
                    continue;
                };
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        headers.into_iter().filter_map(|(name, value)| Some((name?, value))).collect()
    }

    fn gzip(&mut self) -> bool {
        let (variable, value) = self.exporter("COMPRESSION");
        match value {
            Some("gzip") => true,
            None | Some("none") => false,
            Some(other) => {
                self.warn(format!("{variable} is {other:?}; nothing is compressed: gzip or none"));
                false
            }
        }
    }

    fn temporality(&mut self) -> Temporality {
        if self.signal != Signal::Metrics {
            return Temporality::Cumulative;
        }
        if let Some(other) = self.of.get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION")
            && !other.eq_ignore_ascii_case("explicit_bucket_histogram")
        {
            self.warn(format!(
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION is {other:?}; histograms here have explicit buckets"
            ));
        }
        let given = self.of.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE").unwrap_or("cumulative");
        match given.to_ascii_lowercase().as_str() {
            "cumulative" => Temporality::Cumulative,
            "delta" => Temporality::Delta,
            "lowmemory" => Temporality::LowMemory,
            _ => {
                self.warn(format!(
                    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE is {given:?}; cumulative is used"
                ));
                Temporality::Cumulative
            }
        }
    }

    fn millis(&mut self, (name, value): (String, Option<&str>), default: Duration) -> Duration {
        let Some(text) = value else { return default };
        match text.parse::<u64>() {
            Ok(millis) if millis > 0 => Duration::from_millis(millis),
            _ => {
                let default_millis = default.as_millis();
                self.warn(format!(
                    "{name} is {text:?}, and no number of milliseconds; {default_millis} is used"
                ));
                default
            }
        }
    }

    fn number(&mut self, (name, value): (String, Option<&str>), default: usize) -> usize {
        let Some(text) = value else { return default };
        match text.parse::<usize>() {
            Ok(number) if (1..=MOST_QUEUED).contains(&number) => number,
            _ => {
                self.warn(format!(
                    "{name} is {text:?}, and no number from 1 to {MOST_QUEUED}; {default} is used"
                ));
                default
            }
        }
    }
}

fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
