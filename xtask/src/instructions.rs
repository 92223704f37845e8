//! What a token from memory costs the processor, counted and not timed, so that a noisy machine can watch it: instructions and allocations.
//!
//! Callgrind and DHAT run `hits` twice each; what the longer run does more is hits alone. The kernel's part is not in it.

use std::{fmt::Write, fs, path::Path, process::Command};

use anyhow::{Context, bail, ensure};

/// With a line for each of [`KINDS`].
const INSTRUCTIONS: &str = "benches/instructions-per-hit.txt";
/// Of the first of [`KINDS`]. Ten are asked for at once, so one more in a turn of their connection shows as well as one more in a hit.
const ALLOCATIONS: &str = "benches/allocations-per-ten-hits.txt";
const FEWER: u64 = 1_000;
const MORE: u64 = 6_000;
/// In percent.
const TOLERATED: u64 = 5;
/// What metrics, sampled traces and the log may cost a hit, in percent.
const TELLING: u64 = 10;
/// With role assignments of others, beside which a caller with a certificate is compared with one without.
const KINDS: [&[&str]; 4] = [&["plain"], &["telemetry"], &["tls"], &["mtls", "10000"]];

/// Counts, and compares with the figures on file, or writes them there.
pub(crate) fn run(update: bool) -> anyhow::Result<()> {
    // As it ships.
    let status = Command::new("cargo")
        .args(["build", "--locked", "--release", "-p", "benches", "--bin", "hits"])
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "hits does not build");
    let mut counts = vec![];
    for kind in KINDS {
        let count = more("callgrind", kind, instructions)? / (MORE - FEWER);
        println!("{}: {count} instructions a hit", kind.join(" "));
        counts.push(count);
    }
    let [plain, telling, unnamed, named] = counts[..] else { bail!("there are four kinds") };
    ensure!(telling * 100 <= plain * (100 + TELLING), "telemetry makes a hit more than {TELLING} % dearer");
    ensure!(
        named * 100 <= unnamed * (100 + TOLERATED),
        "client certificates and role assignments make a hit more than {TOLERATED} % dearer"
    );
    // What buffers and maps took to grow is a small part of one, and falls away.
    let allocations = more("dhat", KINDS[0], blocks)? * 10 / (MORE - FEWER);
    println!("{allocations} allocations in ten hits");
    if update {
        let mut lines = String::new();
        KINDS.iter().zip(&counts).try_for_each(|(kind, count)| writeln!(lines, "{} {count}", kind[0]))?;
        fs::write(INSTRUCTIONS, lines)?;
        fs::write(ALLOCATIONS, format!("{allocations}\n"))?;
        println!("written to {INSTRUCTIONS} and {ALLOCATIONS}");
        return Ok(());
    }
    compare_instructions(&counts)?;
    compare_allocations(allocations)
}

fn compare_instructions(counts: &[u64]) -> anyhow::Result<()> {
    let file = fs::read_to_string(INSTRUCTIONS).with_context(|| format!("reading {INSTRUCTIONS}"))?;
    for (kind, count) in KINDS.iter().zip(counts) {
        let of = |line: &str| line.split_once(' ').filter(|(name, _)| name == &kind[0])?.1.parse().ok();
        let known: u64 = file
            .lines()
            .find_map(of)
            .with_context(|| format!("{INSTRUCTIONS} has no count of {}", kind[0]))?;
        ensure!(
            count * 100 <= known * (100 + TOLERATED),
            "{}: {count} instructions a hit, more than {TOLERATED} % over the {known} on file; if that is meant: cargo xtask instructions --update",
            kind[0],
        );
        if count * 100 < known * (100 - TOLERATED) {
            println!("{}: {count} are fewer than the {known} on file: {KEEP}", kind[0]);
        }
    }
    Ok(())
}

const KEEP: &str = "keep it so with cargo xtask instructions --update";

/// One more is one too many.
fn compare_allocations(count: u64) -> anyhow::Result<()> {
    let known = fs::read_to_string(ALLOCATIONS).with_context(|| format!("reading {ALLOCATIONS}"))?;
    let known: u64 = known.trim().parse().with_context(|| format!("{ALLOCATIONS} holds no number"))?;
    ensure!(
        count <= known,
        "{count} allocations in ten hits, and {known} on file; if that is meant: cargo xtask instructions --update"
    );
    if count < known {
        println!("{count} allocations are fewer than the {known} on file: {KEEP}");
    }
    Ok(())
}

/// What the longer run has more.
fn more(tool: &str, kind: &[&str], count: fn(&str) -> Option<u64>) -> anyhow::Result<u64> {
    let counted = |hits: u64| {
        let output = Command::new("valgrind")
            .arg(format!("--tool={tool}"))
            .arg(format!("--{tool}-out-file=/dev/null"))
            .arg(Path::new("target/release/hits"))
            .arg(hits.to_string())
            .args(kind)
            .output()
            .context("starting valgrind; Debian has it as a package of this name")?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "hits failed under {tool}:\n{told}");
        told.lines().find_map(count).with_context(|| format!("{tool} told no count:\n{told}"))
    };
    Ok(counted(MORE)? - counted(FEWER)?)
}

/// `==1== Collected : 26057413`
fn instructions(line: &str) -> Option<u64> {
    line.split_once("Collected : ")?.1.trim().parse().ok()
}

/// `==1== Total:     1,885,711 bytes in 6,587 blocks`
fn blocks(line: &str) -> Option<u64> {
    let blocks = line.split_once("Total:")?.1.strip_suffix(" blocks")?.rsplit(' ').next()?;
    blocks.replace(',', "").parse().ok()
}
