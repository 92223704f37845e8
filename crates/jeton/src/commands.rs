//! The administrative commands: each a thin client of the API, so that whatever they do, any program can do.

pub(crate) mod access;
pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod authority;
pub(crate) mod backup;
pub(crate) mod console;
pub(crate) mod env;
pub(crate) mod events;
pub(crate) mod identity;
mod in_use;
pub(crate) mod seal;
mod shown;
mod standing;
pub(crate) mod status;
pub(crate) mod token;
mod trust;
pub(crate) mod workload;

use std::{collections::HashMap, fs::File, io::Read, path::Path};

use secrecy::{ExposeSecret, SecretString};

use crate::{exit::Misuse, output::Format, reach::Whereabouts};

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) broker: Whereabouts,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table", global = true)]
    pub(crate) output: Format,
}

/// Most entries fetched at once; lists go on until the end.
const PAGE: i32 = 500;

/// The id of a name: `billing` and `identities/billing` are both understood.
fn id_of<'a>(name: &'a str, collection: &str) -> &'a str {
    name.strip_prefix(collection).unwrap_or(name)
}

/// The whole name.
fn full(name: &str, collection: &str) -> String {
    if name.starts_with(collection) || name.is_empty() {
        name.to_owned()
    } else {
        format!("{collection}{name}")
    }
}

/// What an assignment is on: the whole name of an identity or a group, or everything.
fn scope(text: &str) -> String {
    if text == "*" { text.to_owned() } else { full(text, "identities/") }
}

/// `key=value`
fn label(text: &str) -> Result<(String, String), String> {
    let split = text.split_once('=').filter(|(key, _)| !key.is_empty());
    split.map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or_else(|| format!("{text:?} is not key=value"))
}

fn labels(given: &[(String, String)]) -> HashMap<String, String> {
    given.iter().cloned().collect()
}

/// More than any certificate, secret or state file has; without a bound /dev/zero would fill the memory.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

fn read_text(path: &Path) -> Result<String, Misuse> {
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    read_bounded(file).map_err(|e| unreadable(path, &e))
}

/// A file, or standard input where it is called `-`.
fn read_given(path: &Path) -> Result<String, Misuse> {
    if path.as_os_str() == "-" {
        read_bounded(std::io::stdin().lock()).map_err(|e| unreadable(Path::new("standard input"), &e))
    } else {
        read_text(path)
    }
}

fn read_bounded(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    let read = from.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)? as u64;
    if read > MAX_FILE_BYTES { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Misuse {
    Misuse(format!("{} cannot be read: {error}", path.display()))
}

/// A secret from a file; the newline that editors add is not part of it.
fn read_secret(path: &Path) -> Result<SecretString, Misuse> {
    let text = SecretString::from(read_text(path)?);
    let trimmed = text.expose_secret().trim_end_matches(['\r', '\n']).to_owned();
    if trimmed.is_empty() { Err(Misuse(format!("{} is empty", path.display()))) } else { Ok(trimmed.into()) }
}

/// The absolute path of a file that the broker itself reads, from its own working directory.
fn absolute(path: &Path) -> Result<String, Misuse> {
    path.canonicalize().map(|p| p.display().to_string()).map_err(|e| unreadable(path, &e))
}
