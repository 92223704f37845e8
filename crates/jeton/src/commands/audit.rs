//! `jeton audit`: the log's files are read as they are, with a broker or without one.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use jeton_audit::{AuditPublicKey, FOLDER, KEY_FILE, Reader, Report, Wanted, verify};
use jeton_core::{Clock, SystemClock, Wall};
use serde_json::Value;

use super::{full, read_text};
use crate::{
    exit::Misuse,
    output::{self, Format},
};

/// How often new records are looked for.
const POLL: Duration = Duration::from_millis(200);
/// The exit code of a log that is not whole.
const BROKEN: u8 = 1;

/// `jeton audit`
#[derive(Debug, clap::Args)]
pub(crate) struct AuditArguments {
    /// The data directory of a broker, running or not
    #[arg(long, value_name = "DIR", default_value = "./.jeton", env = "JETON_DATA_DIR", global = true)]
    data_dir: PathBuf,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table", global = true)]
    output: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Check every number, hash and signature; exit code 0 whole, 1 not, with the place; 2 nothing to check
    Verify {
        /// Only these segments, in their order; repeatable
        #[arg(long = "file", value_name = "FILE")]
        files: Vec<PathBuf>,
        /// A copy of the head kept elsewhere: what it signs must be in the log
        #[arg(long, value_name = "FILE")]
        head: Option<PathBuf>,
        /// The public key kept elsewhere; else the one beside the log
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Show records, the oldest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// Only the last so many
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: usize,
    },
    /// Show the last records, and those that are written from now on
    Tail {
        #[command(flatten)]
        filter: Filter,
        /// So many of the past
        #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
        lines: usize,
        /// End after the last one
        #[arg(long)]
        no_follow: bool,
    },
    /// Print the public key that verifies the log
    Key,
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Only what this principal did
    #[arg(long)]
    principal: Option<String>,
    /// Only what was done with or to this identity, by name or uid
    #[arg(long)]
    identity: Option<String>,
    /// Only this kind: admin.change, key.step, token.served, assertion.sent, access.denied, or "log." for the log's own
    #[arg(long)]
    kind: Option<String>,
    /// Only this outcome: intent, ok, denied or failed
    #[arg(long)]
    outcome: Option<String>,
    /// Only this correlation id
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
    /// Only from then on: 2026-01-31T12:00:00Z, or so long ago: 90s, 15m, 6h, 7d
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(arguments: AuditArguments) -> anyhow::Result<ExitCode> {
    let (folder, output) = (arguments.data_dir.join(FOLDER), arguments.output);
    match arguments.verb {
        Verb::Verify { files, head, key } => {
            let key = public_key(&key.unwrap_or_else(|| folder.join(KEY_FILE)))?;
            let whole = files.is_empty().then_some(folder.as_path());
            let report = verify(whole, &files, head.as_deref(), &key).map_err(|e| Misuse(e.to_string()))?;
            match output {
                Format::Json => output.one(&report, |_| vec![])?,
                Format::Table => output::text(&screen(&report))?,
            }
            Ok(if report.intact { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) })
        }
        Verb::List { filter, limit } => {
            let records = last(&mut reader(&folder)?, &filter.wanted(), limit)?;
            let heads = ["time", "kind", "outcome", "principal", "what", "about", "more"];
            output.many(&records, &heads, row)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Tail { filter, lines, no_follow } => {
            let (mut reader, wanted) = (reader(&folder)?, filter.wanted());
            last(&mut reader, &wanted, lines)?.iter().try_for_each(|record| show(output, record))?;
            if !no_follow {
                tokio::select! {
                    ended = follow(&mut reader, &wanted, output) => ended?,
                    () = output::reader_gone() => {}
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Key => {
            output::text(&public_key(&folder.join(KEY_FILE))?.to_pem())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Filter {
    fn wanted(self) -> Wanted {
        let is_uid = |name: &String| name.len() == 36 && name.parse::<jeton_core::Uid>().is_ok();
        Wanted {
            principal: self.principal,
            identity: self.identity.map(|name| if is_uid(&name) { name } else { full(&name, "identities/") }),
            kind: self.kind,
            outcome: self.outcome,
            correlation_id: self.correlation,
            since: self.since,
        }
    }
}

/// A time, or so long ago.
fn since(text: &str) -> Result<String, String> {
    let unit = |unit| match unit {
        's' => Some(1_u64),
        'm' => Some(60),
        'h' => Some(3_600),
        'd' => Some(86_400),
        _ => None,
    };
    let ago = text.char_indices().next_back().and_then(|(at, last)| {
        let count = text[..at].parse::<u64>().ok()?;
        count.checked_mul(unit(last)?).filter(|seconds| *seconds < 1 << 40)
    });
    if let Some(seconds) = ago {
        return Ok((SystemClock.now().wall - Duration::from_secs(seconds)).rfc3339());
    }
    let at = text.parse::<prost_types::Timestamp>().ok().filter(|_| text.contains('T'));
    let at = at.ok_or_else(|| {
        format!("{text:?} is neither a time such as 2026-01-31T12:00:00Z nor so long ago: 90s, 15m, 6h, 7d")
    })?;
    Ok(Wall::from_millis(at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000).rfc3339())
}

fn public_key(path: &Path) -> Result<AuditPublicKey, Misuse> {
    let text = read_text(path).map_err(|e| {
        Misuse(format!("{e}; name the data directory of a broker that was started (--data-dir), or the key itself (--key)"))
    })?;
    AuditPublicKey::from_pem(&text).map_err(|e| Misuse(format!("{}: {e}", path.display())))
}

fn reader(folder: &Path) -> Result<Reader, Misuse> {
    if folder.is_dir() {
        return Ok(Reader::new(folder));
    }
    Err(Misuse(format!(
        "there is no audit log in {}; name the data directory of a broker that was started (--data-dir)",
        folder.display()
    )))
}

/// The last so many of those that fit.
fn last(reader: &mut Reader, wanted: &Wanted, most: usize) -> anyhow::Result<Vec<Value>> {
    let mut records = std::collections::VecDeque::new();
    reader.read(wanted, |record| {
        records.push_back(record);
        if records.len() > most {
            records.pop_front();
        }
        true
    })?;
    Ok(records.into())
}

async fn follow(reader: &mut Reader, wanted: &Wanted, output: Format) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(POLL).await;
        let mut shown = Ok(());
        reader.read(wanted, |record| {
            shown = show(output, &record);
            shown.is_ok()
        })?;
        shown?;
    }
}

fn show(output: Format, record: &Value) -> anyhow::Result<()> {
    match output {
        Format::Json => output::text(&format!("{record}\n")),
        Format::Table => output::text(&format!("{}\n", row(record).join("  ").trim_end())),
    }
}

fn row(record: &Value) -> Vec<String> {
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let resources = record["resources"].as_array().into_iter().flatten();
    let about: Vec<_> = resources.filter_map(|resource| resource["name"].as_str()).collect();
    let more = ["role", "target", "reason", "token", "detail", "correlation_id", "peer"];
    let more =
        more.iter().filter(|name| record[**name].is_string()).map(|name| format!("{name}={}", text(name)));
    let counts = ["count", "lost", "through", "bytes_cut"];
    let counts =
        counts.iter().filter(|name| record[**name].is_u64()).map(|name| format!("{name}={}", record[*name]));
    vec![
        text("at"),
        text("kind"),
        text("outcome"),
        text("principal"),
        text("method").rsplit_once('/').map_or_else(|| text("method"), |(_, method)| method.to_owned()),
        about.join(" "),
        counts.chain(more).collect::<Vec<_>>().join(" "),
    ]
}

fn screen(report: &Report) -> String {
    let mut screen = format!(
        "{}: {} records in {} segments, {} to {}\nsigned up to record {} at {}, key {}\n",
        if report.intact { "whole" } else { "NOT WHOLE" },
        report.records,
        report.segments,
        report.first,
        report.last,
        report.signed,
        report.signed_at,
        report.key
    );
    if report.lost > 0 {
        screen += &format!("{} frequent events were lost, as the broker recorded\n", report.lost);
    }
    for note in &report.notes {
        screen += &format!("note: {note}\n");
    }
    for finding in &report.findings {
        let line = if finding.line == 0 { String::new() } else { format!(":{}", finding.line) };
        screen +=
            &format!("! {}{line}: record {}: {}\n", finding.file.display(), finding.seq, finding.problem);
    }
    if report.more_findings > 0 {
        screen += &format!("and {} more\n", report.more_findings);
    }
    screen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_given_as_such_or_as_so_long_ago() {
        assert_eq!(since("2026-01-31T12:00:00Z").unwrap(), "2026-01-31T12:00:00.000Z");
        assert_eq!(since("2026-01-31T13:00:00+01:00").unwrap(), "2026-01-31T12:00:00.000Z");
        let hour = since("1h").unwrap();
        assert!(hour < SystemClock.now().wall.rfc3339() && hour > since("2h").unwrap());
        for wrong in ["", "h", "1y", "-1h", "99999999999999999999d", "yesterday", "2026-13-01T00:00:00Z"] {
            assert!(since(wrong).unwrap_err().contains("neither"), "{wrong}");
        }
    }
}
