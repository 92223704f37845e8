//! Which crate may know which. A port lives with its consumer and an adapter knows the consumers whose ports it fills, never
//! another adapter; so the list is short and stands here whole.

use std::{path::Path, process::Command};

use anyhow::Context;
use serde_json::Value;

use super::Finding;

/// Normal dependencies between our crates. Whatever is not listed may know no crate of ours.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("jeton-core", &[]),
    ("jeton-proto", &[]),
    ("jeton-sandbox", &[]),
    ("jeton-trace", &[]),
    ("jeton-http", &["jeton-trace"]),
    ("jeton-testkit", &["jeton-core"]),
    ("jeton-audit", &["jeton-core"]),
    ("jeton-engine", &["jeton-core", "jeton-trace"]),
    ("jeton-lifecycle", &["jeton-core", "jeton-trace"]),
    ("jeton-access", &["jeton-core"]),
    ("jeton-keys", &["jeton-core", "jeton-lifecycle", "jeton-trace"]),
    ("jeton-authority", &["jeton-core", "jeton-engine", "jeton-http", "jeton-lifecycle", "jeton-trace"]),
    ("jeton-telemetry", &["jeton-core", "jeton-http", "jeton-trace"]),
    ("jeton-issuers", &["jeton-access", "jeton-core", "jeton-http"]),
    ("jeton-store", &["jeton-core", "jeton-engine", "jeton-lifecycle", "jeton-access"]),
    (
        "jeton-server",
        &["jeton-core", "jeton-engine", "jeton-lifecycle", "jeton-access", "jeton-proto", "jeton-trace"],
    ),
    ("jeton-client", &["jeton-proto"]),
    ("jeton-console", &["jeton-proto"]),
    ("loadtest", &["jeton-proto"]),
    (
        "benches",
        &[
            "jeton-core",
            "jeton-engine",
            "jeton-lifecycle",
            "jeton-access",
            "jeton-keys",
            "jeton-proto",
            "jeton-server",
            "jeton-telemetry",
            "jeton-trace",
        ],
    ),
    (
        "jeton",
        &[
            "jeton-core",
            "jeton-engine",
            "jeton-lifecycle",
            "jeton-access",
            "jeton-audit",
            "jeton-keys",
            "jeton-authority",
            "jeton-issuers",
            "jeton-store",
            "jeton-server",
            "jeton-sandbox",
            "jeton-telemetry",
            "jeton-console",
            "jeton-proto",
            "jeton-trace",
        ],
    ),
];

/// Crates that must not be in any build: the whole tree has one crypto backend, aws-lc-rs.
const BANNED: &[&str] = &["ring", "openssl", "openssl-sys", "native-tls", "rsa", "p256"];

pub(super) fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut findings = between_crates(root)?;
    for banned in BANNED {
        findings.extend(in_some_build(root, banned)?);
    }
    Ok(findings)
}

fn between_crates(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata prints JSON")?;
    let packages = metadata["packages"].as_array().context("packages")?;
    Ok(packages.iter().flat_map(edges_of).collect())
}

fn edges_of(package: &Value) -> Vec<Finding> {
    let name = package["name"].as_str().unwrap_or_default();
    let allowed = MAY_KNOW.iter().find(|(from, _)| *from == name).map_or(&[][..], |(_, to)| to);
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    dependencies
        .filter(|d| d["kind"].is_null())
        .filter_map(|d| d["name"].as_str())
        .filter(|to| (*to == "jeton" || to.starts_with("jeton-")) && !allowed.contains(to))
        .map(|to| format!("{name} must not know {to}: see the direction of dependencies in ARCHITECTURE.md"))
        .collect()
}

fn in_some_build(root: &Path, banned: &str) -> anyhow::Result<Option<Finding>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--target", "all", "-e", "all", "--locked", "-i", banned])
        .current_dir(root)
        .output()
        .context("cargo tree")?;
    // Not in the lock file at all: cargo says so and fails, which is what we want.
    let tree = String::from_utf8_lossy(&output.stdout);
    Ok((output.status.success() && !tree.trim().is_empty())
        .then(|| format!("{banned} is in some build; one crypto backend only:\n{tree}")))
}
