//! Instructions of one hit: what a token from memory costs the processor, counted and not timed, so that a noisy machine can watch it.
//!
//! Callgrind runs `hits` twice; what the longer run does more is hits alone. The kernel's part is not in it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, bail, ensure};

const FILE: &str = "benches/instructions-per-hit.txt";
const FEWER: u64 = 1_000;
const MORE: u64 = 6_000;
/// In percent.
const TOLERATED: u64 = 5;
/// What metrics, sampled traces and the log may cost a hit, in percent.
const TELLING: u64 = 10;
/// Role assignments of others, beside which a caller with a certificate is compared with one without.
const ASSIGNMENTS: &str = "10000";

/// Counts, and compares with the figure on file, or writes it there.
pub(crate) fn run(update: bool) -> anyhow::Result<()> {
    let status = Command::new("cargo")
        .args(["build", "--locked", "--profile", "fast", "-p", "benches", "--bin", "hits"])
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "hits does not build");
    let count = a_hit(&["plain"])?;
    let telling = a_hit(&["telemetry"])?;
    println!("with telemetry {telling} instructions, without {count}");
    ensure!(telling * 100 <= count * (100 + TELLING), "telemetry makes a hit more than {TELLING} % dearer");
    let (unnamed, named) = (a_hit(&["tls"])?, a_hit(&["mtls", ASSIGNMENTS])?);
    println!(
        "with TLS {unnamed} instructions; with client certificates and {ASSIGNMENTS} role assignments {named}"
    );
    ensure!(
        named * 100 <= unnamed * (100 + TOLERATED),
        "client certificates and role assignments make a hit more than {TOLERATED} % dearer"
    );
    if update {
        fs::write(FILE, format!("{count}\n"))?;
        println!("{count} instructions a hit, written to {FILE}");
        return Ok(());
    }
    let known = fs::read_to_string(FILE).with_context(|| format!("reading {FILE}"))?;
    let known: u64 = known.trim().parse().with_context(|| format!("{FILE} holds no number"))?;
    println!("{count} instructions a hit; on file are {known}");
    if count * 100 > known * (100 + TOLERATED) {
        bail!(
            "a hit became more than {TOLERATED} % dearer; if that is meant: cargo xtask instructions --update"
        );
    }
    if count * 100 < known * (100 - TOLERATED) {
        println!("a hit became cheaper: keep it so with cargo xtask instructions --update");
    }
    Ok(())
}

/// Of one hit with these arguments.
fn a_hit(arguments: &[&str]) -> anyhow::Result<u64> {
    Ok((counted(MORE, arguments)? - counted(FEWER, arguments)?) / (MORE - FEWER))
}

fn counted(hits: u64, arguments: &[&str]) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(Path::new("target/fast/hits"))
        .arg(hits.to_string())
        .args(arguments)
        .output()
        .context("starting valgrind; Debian has it as a package of this name")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "hits failed under callgrind:\n{told}");
    let line = told.lines().find(|line| line.contains("Collected :"));
    let count = line.and_then(|line| line.rsplit(' ').next()).and_then(|count| count.parse().ok());
    count.with_context(|| format!("callgrind told no count:\n{told}"))
}
