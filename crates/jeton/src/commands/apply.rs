//! `jeton apply` and `jeton export`: the broker's state as a file.
//!
//! The file says what shall be there. What is missing is made, what differs is changed, and what is not in the file is left
//! alone unless `--prune` says otherwise. The differences are printed before anything is done.

mod file;
mod plan;
mod planes;
mod wanted;

use std::path::PathBuf;

use anyhow::Context;

use super::{Common, read_given};
use crate::{
    exit::Misuse,
    output::{self, Format},
};
use file::StateFile;
use plan::plan;
use planes::Planes;
use wanted::checked;

/// `jeton apply`
#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArguments {
    #[command(flatten)]
    common: Common,
    /// The file (TOML); - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Print the differences and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Also remove what is not in the file: role assignments, identities, workloads and their system-assigned identities
    #[arg(long)]
    prune: bool,
}

/// `jeton export`
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    common: Common,
}

/// Makes the state what the file says.
pub(crate) async fn apply(arguments: ApplyArguments) -> anyhow::Result<()> {
    let file: StateFile = toml::from_str(&read_given(&arguments.file)?)
        .map_err(|e| Misuse(format!("{} is not a state file: {e}", arguments.file.display())))?;
    let mut planes = Planes::open(&arguments.common.broker).await?;
    let present = planes.read().await?;
    let steps = plan(&present.state, &checked(file, &present, arguments.prune)?, arguments.prune);
    if steps.is_empty() {
        return output::text("nothing to change\n");
    }
    for step in &steps {
        output::text(&format!("{step}\n"))?;
    }
    if arguments.dry_run {
        return Ok(());
    }
    for step in steps {
        let what = step.to_string();
        planes.take(step).await.with_context(|| format!("{what}: failed; what stands above it is done"))?;
    }
    output::text("done\n")
}

/// Prints the state as a file.
pub(crate) async fn export(arguments: ExportArguments) -> anyhow::Result<()> {
    let present = Planes::open(&arguments.common.broker).await?.read().await?.state;
    match arguments.common.output {
        Format::Table => output::text(&toml::to_string_pretty(&present)?),
        Format::Json => Format::Json.one(&present, |_| vec![]),
    }
}
