//! What the project says of itself: no paths of somebody's machine, no links that lead nowhere.

use std::{fs, path::Path};

use super::Finding;

/// Parts of texts that have no place in the tree.
const FOREIGN: &[(&str, &str)] = &[
    ("/work/", "a path of one machine"),
    ("/root/", "a path of one machine"),
    ("../shared/", "a path outside the project"),
];

pub(super) fn check(root: &Path, files: &[String]) -> anyhow::Result<Vec<Finding>> {
    let mut findings = vec![];
    for name in files.iter().filter(|name| !name.starts_with("xtask/src/tidy") && !name.ends_with(".lock")) {
        // Binary files have no words in them.
        let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for (part, why) in FOREIGN.iter().filter(|(part, _)| line.contains(part)) {
                findings.push(format!("{name}:{}: {part:?} is {why}", number + 1));
            }
        }
        if name.ends_with(".md") {
            findings.extend(dead_links(root, name, &text));
        }
    }
    Ok(findings)
}

fn dead_links(root: &Path, name: &str, text: &str) -> Vec<Finding> {
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    links
        .filter(|link| !link.contains("://") && !link.starts_with('#') && !link.starts_with("mailto:"))
        .map(|link| link.split('#').next().unwrap_or(link))
        .filter(|link| !root.join(folder).join(link).exists())
        .map(|link| format!("{name}: the link to {link} leads nowhere"))
        .collect()
}
