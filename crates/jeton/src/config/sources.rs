//! Where a setting comes from: one TOML file, under the environment, under `--set`.
//!
//! The sources are merged as plain tables before anything is typed, and every leaf remembers its origin. So an unknown key or a
//! wrong type is reported with the file and line, the variable or the flag that brought it, and all of them at once.

use std::{collections::BTreeMap, fmt, path::Path};

use toml::{Table, Value};

/// The prefix of environment variables: `JETON__ENGINE__MAX_ENTRIES=1000`.
pub(crate) const ENVIRONMENT_PREFIX: &str = "JETON__";

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    File { path: String, line: usize },
    Environment(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value with its origin, under its dotted key.
pub(crate) type Given = BTreeMap<String, (Value, Origin)>;

/// Something wrong with a source itself or with a key in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) origin: String,
    pub(crate) message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// The leaves of a TOML file.
pub(crate) fn from_file(path: &Path, given: &mut Given, faults: &mut Vec<Fault>) {
    let shown = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) => return faults.push(Fault { origin: shown, message: format!("cannot be read: {e}") }),
    };
    match text.parse::<Table>() {
        Ok(table) => {
            for (key, value) in leaves("", &table) {
                let line = line_of(&text, &key);
                given.insert(key, (value, Origin::File { path: shown.clone(), line }));
            }
        }
        Err(e) => {
            let line = e.span().map_or(0, |span| text[..span.start].lines().count().max(1));
            faults.push(Fault {
                origin: format!("{shown}:{line}"),
                message: format!("not valid TOML: {}", e.message()),
            });
        }
    }
}

/// The leaves that environment variables give.
pub(crate) fn from_environment(variables: impl Iterator<Item = (String, String)>, given: &mut Given) {
    for (name, text) in variables {
        if let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) {
            let key = rest.to_lowercase().replace("__", ".");
            given.insert(key, (scalar(&text), Origin::Environment(name)));
        }
    }
}

/// The leaves that `--set section.key=value` gives.
pub(crate) fn from_flags(flags: &[String], given: &mut Given, faults: &mut Vec<Fault>) {
    for flag in flags {
        match flag.split_once('=') {
            Some((key, text)) => {
                given.insert(key.trim().to_owned(), (scalar(text), Origin::Flag("--set")));
            }
            None => faults.push(Fault {
                origin: "--set".into(),
                message: format!("{flag:?} is not section.key=value, such as engine.max_entries=1000"),
            }),
        }
    }
}

/// A text as TOML reads it, or as itself where TOML would want quotes.
fn scalar(text: &str) -> Value {
    format!("x = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("x"))
        .unwrap_or_else(|| Value::String(text.into()))
}

/// Every value that is no table, under its dotted key.
pub(crate) fn leaves(prefix: &str, table: &Table) -> Vec<(String, Value)> {
    let under = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    table
        .iter()
        .flat_map(|(key, value)| match value {
            Value::Table(inner) if !inner.is_empty() => leaves(&under(key), inner),
            leaf => vec![(under(key), leaf.clone())],
        })
        .collect()
}

/// The line of a key, found in the text: the section's header, then the key below it.
fn line_of(text: &str, dotted: &str) -> usize {
    let (section, key) = dotted.rsplit_once('.').unwrap_or(("", dotted));
    let mut inside = section.is_empty();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            inside = header.trim_end_matches(']').trim() == section;
        } else if inside && line.split('=').next().map(str::trim) == Some(key) {
            return number + 1;
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_variable_names_section_and_key() {
        let mut given = Given::new();
        let variables =
            [("JETON__ENGINE__MAX_ENTRIES", "5"), ("PATH", "/bin"), ("JETON__NODE__NAME", "east-1")];
        from_environment(variables.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter(), &mut given);
        assert_eq!(given["engine.max_entries"].0, Value::Integer(5));
        assert_eq!(given["node.name"].0, Value::String("east-1".into()));
        assert_eq!(given.len(), 2);
    }

    #[test]
    fn a_file_remembers_the_line_of_each_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jeton.toml");
        std::fs::write(&path, "[node]\n# a remark\nname = \"a\"\n\n[engine]\nmax_entries = 5\n").unwrap();
        let (mut given, mut faults) = (Given::new(), vec![]);
        from_file(&path, &mut given, &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        let shown = path.display().to_string();
        assert_eq!(given["engine.max_entries"].1, Origin::File { path: shown.clone(), line: 6 });
        assert_eq!(given["node.name"].1, Origin::File { path: shown, line: 3 });
    }

    #[test]
    fn a_flag_without_a_value_is_a_fault() {
        let (mut given, mut faults) = (Given::new(), vec![]);
        from_flags(&["engine.max_entries".into(), "node.name=b".into()], &mut given, &mut faults);
        assert_eq!((given.len(), faults.len()), (1, 1));
    }
}
