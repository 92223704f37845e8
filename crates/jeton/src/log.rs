//! Logs: human text on a terminal, JSON for machines; to standard error, so that output stays clean.

use std::io::IsTerminal;

use jeton_core::Problem;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

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

    /// Starts logging for the rest of the process. Later calls change nothing, and give a filter that filters nothing.
    pub(crate) fn start(&self) -> Filter {
        let (filter, handle) = reload::Layer::new(self.env_filter());
        let json = match self.format {
            Format::Auto => !std::io::stderr().is_terminal(),
            Format::Text => false,
            Format::Json => true,
        };
        // A line that cannot be written is lost; to complain about it on the same full disk would end the process.
        let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
        let filtered = Registry::default().with(filter);
        // A second start keeps the first: there is nothing to do about it.
        let _ = if json {
            filtered.with(lines.json().flatten_event(true)).try_init()
        } else {
            filtered.with(lines.with_target(false)).try_init()
        };
        Filter(Some(handle))
    }

    fn env_filter(&self) -> EnvFilter {
        EnvFilter::try_new(&self.filter).unwrap_or_else(|_| EnvFilter::new("info"))
    }
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
