//! What is said in the terminal, and the reports beside it.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use rustix::fs::{Access, access};

use crate::{html, report::Report};

/// Where reports go beside the terminal.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Output {
    /// Write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Output {
    /// Whether all of it can be written, as far as that is known before there is something to write. Changes nothing.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.json.is_none() || self.json != self.html,
            "--json and --html name the same file: give each its own"
        );
        for (option, file) in [("--json", &self.json), ("--html", &self.html)] {
            let Some(file) = file else { continue };
            writable(file).with_context(|| {
                format!("{option} {}: no report can be written there; give a file in a folder that exists and that you may write", file.display())
            })?;
        }
        Ok(())
    }

    pub(crate) fn write(&self, title: &str, notes: &[String], reports: &[Report]) -> anyhow::Result<()> {
        let put = |path: &Path, text: String| {
            fs::write(path, text).with_context(|| format!("writing {}", path.display()))
        };
        if let Some(path) = &self.json {
            put(path, serde_json::to_string_pretty(reports)?)?;
        }
        if let Some(path) = &self.html {
            put(path, html::page(title, notes, reports))?;
        }
        Ok(())
    }
}

/// Says what came out. A reader that went away (`| head`) is no error.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to standard output"),
    }
}

/// Says something meanwhile. Where nobody reads it, nothing is lost.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn writable(file: &Path) -> std::io::Result<()> {
    let folder = || match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    match fs::metadata(file) {
        Ok(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(_) => Ok(access(file, Access::WRITE_OK)?),
        // A name that ends so is a folder's, also where there is none.
        Err(_) if file.as_os_str().as_encoded_bytes().ends_with(b"/") => Err(ErrorKind::IsADirectory.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(access(folder(), Access::WRITE_OK | Access::EXEC_OK)?)
        }
        Err(error) => Err(error),
    }
}
