//! OpenTelemetry's variables, read to its specification. What they say of one signal is over what they say of all.

use std::{collections::HashMap, fmt, time::Duration};

use http::{HeaderName, HeaderValue};
use url::Url;

use crate::{OtlpSettings, resource::pairs};

const EXPORTER: &str = "OTEL_EXPORTER_OTLP_";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_EXPORT_TIMEOUT: Duration = Duration::from_secs(30);

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

/// Where metrics are pushed, and how.
#[derive(Clone)]
pub struct Otlp {
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
    pub(crate) temporality: Temporality,
    pub(crate) interval: Duration,
    /// Of one push with its repetitions.
    pub(crate) export_timeout: Duration,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Otlp").field("protocol", &self.protocol).finish_non_exhaustive()
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

    /// Of the exporter of metrics.
    fn exporter(&self, name: &str) -> Option<&str> {
        let own = self.get(&format!("{EXPORTER}METRICS_{name}"));
        own.or_else(|| self.get(&format!("{EXPORTER}{name}")))
    }

    /// The exporters that `OTEL_METRICS_EXPORTER` lists; none: it is not set.
    fn exporters(&self) -> Option<Vec<&str>> {
        Some(self.get("OTEL_METRICS_EXPORTER")?.split(',').map(str::trim).collect())
    }

    /// The address for a Prometheus server to pull from, where the variables alone ask for one.
    pub fn prometheus_address(&self) -> Option<String> {
        if self.is_true("OTEL_SDK_DISABLED") || !self.exporters()?.contains(&"prometheus") {
            return None;
        }
        let host = self.get("OTEL_EXPORTER_PROMETHEUS_HOST").unwrap_or("localhost");
        let host = if host == "localhost" { "127.0.0.1" } else { host };
        let host =
            if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.into() };
        Some(format!("{host}:{}", self.get("OTEL_EXPORTER_PROMETHEUS_PORT").unwrap_or("9464")))
    }

    /// Where metrics are pushed; none: nowhere. What cannot be understood is said by `warn` and left out, as the specification wants.
    pub fn otlp(&self, settings: &OtlpSettings, warn: &mut dyn FnMut(String)) -> Option<Otlp> {
        let exporters = self.exporters().unwrap_or_default();
        for unknown in exporters.iter().filter(|e| !matches!(**e, "otlp" | "prometheus" | "none")) {
            warn(format!(
                "OTEL_METRICS_EXPORTER names {unknown:?}, which this broker does not have: otlp, prometheus or none"
            ));
        }
        let asked = exporters.contains(&"otlp");
        if self.is_true("OTEL_SDK_DISABLED") || !(exporters.is_empty() || asked) {
            return None;
        }
        let given = given(&settings.protocol).or_else(|| self.exporter("PROTOCOL"));
        let protocol =
            given.map(|text| Protocol::parse(text).ok_or(text)).transpose().unwrap_or_else(|text| {
                warn(format!("OTEL_EXPORTER_OTLP_PROTOCOL is {text:?}; http/protobuf is used"));
                None
            });
        let protocol = protocol.unwrap_or(Protocol::HttpProtobuf);
        let endpoint = match self.endpoint(settings, protocol, asked)? {
            Ok(endpoint) => endpoint,
            Err(text) => {
                warn(format!(
                    "metrics are pushed nowhere: {text:?} is no URL of a collector, such as http://collector:4318"
                ));
                return None;
            }
        };
        let certificate = self.exporter("CLIENT_CERTIFICATE").zip(self.exporter("CLIENT_KEY"));
        Some(Otlp {
            protocol,
            endpoint,
            headers: self.headers(warn),
            timeout: self.millis(
                self.exporter("TIMEOUT"),
                "OTEL_EXPORTER_OTLP_TIMEOUT",
                DEFAULT_TIMEOUT,
                warn,
            ),
            gzip: self.gzip(warn),
            ca_file: self.exporter("CERTIFICATE").map(Into::into),
            client_certificate: certificate.map(|(certificate, key)| (certificate.into(), key.into())),
            temporality: self.temporality(warn),
            interval: self.named_millis("OTEL_METRIC_EXPORT_INTERVAL", DEFAULT_INTERVAL, warn),
            export_timeout: self.named_millis("OTEL_METRIC_EXPORT_TIMEOUT", DEFAULT_EXPORT_TIMEOUT, warn),
        })
    }

    /// A URL that is for metrics alone is taken as it is. None: there is none, and nobody asked for the default one.
    fn endpoint(
        &self,
        settings: &OtlpSettings,
        protocol: Protocol,
        asked: bool,
    ) -> Option<Result<Url, String>> {
        let default = || asked.then(|| format!("http://localhost:{}", protocol.port()));
        let own = self.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT").filter(|_| settings.endpoint.is_empty());
        let text = match own {
            Some(own) => own.to_owned(),
            None => given(&settings.endpoint)
                .or_else(|| self.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
                .map(str::to_owned)
                .or_else(default)?,
        };
        let insecure = self.exporter("INSECURE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let text = match text.contains("://") {
            true => text,
            // gRPC's targets may come without a scheme.
            false if protocol == Protocol::Grpc => {
                format!("{}://{text}", if insecure { "http" } else { "https" })
            }
            false => return Some(Err(text)),
        };
        let url = Url::parse(&text).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        let Some(mut url) = url else { return Some(Err(text)) };
        if own.is_none() && protocol != Protocol::Grpc {
            url.set_path(&format!("{}/v1/metrics", url.path().trim_end_matches('/')));
        }
        Some(Ok(url))
    }

    /// Those of one signal are over those of all, by name.
    fn headers(&self, warn: &mut dyn FnMut(String)) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = http::HeaderMap::new();
        for variable in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS"] {
            for (name, value) in pairs(self.get(variable).unwrap_or_default()) {
                match (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
                    (Ok(name), Ok(mut value)) => {
                        value.set_sensitive(true);
                        headers.insert(name, value);
                    }
                    // The value may be a secret.
                    _ => warn(format!("{variable} has a header that cannot be sent, {name:?}")),
                }
            }
        }
        headers.into_iter().filter_map(|(name, value)| Some((name?, value))).collect()
    }

    fn gzip(&self, warn: &mut dyn FnMut(String)) -> bool {
        match self.exporter("COMPRESSION") {
            Some("gzip") => true,
            None | Some("none") => false,
            Some(other) => {
                warn(format!(
                    "OTEL_EXPORTER_OTLP_COMPRESSION is {other:?}; nothing is compressed: gzip or none"
                ));
                false
            }
        }
    }

    fn temporality(&self, warn: &mut dyn FnMut(String)) -> Temporality {
        if let Some(other) = self.get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION")
            && !other.eq_ignore_ascii_case("explicit_bucket_histogram")
        {
            warn(format!(
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION is {other:?}; histograms here have explicit buckets"
            ));
        }
        let given = self.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE").unwrap_or("cumulative");
        match given.to_ascii_lowercase().as_str() {
            "cumulative" => Temporality::Cumulative,
            "delta" => Temporality::Delta,
            "lowmemory" => Temporality::LowMemory,
            _ => {
                warn(format!(
                    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE is {given:?}; cumulative is used"
                ));
                Temporality::Cumulative
            }
        }
    }

    fn named_millis(&self, name: &str, default: Duration, warn: &mut dyn FnMut(String)) -> Duration {
        self.millis(self.get(name), name, default, warn)
    }

    fn millis(
        &self,
        given: Option<&str>,
        name: &str,
        default: Duration,
        warn: &mut dyn FnMut(String),
    ) -> Duration {
        let Some(text) = given else { return default };
        match text.parse::<u64>() {
            Ok(millis) if millis > 0 => Duration::from_millis(millis),
            _ => {
                warn(format!(
                    "{name} is {text:?}, and no number of milliseconds; {} is used",
                    default.as_millis()
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
