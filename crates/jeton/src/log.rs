//! Logs: human text on a terminal, JSON for machines; to standard error, so that output stays clean. And to a collector, where somebody
//! wants that.

use std::io::IsTerminal;

use jeton_core::Problem;
use jeton_telemetry::{Environment, Exports, Logs};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::config::Settings;

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogSettings {
    /// A level, or directives such as `info,jeton_engine=debug`.
    pub(crate) filter: String,
    /// `auto` (text on a terminal, else JSON), `text` or `json`.
    pub(crate) format: Format,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Auto,
    Text,
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: "info".into(), format: Format::Auto }
    }
}

impl LogSettings {
    pub(crate) fn validate(&self) -> Vec<Problem> {
        let parsed = EnvFilter::try_new(&self.filter);
        parsed
            .err()
            .map(|e| {
                Problem::new(
                    "filter",
                    format!("{e}; expected a level or directives such as info,jeton_engine=debug"),
                )
            })
            .into_iter()
            .collect()
    }

    /// Starts logging for the rest of the process, to a collector too where the exports say so. Later calls change nothing, and give a
    /// filter that filters nothing.
    pub(crate) fn start(&self, exports: Exports) -> (Filter, Exporting) {
        let (filter, handle) = reload::Layer::new(self.env_filter());
        let json = match self.format {
            Format::Auto => !std::io::stderr().is_terminal(),
            Format::Text => false,
            Format::Json => true,
        };
        let (lines, logs) = jeton_telemetry::logs(&exports, trace_ids);
        // A line that cannot be written is lost; to complain about it on the same full disk would end the process.
        let text = || fmt::layer().with_writer(std::io::stderr).log_internal_errors(false).with_target(false);
        let lines = if json { Some(lines.to_stderr()) } else { logs.is_some().then_some(lines) };
        let filtered = Registry::default().with(filter);
        // A second start keeps the first: there is nothing to do about it.
        let _ = filtered.with(lines).with((!json).then(text)).try_init();
        exports.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        (Filter(Some(handle)), Exporting { exports, logs })
    }

    fn env_filter(&self) -> EnvFilter {
        EnvFilter::try_new(&self.filter).unwrap_or_else(|_| EnvFilter::new("info"))
    }
}

/// Where a broker exports its signals.
pub(crate) fn exports(settings: &Settings) -> Exports {
    Environment::of_process().exports(&settings.telemetry.otlp)
}

/// Of the span under which the present task works.
fn trace_ids() -> Option<(u128, u64)> {
    jeton_trace::current().context().map(|context| (context.trace_id, context.span_id))
}

/// Where signals are exported, for whoever owns the exports.
#[derive(Debug, Default)]
pub(crate) struct Exporting {
    pub(crate) exports: Exports,
    /// What the log hands over.
    pub(crate) logs: Option<Logs>,
}

/// What lines are written; it can be changed. Without a log it is of no use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter(Option<reload::Handle<EnvFilter, Registry>>);

impl Filter {
    pub(crate) fn replace(&self, settings: &LogSettings) {
        if let Some(handle) = &self.0 {
            // It fails where the log is gone, and with it whoever could be told.
            let _ = handle.reload(settings.env_filter());
        }
    }
}
