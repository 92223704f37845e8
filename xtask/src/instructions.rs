//! What a token from memory costs the processor, counted and not timed, so that a noisy machine can watch it: instructions and allocations.
//!
//! Callgrind and DHAT run `hits` twice each; what the longer run does more is hits alone. The kernel's part is not in it.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path, process::Command};

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

/// Of [`KINDS`]' first, where [`layers`] shows.
const PROFILE: &str = "target/hits.callgrind";

/// Counts, and compares with the figures on file, or writes them there; or tells which library a hit's instructions are in.
pub(crate) fn run(update: bool, by_layer: bool) -> anyhow::Result<()> {
    // As it ships.
    let status = Command::new("cargo")
        .args(["build", "--locked", "--release", "-p", "benches", "--bin", "hits"])
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "hits does not build");
    if by_layer {
        return layers();
    }
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
        let told = valgrind(tool, &[&format!("--{tool}-out-file=/dev/null")], hits, kind)?;
        told.lines().find_map(count).with_context(|| format!("{tool} told no count:\n{told}"))
    };
    Ok(counted(MORE)? - counted(FEWER)?)
}

/// What a tool told of so many hits.
fn valgrind(tool: &str, options: &[&str], hits: u64, kind: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("valgrind")
        .arg(format!("--tool={tool}"))
        .args(options)
        .arg(Path::new("target/release/hits"))
        .arg(hits.to_string())
        .args(kind)
        .output()
        .context("starting valgrind; Debian has it as a package of this name")?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "hits failed under {tool}:\n{told}");
    Ok(told)
}

/// Prints the instructions of a hit by the library whose functions they are in. What the compiler put into a caller counts as the caller's.
fn layers() -> anyhow::Result<()> {
    let counted = |hits| {
        let file = format!("--callgrind-out-file={PROFILE}");
        valgrind("callgrind", &[&file, "--compress-strings=no", "--compress-pos=no"], hits, KINDS[0])?;
        Ok::<_, anyhow::Error>(by_layer(
            &fs::read_to_string(PROFILE).context("reading what callgrind wrote")?,
        ))
    };
    let (fewer, mut layers) = (counted(FEWER)?, counted(MORE)?);
    for (layer, count) in &mut layers {
        *count = count.saturating_sub(fewer.get(layer).copied().unwrap_or(0)) / (MORE - FEWER);
    }
    let all: u64 = layers.values().sum();
    let mut layers: Vec<_> = layers.into_iter().filter(|(_, count)| *count > 0).collect();
    layers.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (layer, count) in layers {
        println!("{layer:<24} {count:>7} instructions a hit {:>5.1} %", 100.0 * count as f64 / all as f64);
    }
    Ok(())
}

/// Of a file of callgrind's: after `fn=` lines of a place and a cost; the one after `calls=` is what was called cost.
fn by_layer(profile: &str) -> BTreeMap<String, u64> {
    let (mut layers, mut layer, mut called) = (BTreeMap::new(), String::new(), false);
    for line in profile.lines() {
        if let Some(function) = line.strip_prefix("fn=") {
            layer = layer_of(function);
        } else if line.starts_with("calls=") {
            called = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit()) && !std::mem::take(&mut called) {
            let cost = line.rsplit(' ').next().and_then(|cost| cost.parse::<u64>().ok());
            *layers.entry(layer.clone()).or_default() += cost.unwrap_or(0);
        }
    }
    layers
}

/// The crate of a function; of what a crate's type drops, that crate. C has no paths.
fn layer_of(function: &str) -> String {
    let function = function.strip_prefix("core::ptr::drop_in_place").unwrap_or(function);
    let path = function
        .trim_start_matches(['<', '&', '(', '['])
        .trim_start_matches("mut ")
        .trim_start_matches("dyn ");
    match path.split_once("::") {
        Some(("core" | "alloc" | "std", _)) => "Rust's library".into(),
        Some((name, _)) => name.to_owned(),
        None => "C's library".into(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_counted_where_they_are_and_not_where_they_are_called_from() {
        let profile = "fl=a\nfn=<h2::proto::Streams<B> as core::ops::Drop>::drop\n1 20\ncfn=memcpy\ncalls=3 0\n2 500\n7 5\nfn=memcpy\n0 500\nfn=core::ptr::drop_in_place<h2::Frame>\n0 1\n";
        let layers = by_layer(profile);
        assert_eq!(layers, [("C's library".to_owned(), 500), ("h2".to_owned(), 26)].into());
    }
}
