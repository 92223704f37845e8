//! What the commands print: tables for people, JSON for programs.
#![allow(clippy::print_stdout, reason = "this is where the program prints")]

use std::io::Write;

use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;

/// `-o`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table, or a line for each fact
    #[default]
    Table,
    /// JSON
    Json,
}

impl Format {
    /// Prints one thing: its JSON, or lines of `name value`.
    pub(crate) fn one<T: Serialize>(
        self,
        value: &T,
        facts: impl FnOnce(&T) -> Vec<(&'static str, String)>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Json => json(value),
            Self::Table => {
                let facts = facts(value);
                let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                let lines = facts.iter().filter(|(_, text)| !text.is_empty());
                text(&lines.map(|(name, text)| format!("{name:<width$}  {text}\n")).collect::<String>())
            }
        }
    }

    /// Prints many things of one kind.
    pub(crate) fn many<T: Serialize>(
        self,
        values: &[T],
        heads: &[&'static str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Json => json(&values),
            Self::Table => {
                let rows: Vec<_> = values.iter().map(row).collect();
                text(&table(heads, &rows))
            }
        }
    }
}

fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    text(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints a text as it is. A reader that went away (`| head`) is no error.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Ends when whoever reads the output goes away (`| head`). Never, where it is no pipe.
pub(crate) async fn reader_gone() {
    let (tell, told) = tokio::sync::oneshot::channel();
    // On a thread of its own, which goes with the process: a task would keep the runtime from ending.
    std::thread::spawn(move || {
        let stdout = std::io::stdout();
        let mut waited = [PollFd::new(&stdout, PollFlags::empty())];
        let gone = PollFlags::ERR | PollFlags::HUP;
        while poll(&mut waited, None).is_ok() {
            if waited[0].revents().intersects(gone) {
                // Nobody waits for it any more if the command is done.
                let _ = tell.send(());
                return;
            }
        }
    });
    if told.await.is_err() {
        std::future::pending().await
    }
}

fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(|h| h.to_uppercase()).collect();
    let width = |i: usize| {
        rows.iter().chain([&heads]).map(|r| r.get(i).map_or(0, |c| c.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded: Vec<_> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    [&heads].into_iter().chain(rows).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["identities/a".into(), "ACTIVE".into()], vec!["b".into(), "X".into()]];
        assert_eq!(
            table(&["name", "state"], &rows),
            "NAME          STATE\nidentities/a  ACTIVE\nb             X\n"
        );
    }
}
