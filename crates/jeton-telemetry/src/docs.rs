//! The page that documents the table.

use std::fmt::Write;

use crate::{Attribute, INSTRUMENTS, Instrument, Kind, Values, prometheus_name};

const INTRODUCTION: &str = "# Metrics

Generated from the table in `crates/jeton-telemetry/src/instruments.rs`; `JETON_UPDATE_DOCS=1 cargo test -p jeton-telemetry reference`
writes it anew.

They are pulled as Prometheus text from `/metrics` of the listener `telemetry.metrics_listen` (in `endpoints.json`: `metrics`), and
pushed by OTLP where a collector is named: by `[telemetry.otlp]`, or by OpenTelemetry's variables. `/livez` and `/readyz` are beside
`/metrics`. Names are OpenTelemetry's; Prometheus shows the second one. Cumulative values begin anew with the process. What is gathered is
at most one second old.

No metric holds a secret, a token or a caller's name. Series of single identities are those of `telemetry.named_identities` and the
`telemetry.worst_identities` that are worst off; of authorities, the first thousand are told apart and the others are `_other`.

";

/// The page.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for instrument in INSTRUMENTS {
        // Writing to a text cannot fail.
        let _ = write!(page, "{}", section(instrument));
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn section(instrument: &Instrument) -> String {
    let kind = match instrument.kind {
        Kind::Counter => "counter",
        Kind::UpDownCounter => "up-down counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let Instrument { name, unit, says, advice, .. } = instrument;
    let mut text = format!(
        "## `{name}`\n\n`{}`: {kind}, unit `{unit}`.\n\n{says}\n\n{advice}\n\n",
        prometheus_name(instrument)
    );
    for Attribute { key, values, optional } in instrument.attributes {
        let values = match values {
            Values::Of(values) => values.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", "),
            Values::Bounded(by) => (*by).to_owned(),
        };
        let absent = if *optional { "; it may be absent" } else { "" };
        let _ = writeln!(text, "- `{key}`: {values}{absent}");
    }
    if !instrument.attributes.is_empty() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_on_file_is_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        if std::env::var_os("JETON_UPDATE_DOCS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let known = std::fs::read_to_string(path).unwrap();
        assert!(known == reference(), "docs/metrics.md says how to write it anew");
    }

    #[test]
    fn no_two_instruments_share_a_name_and_each_says_what_it_is() {
        let mut names: Vec<_> = INSTRUMENTS.iter().map(|i| prometheus_name(i)).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        for Instrument { name, says, advice, attributes, .. } in INSTRUMENTS {
            assert!(says.ends_with('.') && advice.ends_with('.'), "{name}");
            let own = ["jeton.", "rpc.", "http.", "process.", "url.", "error.type", "cpu.mode"];
            for key in attributes.iter().map(|a| a.key).chain([*name]) {
                assert!(own.iter().any(|prefix| key.starts_with(prefix)), "{key}");
            }
        }
    }
}
