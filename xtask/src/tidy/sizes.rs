//! How large the files are. Reported, not enforced: a limit that cannot be argued with makes bad cuts.

use std::{fs, path::Path};

use anyhow::Context;

const LARGE: usize = 400;

pub(super) fn report(root: &Path, files: &[String]) -> anyhow::Result<()> {
    let mut sizes = vec![];
    for name in files.iter().filter(|name| name.ends_with(".rs") && name.contains("/src/")) {
        let text = fs::read_to_string(root.join(name)).with_context(|| name.clone())?;
        let code = text.split("#[cfg(test)]").next().unwrap_or(&text);
        sizes.push((code.lines().filter(|line| !line.trim().is_empty()).count(), name));
    }
    sizes.sort_unstable();
    let median = sizes.get(sizes.len() / 2).map_or(0, |(lines, _)| *lines);
    println!("tidy: {} source files, median {median} lines", sizes.len());
    for (lines, name) in sizes.iter().rev().take_while(|(lines, _)| *lines > LARGE) {
        println!("tidy: {name} has {lines} lines; aim at under {LARGE}");
    }
    Ok(())
}
