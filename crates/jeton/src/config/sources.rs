//! Where a setting comes from: one TOML file, under the environment, under `--set`.
//!
//! The sources are merged as plain tables before anything is typed, and every leaf remembers its origin. So an unknown key or a
//! wrong type is reported with the file and line, the variable or the flag that brought it, and all of them at once.

use std::{collections::BTreeMap, ffi::OsString, fmt, path::Path};

use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

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
    let line_at = |at: usize| text[..at].matches('\n').count() + 1;
    let parsed = text.parse::<Table>().and_then(|table| Ok((table, DeTable::parse(&text)?)));
    match parsed {
        Ok((table, spanned)) => {
            let mut places = BTreeMap::new();
            places_of("", spanned.get_ref(), &mut places);
            for (key, value) in leaves("", &table) {
                let line = places.get(&key).map_or(1, |at| line_at(*at));
                given.insert(key, (value, Origin::File { path: shown.clone(), line }));
            }
        }
        Err(e) => {
            let line = e.span().map_or(1, |span| line_at(span.start));
            faults.push(Fault {
                origin: format!("{shown}:{line}"),
                message: format!("not valid TOML: {}", e.message()),
            });
        }
    }
}

/// Where each key stands, by its dotted name.
fn places_of(prefix: &str, table: &DeTable<'_>, places: &mut BTreeMap<String, usize>) {
    for (key, value) in table.iter() {
        let dotted = under(prefix, key.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            places_of(&dotted, inner, places);
        }
        places.insert(dotted, key.span().start);
    }
}

/// The leaves that environment variables give.
pub(crate) fn from_environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
    given: &mut Given,
    faults: &mut Vec<Fault>,
) {
    for (name, text) in variables {
        // A name with other characters is no key of ours, and is shown as far as it can be.
        let name = name.to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
        let key = rest.to_lowercase().replace("__", ".");
        let origin = Origin::Environment(name);
        match text.to_str() {
            Some(text) => drop(given.insert(key, (scalar(text), origin))),
            None => faults.push(Fault { origin: origin.to_string(), message: "is not UTF-8".into() }),
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
    table
        .iter()
        .flat_map(|(key, value)| match value {
            Value::Table(inner) if !inner.is_empty() => leaves(&under(prefix, key), inner),
            leaf => vec![(under(prefix, key), leaf.clone())],
        })
        .collect()
}

fn under(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_variable_names_section_and_key() {
        let (mut given, mut faults) = (Given::new(), vec![]);
        let variables =
            [("JETON__ENGINE__MAX_ENTRIES", "5"), ("PATH", "/bin"), ("JETON__NODE__NAME", "east-1")];
        let variables = variables.map(|(k, v)| (k.into(), v.into()));
        from_environment(variables.into_iter(), &mut given, &mut faults);
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
    fn a_key_is_found_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jeton.toml");
        let text = "\nengine.max_entries = 5\nnode = { name = \"a\" }\n\n[log]\n\"filter\" = \"info\"\n";
        std::fs::write(&path, text).unwrap();
        let (mut given, mut faults) = (Given::new(), vec![]);
        from_file(&path, &mut given, &mut faults);
        let line = |key: &str| given[key].1.to_string().rsplit(':').next().unwrap().to_owned();
        assert_eq!(["engine.max_entries", "node.name", "log.filter"].map(line), ["2", "3", "6"]);
        std::fs::write(&path, "[node]\nname = \"a\"\nname = \"b\"\n").unwrap();
        from_file(&path, &mut given, &mut faults);
        assert!(faults[0].origin.ends_with("jeton.toml:3"), "{faults:?}");
    }

    #[test]
    fn a_flag_without_a_value_is_a_fault() {
        let (mut given, mut faults) = (Given::new(), vec![]);
        from_flags(&["engine.max_entries".into(), "node.name=b".into()], &mut given, &mut faults);
        assert_eq!((given.len(), faults.len()), (1, 1));
    }
}
