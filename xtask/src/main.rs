//! The project's own chores: `cargo xtask tidy`.
#![allow(clippy::print_stdout, reason = "a command-line program")]

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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Tidy => tidy::run(),
    }
}
