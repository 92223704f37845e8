//! The rules that a compiler does not check. Each rule answers with what it found; anything found fails the run.

mod edges;
mod names;
mod sizes;
mod texts;

use std::{path::Path, process::Command};

use anyhow::{Context, bail};

/// One breach, in words for whoever must mend it.
pub(crate) type Finding = String;

/// Checks everything and reports all findings at once.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let files = tracked(root)?;
    let mut findings = edges::check(root)?;
    findings.extend(names::check(root, &files)?);
    findings.extend(texts::check(root, &files)?);
    sizes::report(root, &files)?;
    for finding in &findings {
        println!("tidy: {finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("tidy: {} files in order", files.len());
    Ok(())
}

/// Every file that git tracks or would track, relative to the root.
fn tracked(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git ls-files")?;
    let listed = String::from_utf8(output.stdout).context("file names are UTF-8")?;
    Ok(listed.lines().filter(|name| root.join(name).is_file()).map(str::to_owned).collect())
}
