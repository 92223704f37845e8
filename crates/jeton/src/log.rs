//! Logs: human text on a terminal, JSON for machines; to standard error, so that output stays clean.

use std::io::IsTerminal;

use jeton_core::Problem;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, fmt};

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

    /// Starts logging for the rest of the process. Later calls do nothing.
    pub(crate) fn start(&self) {
        let filter = EnvFilter::try_new(&self.filter).unwrap_or_else(|_| EnvFilter::new("info"));
        let json = match self.format {
            Format::Auto => !std::io::stderr().is_terminal(),
            Format::Text => false,
            Format::Json => true,
        };
        // A line that cannot be written is lost; to complain about it on the same full disk would end the process.
        let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
        // A second start keeps the first: there is nothing to do about it.
        let _ = if json {
            lines.json().flatten_event(true).try_init()
        } else {
            lines.with_target(false).try_init()
        };
    }
}
