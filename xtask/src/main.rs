//! The project's own chores: `cargo xtask help` lists them.
#![allow(clippy::print_stdout, reason = "a command-line program")]

mod instructions;
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The project's own chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Checks the rules of the house: edges between crates, crypto backends, names, links; reports sizes.
    Tidy,
    /// Counts the instructions of one hit with callgrind; fails if they became many more than those on file.
    Instructions {
        /// Write the count to the file instead
        #[arg(long)]
        update: bool,
        /// Tell which libraries a plain hit's instructions are in, and compare nothing
        #[arg(long, conflicts_with = "update")]
        layers: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Tidy => tidy::run(),
        Chore::Instructions { update, layers } => instructions::run(update, layers),
    }
}
