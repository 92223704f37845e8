//! `jeton apply` and `jeton export`: the broker's state as a file.
//!
//! The file says what shall be there. What is missing is made, what differs is changed, and what is not in the file is left
//! alone unless `--prune` says otherwise. The differences are printed before anything is done.

mod file;
mod plan;

use std::{io::Read, path::PathBuf};

use anyhow::Context;

use super::{Common, read_text};
use crate::output::{self, Format};
use file::StateFile;
use plan::{Planes, plan};

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
    /// Also remove what is not in the file: role assignments, identities, workloads
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
    let text = if arguments.file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text)?;
        text
    } else {
        read_text(&arguments.file)?
    };
    let wanted: StateFile =
        toml::from_str(&text).with_context(|| format!("{} is not a state file", arguments.file.display()))?;
    let mut planes = Planes::open(&arguments.common.broker).await?;
    let present = planes.read().await?;
    let steps = plan(&present, &wanted, arguments.prune)?;
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
    let present = Planes::open(&arguments.common.broker).await?.read().await?;
    match arguments.common.output {
        Format::Table => output::text(&toml::to_string_pretty(&present)?),
        Format::Json => Format::Json.one(&present, |_| vec![]),
    }
}
