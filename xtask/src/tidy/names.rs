//! Words that say nothing about a thing, and `unsafe`.

use std::{fs, path::Path};

use anyhow::Context;

use super::Finding;

const EMPTY_WORDS: &[&str] = &["manager", "helper", "util", "handler"];

/// Where a name is given by somebody else: the methods of generated service traits, and of an SDK's.
const GIVEN_NAMES: &[&str] = &[
    "benches/src/stock.rs",
    "crates/jeton-client/src/azure.rs",
    "crates/jeton-client/tests/",
    "crates/jeton-server/src/grpc/",
    "crates/jeton-server/tests/",
    "loadtest/src/baseline.rs",
];

pub(super) fn check(root: &Path, files: &[String]) -> anyhow::Result<Vec<Finding>> {
    let mut findings = vec![];
    for name in files.iter().filter(|name| name.ends_with(".rs") && !name.starts_with("xtask/src/tidy")) {
        let text = fs::read_to_string(root.join(name)).with_context(|| name.clone())?;
        let stem = Path::new(name).file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        if let Some(word) = EMPTY_WORDS.iter().find(|w| stem.contains(**w)) {
            findings.push(format!("{name}: a file called {word} says nothing about what is in it"));
        }
        let given = GIVEN_NAMES.iter().any(|prefix| name.starts_with(prefix));
        for (number, line) in text.lines().enumerate() {
            let at = || format!("{name}:{}", number + 1);
            let code = line.trim_start();
            if code.starts_with("//") {
                continue;
            }
            if declares_getter(code) && !given {
                findings.push(format!("{}: name what it returns, without get_", at()));
            }
            if let Some(word) =
                declared_type(code).and_then(|t| EMPTY_WORDS.iter().find(|w| t.to_lowercase().contains(**w)))
            {
                findings.push(format!("{}: a type called {word} says nothing about what it does", at()));
            }
            if code.starts_with("unsafe ") || code.contains(" unsafe {") {
                findings.push(format!("{}: unsafe code is forbidden", at()));
            }
        }
    }
    Ok(findings)
}

fn declares_getter(code: &str) -> bool {
    let rest = code.trim_start_matches("pub(crate) ").trim_start_matches("pub ").trim_start_matches("async ");
    rest.starts_with("fn get_")
}

fn declared_type(code: &str) -> Option<&str> {
    let rest = code.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
    ["struct ", "enum ", "trait "]
        .iter()
        .find_map(|keyword| rest.strip_prefix(keyword))?
        .split([' ', '<', '(', ';', '{'])
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn getters_and_empty_type_names_are_seen() {
        assert!(declares_getter("pub async fn get_token(") && !declares_getter("fn getter("));
        assert_eq!(declared_type("pub struct TokenManager<T> {"), Some("TokenManager"));
        assert_eq!(declared_type("let x = 1;"), None);
    }
}
