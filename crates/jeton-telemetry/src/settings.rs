//! `[telemetry]`

use std::net::SocketAddr;

use jeton_core::{IdentityName, Problem};
use serde::{Deserialize, Serialize};

use crate::{Protocol, Signal, TracesSettings};

/// What is told, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// TCP address of `/metrics`, `/livez` and `/readyz`; empty: none. Whoever reaches it may read them.
    pub metrics_listen: String,
    /// Identities that always have series of their own.
    pub named_identities: Vec<String>,
    /// How many more have them: those that are worst off.
    pub worst_identities: usize,
    /// The collector to which signals are exported.
    pub otlp: OtlpSettings,
    /// Which traces are recorded.
    pub traces: TracesSettings,
}

/// `[telemetry.otlp]`; what is empty is as OpenTelemetry's variables say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpSettings {
    /// Its URL.
    pub endpoint: String,
    /// `grpc`, `http/protobuf` or `http/json`.
    pub protocol: String,
    /// Whether metrics go there, unless `OTEL_METRICS_EXPORTER` says it.
    pub metrics: bool,
    /// Whether traces do, unless `OTEL_TRACES_EXPORTER` says it.
    pub traces: bool,
    /// Whether the log and the audit log do, unless `OTEL_LOGS_EXPORTER` says it.
    pub logs: bool,
}

/// Series of single identities, of each kind.
const MOST_IDENTITIES: usize = 1_000;

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            metrics_listen: String::new(),
            named_identities: vec![],
            worst_identities: 10,
            otlp: OtlpSettings::default(),
            traces: TracesSettings::default(),
        }
    }
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self { endpoint: String::new(), protocol: String::new(), metrics: true, traces: true, logs: false }
    }
}

impl TelemetrySettings {
    /// Everything that is wrong.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = vec![];
        if !self.metrics_listen.is_empty() && self.metrics_address().is_none() {
            let text = "must be an address and a port such as 127.0.0.1:7431";
            problems.push(Problem::new("metrics_listen", text));
        }
        if let Some(wrong) = self.named_identities.iter().find(|name| name.parse::<IdentityName>().is_err()) {
            let text = format!("{wrong:?} is no identity's name, such as identities/payments");
            problems.push(Problem::new("named_identities", text));
        }
        if self.named_identities.len().saturating_add(self.worst_identities) > MOST_IDENTITIES {
            let text = format!("must be at most {MOST_IDENTITIES}, those of named_identities included");
            problems.push(Problem::new("worst_identities", text));
        }
        problems.extend(self.otlp.validate().into_iter().map(|problem| problem.within("otlp")));
        problems.extend(self.traces.validate().into_iter().map(|problem| problem.within("traces")));
        problems
    }

    /// The TCP address, if there is one.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_listen.parse().ok()
    }
}

impl OtlpSettings {
    pub(crate) fn exports(&self, signal: Signal) -> bool {
        match signal {
            Signal::Metrics => self.metrics,
            Signal::Traces => self.traces,
            Signal::Logs => self.logs,
        }
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems = vec![];
        let url = url::Url::parse(&self.endpoint);
        let fits = url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !self.endpoint.is_empty() && !fits {
            problems.push(Problem::new("endpoint", "must be a URL such as http://collector:4318"));
        }
        if !self.protocol.is_empty() && Protocol::parse(&self.protocol).is_none() {
            problems.push(Problem::new("protocol", "must be grpc, http/protobuf or http/json"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        assert_eq!(TelemetrySettings::default().validate(), []);
        let wrong = TelemetrySettings {
            metrics_listen: "7431".into(),
            named_identities: vec!["payments".into()],
            worst_identities: 1_000,
            otlp: OtlpSettings {
                endpoint: "collector:4318".into(),
                protocol: "udp".into(),
                ..OtlpSettings::default()
            },
            traces: TracesSettings { sampler: "jaeger_remote".into(), sampler_arg: "2".into() },
        };
        let keys: Vec<_> = wrong.validate().into_iter().map(|problem| problem.key).collect();
        let all = [
            "metrics_listen",
            "named_identities",
            "worst_identities",
            "otlp.endpoint",
            "otlp.protocol",
            "traces.sampler",
            "traces.sampler_arg",
        ];
        assert_eq!(keys, all);
    }
}
