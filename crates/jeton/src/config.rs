//! The process's settings: read, merged, checked, and every error at once.
//!
//! Each section is a struct of the crate that uses it, with its defaults and its `validate`. Here they are only put together. The
//! known keys are those of the defaults, so a section that grows a field needs no word here.

mod settings;
mod sources;

use std::{fmt, path::PathBuf};

use jeton_core::Problem;
use toml::{Table, Value};

pub(crate) use settings::{Settings, path_or};
use sources::{Fault, Given, Origin};

/// What the command line says about configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Sources {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, over the file and the environment: section.key=value
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// The data directory; over the key `data_dir`
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Everything that is wrong with the configuration.
#[derive(Debug)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    /// One fault that only the command can see.
    pub(crate) fn one(key: &str, message: &str) -> Self {
        Self(vec![Fault { origin: "configuration".into(), message: format!("{key}: {message}") }])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} error(s)", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}

impl Sources {
    /// Reads and checks all sources, on top of `base`.
    pub(crate) fn load(&self, base: &Settings) -> Result<Settings, Faults> {
        self.load_with(base, std::env::vars())
    }

    fn load_with(
        &self,
        base: &Settings,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Settings, Faults> {
        let (mut given, mut faults) = (Given::new(), vec![]);
        if let Some(path) = &self.config {
            sources::from_file(path, &mut given, &mut faults);
        }
        sources::from_environment(variables, &mut given);
        sources::from_flags(&self.set, &mut given, &mut faults);
        if let Some(folder) = &self.data_dir {
            let value = Value::String(folder.display().to_string());
            given.insert("data_dir".into(), (value, Origin::Flag("--data-dir")));
        }
        let merged = merge(base, &given, &mut faults);
        // What could be merged is checked as well, so that all errors come in one go.
        let settings = match merged.try_into::<Settings>() {
            Ok(settings) => settings,
            Err(e) => {
                faults.push(Fault { origin: "configuration".into(), message: e.message().to_owned() });
                return Err(Faults(faults));
            }
        };
        faults.extend(settings.validate().into_iter().map(|problem| located(problem, &given)));
        if faults.is_empty() { Ok(settings) } else { Err(Faults(faults)) }
    }
}

/// Puts the given values over the defaults; unknown keys and wrong types become faults.
fn merge(base: &Settings, given: &Given, faults: &mut Vec<Fault>) -> Table {
    let mut table = base.to_table();
    for (key, (value, origin)) in given {
        let fault = |message| Fault { origin: origin.to_string(), message };
        match slot(&mut table, key) {
            None => faults.push(fault(format!("unknown key {key}{}", nearest(base, key)))),
            Some(Value::Table(_)) => faults.push(fault(format!("{key} is a section, not a value"))),
            Some(known) => match fit(value, known) {
                Some(value) => *known = value,
                None => faults.push(fault(format!(
                    "{key} must be {}, such as {known}; this is {}",
                    described(known),
                    described(value)
                ))),
            },
        }
    }
    table
}

fn slot<'a>(table: &'a mut Table, dotted: &str) -> Option<&'a mut Value> {
    match dotted.split_once('.') {
        None => table.get_mut(dotted),
        Some((section, rest)) => slot(table.get_mut(section)?.as_table_mut()?, rest),
    }
}

/// The value in the type of the default, where that loses nothing.
fn fit(value: &Value, known: &Value) -> Option<Value> {
    match (value, known) {
        (Value::Integer(n), Value::Float(_)) => Some(Value::Float(*n as f64)),
        // From the environment and from flags a text may look like a number or a boolean.
        (Value::Integer(_) | Value::Boolean(_) | Value::Float(_), Value::String(_)) => {
            Some(Value::String(value.to_string()))
        }
        _ => (value.type_str() == known.type_str()).then(|| value.clone()),
    }
}

fn described(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
        Value::Datetime(_) => "a date",
    }
}

fn nearest(base: &Settings, key: &str) -> String {
    let leaf = key.rsplit('.').next().unwrap_or(key);
    let known = sources::leaves("", &base.to_table());
    let same_leaf = known.iter().map(|(k, _)| k).find(|k| k.rsplit('.').next() == Some(leaf));
    let same_section = || {
        let section = key.rsplit_once('.').map(|(s, _)| format!("{s}."))?;
        let keys: Vec<_> = known.iter().filter_map(|(k, _)| k.strip_prefix(&section)).collect();
        (!keys.is_empty()).then(|| format!("; [{}] knows {}", section.trim_end_matches('.'), keys.join(", ")))
    };
    match same_leaf {
        Some(found) => format!("; did you mean {found}?"),
        None => same_section().unwrap_or_default(),
    }
}

fn located(problem: Problem, given: &Given) -> Fault {
    let origin =
        given.get(&problem.key).map_or_else(|| "default".to_owned(), |(_, origin)| origin.to_string());
    Fault { origin, message: format!("{}: {}", problem.key, problem.message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, variables: &[(&str, &str)], set: &[&str]) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jeton.toml");
        std::fs::write(&path, file).unwrap();
        let set = set.iter().map(|s| (*s).to_owned()).collect();
        let sources = Sources { config: Some(path), set, data_dir: None };
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        sources.load_with(&Settings::default(), variables).map_err(|e| e.to_string())
    }

    #[test]
    fn a_flag_is_over_the_environment_is_over_the_file() {
        let file = "[engine]\nmax_entries = 1\nmax_watches = 1\nmax_waiters = 1\n";
        let variables = [("JETON__ENGINE__MAX_ENTRIES", "2"), ("JETON__ENGINE__MAX_WATCHES", "2")];
        let settings = load(file, &variables, &["engine.max_entries=3"]).unwrap().engine;
        assert_eq!((settings.max_entries, settings.max_watches, settings.max_waiters), (3, 2, 1));
    }

    #[test]
    fn all_errors_are_reported_at_once_with_their_origins() {
        let file = "[engine]\nmax_entrys = 1\ntick_ms = 1\n[door]\nmax_age_ms = \"long\"\n";
        let error =
            load(file, &[("JETON__KEYS__MAX_QUEUED", "0")], &["nonsense", "log.filter=a=b=c"]).unwrap_err();
        for part in [
            "jeton.toml:2: unknown key engine.max_entrys; [engine] knows ",
            "jeton.toml:3: engine.tick_ms: must be between",
            "jeton.toml:5: door.max_age_ms must be a whole number",
            "environment variable JETON__KEYS__MAX_QUEUED: keys.max_queued: must be at least 1",
            "--set: \"nonsense\" is not section.key=value",
            "--set: log.filter",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn a_key_under_the_wrong_section_is_shown_where_it_belongs() {
        let error = load("[door]\nmax_entries = 1\n", &[], &[]).unwrap_err();
        assert!(error.contains("did you mean engine.max_entries?"), "{error}");
    }

    #[test]
    fn the_full_configuration_has_every_key_with_its_default_and_a_comment() {
        let text = include_str!("../../../deploy/jeton.full.toml");
        let documented: Table = text.parse().unwrap();
        assert_eq!(sources::leaves("", &documented), sources::leaves("", &Settings::default().to_table()));
        let mut explained = false;
        for line in text.lines() {
            let (comment, key) = (line.starts_with('#'), line.contains(" = ") && !line.starts_with('#'));
            assert!(!key || explained, "{line} has no comment above it");
            explained = comment || key || (explained && line.starts_with('['));
        }
    }
}
