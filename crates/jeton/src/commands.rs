//! The administrative commands: each a thin client of the API, so that whatever they do, any program can do.

pub(crate) mod access;
pub(crate) mod apply;
pub(crate) mod authority;
pub(crate) mod identity;
mod shown;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod workload;

use std::{collections::HashMap, path::Path};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use tonic::Status;
use tonic_types::StatusExt;

use crate::{output::Format, reach::Whereabouts};

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

/// A refusal in words: what was wrong, what to do, and by which id the operator finds more.
pub(crate) fn refusal(status: &Status) -> String {
    let details = status.get_error_details();
    let mut text = if status.message().is_empty() {
        format!("{:?}", status.code())
    } else {
        status.message().to_owned()
    };
    if let Some(info) = details.error_info() {
        text += &format!(" [{}]", info.reason);
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        text += &format!("; try again in {} ms", delay.as_millis());
    }
    text
}

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

/// `key=value`
fn label(text: &str) -> Result<(String, String), String> {
    let split = text.split_once('=').filter(|(key, _)| !key.is_empty());
    split.map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or_else(|| format!("{text:?} is not key=value"))
}

fn labels(given: &[(String, String)]) -> HashMap<String, String> {
    given.iter().cloned().collect()
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// A secret from a file; the newline that editors add is not part of it.
fn read_secret(path: &Path) -> anyhow::Result<SecretString> {
    let text = SecretString::from(read_text(path)?);
    let trimmed = text.expose_secret().trim_end_matches(['\r', '\n']).to_owned();
    anyhow::ensure!(!trimmed.is_empty(), "{} is empty", path.display());
    Ok(trimmed.into())
}
