//! Logs: human text on a terminal, JSON for machines; to standard error, so that output stays clean. And to a collector, where somebody
//! wants that.
//!
//! A thread of its own writes: whoever reads standard error slowly, or not at all, must not hold up a request. Lines that find no room are
//! lost, as those for a collector are.

use std::{
    io::{IsTerminal, Write},
    sync::{Mutex, PoisonError},
};

use jeton_core::Problem;
use jeton_telemetry::{Environment, Exports, Logs};
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::config::Settings;

/// Lines that may wait to be written.
const MOST_WAITING: usize = 8_192;

/// Who writes, until the end of the process.
static WRITING: Mutex<Option<WorkerGuard>> = Mutex::new(None);

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
        let parsed = EnvFilter::try_new(&self.filter).map_err(|e| e.to_string());
        // For the library a word alone is the name of a crate, of which everything is shown and nothing of any other.
        let word = self.filter.split(',').map(str::trim).find(|part| {
            !part.contains(['=', '[']) && (part.is_empty() || part.parse::<LevelFilter>().is_err())
        });
        let wrong = parsed.err().or_else(|| word.map(|word| format!("{word:?} is no level")));
        let text = |e| {
            format!(
                "{e}; write off, error, warn, info, debug or trace, or directives such as info,jeton_engine=debug"
            )
        };
        wrong.map(|e| Problem::new("filter", text(e))).into_iter().collect()
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
        let (writer, writing) = NonBlockingBuilder::default()
            .buffered_lines_limit(MOST_WAITING)
            .thread_name("jeton-log")
            .finish(std::io::stderr());
        let colours = std::io::stderr().is_terminal();
        let plain = writer.clone();
        let text = || {
            fmt::layer().with_writer(plain).with_ansi(colours).log_internal_errors(false).with_target(false)
        };
        // A line that cannot be written is lost; to complain about it on the same full disk helps nobody.
        let write = move |line: &[u8]| _ = writer.clone().write_all(line);
        let lines = if json { Some(lines.to(Box::new(write))) } else { logs.is_some().then_some(lines) };
        let filtered = Registry::default().with(filter);
        // A second start keeps the first: there is nothing to do about it.
        if filtered.with(lines).with((!json).then(text)).try_init().is_ok() {
            *WRITING.lock().unwrap_or_else(PoisonError::into_inner) = Some(writing);
        }
        exports.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        (Filter(Some(handle)), Exporting { exports, logs })
    }

    /// The HTTP/2 library has a line for each odd frame of a peer, below errors: they come where the operator names it, or wants to see
    /// what everybody does.
    fn env_filter(&self) -> EnvFilter {
        let level = |part: &str| part.trim().parse::<LevelFilter>().ok();
        let everybody = self.filter.split(',').filter_map(level).any(|level| level > LevelFilter::INFO);
        let first = if everybody { "" } else { "h2=error," };
        EnvFilter::try_new(format!("{first}{}", self.filter))
            .unwrap_or_else(|_| EnvFilter::new("h2=error,info"))
    }
}

/// Waits until what was logged is written, a second at most.
pub(crate) fn end() {
    drop(WRITING.lock().unwrap_or_else(PoisonError::into_inner).take());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_would_silence_the_log_and_is_refused() {
        let problems = |filter: &str| LogSettings { filter: filter.into(), format: Format::Auto }.validate();
        for right in [
            "info",
            "WARN",
            "off",
            "info,jeton_engine=debug",
            "jeton_server=trace, error",
            "jeton[span]=debug",
        ] {
            assert_eq!(problems(right), [], "{right}");
        }
        for wrong in ["verbos", "", "info,jeton_engine", "jeton=loud"] {
            assert_eq!(problems(wrong).len(), 1, "{wrong}");
        }
        assert!(problems("verbos")[0].message.contains("\"verbos\" is no level"));
    }

    #[test]
    fn what_the_http_2_library_says_of_peers_comes_only_where_it_is_named() {
        #[derive(Clone, Default)]
        struct Lines(std::sync::Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Lines {
            fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(line)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let shown = |filter: &str| {
            let lines = Lines::default();
            let settings = LogSettings { filter: filter.into(), format: Format::Text };
            let writer = lines.clone();
            let text = fmt::layer().with_writer(move || writer.clone());
            tracing::subscriber::with_default(
                Registry::default().with(settings.env_filter()).with(text),
                || {
                    tracing::warn!(target: "h2::proto::ping_pong", "an odd frame");
                    tracing::error!(target: "h2::proto", "a fault");
                    tracing::info!("of the broker");
                },
            );
            let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            ["an odd frame", "a fault", "of the broker"].map(|text| lines.contains(text))
        };
        assert_eq!(shown("info"), [false, true, true]);
        assert_eq!(shown("info,jeton=debug"), [false, true, true]);
        assert_eq!(shown("info,h2=warn"), [true, true, true]);
        assert_eq!(shown("debug"), [true, true, true]);
        assert_eq!(shown("warn"), [false, true, false]);
    }
}
