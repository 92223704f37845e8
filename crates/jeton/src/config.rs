//! The process's settings: read, merged, checked, and every error at once.
//!
//! Each section is a struct of the crate that uses it, with its defaults and its `validate`. Here they are only put together. The
//! known keys are those of the defaults, so a section that grows a field needs no word here.

mod settings;
mod sources;

use std::{ffi::OsString, fmt, path::PathBuf};

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

/// Those that show only later.
impl From<Vec<Problem>> for Faults {
    fn from(problems: Vec<Problem>) -> Self {
        Self(problems.into_iter().map(|problem| located(problem, &Given::new())).collect())
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
    /// Reads and checks all sources, on top of `base`; `more` says what only the command can see.
    pub(crate) fn load(
        &self,
        base: &Settings,
        more: impl Fn(&Settings) -> Vec<Problem>,
    ) -> Result<Settings, Faults> {
        self.load_with(base, std::env::vars_os(), more)
    }

    fn load_with(
        &self,
        base: &Settings,
        variables: impl Iterator<Item = (OsString, OsString)>,
        more: impl Fn(&Settings) -> Vec<Problem>,
    ) -> Result<Settings, Faults> {
        let (mut given, mut faults) = (Given::new(), vec![]);
        if let Some(path) = &self.config {
            sources::from_file(path, &mut given, &mut faults);
        }
        sources::from_environment(variables, &mut given, &mut faults);
        sources::from_flags(&self.set, &mut given, &mut faults);
        if let Some(folder) = &self.data_dir {
            let value = Value::String(folder.display().to_string());
            given.insert("data_dir".into(), (value, Origin::Flag("--data-dir")));
        }
        let settings = merge(base, &given, &mut faults);
        // What could be merged is checked as well, so that all errors come in one go.
        let problems = settings.validate().into_iter().chain(more(&settings));
        faults.extend(problems.map(|problem| located(problem, &given)));
        if faults.is_empty() { Ok(settings) } else { Err(Faults(faults)) }
    }
}

/// Puts the given values over the defaults. Unknown keys, wrong types and values that a type does not hold become faults, and the
/// default stays.
fn merge(base: &Settings, given: &Given, faults: &mut Vec<Fault>) -> Settings {
    let (mut settings, mut table) = (base.clone(), base.to_table());
    for (key, (value, origin)) in given {
        let fault = |message| Fault { origin: origin.to_string(), message };
        let Some(known) = slot(&mut table, key) else {
            let message =
                if key.is_empty() { "a key is missing before '='".into() } else { unknown(base, key) };
            faults.push(fault(message));
            continue;
        };
        if known.is_table() {
            faults.push(fault(format!("{key} is a section, not a value")));
            continue;
        }
        let Some(fitting) = fit(value, known) else {
            let (is, this) = (described(known), described(value));
            faults.push(fault(format!("{key} must be {is}, such as {known}; this is {this}")));
            continue;
        };
        let default = std::mem::replace(known, fitting);
        match table.clone().try_into() {
            Ok(next) => settings = next,
            Err(error) => {
                let text = match value {
                    Value::Integer(n) => format!("{key}: {n} is out of range; the default is {default}"),
                    _ => format!("{key}: {}", error.message()),
                };
                faults.push(fault(text));
                if let Some(known) = slot(&mut table, key) {
                    *known = default;
                }
            }
        }
    }
    settings
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

fn unknown(base: &Settings, key: &str) -> String {
    let leaf = key.rsplit('.').next().unwrap_or(key);
    let known = sources::leaves("", &base.to_table());
    let same_leaf = known.iter().map(|(k, _)| k).find(|k| k.rsplit('.').next() == Some(leaf));
    let same_section = || {
        let section = key.rsplit_once('.').map(|(s, _)| format!("{s}."))?;
        let keys: Vec<_> = known.iter().filter_map(|(k, _)| k.strip_prefix(&section)).collect();
        (!keys.is_empty()).then(|| format!("; [{}] knows {}", section.trim_end_matches('.'), keys.join(", ")))
    };
    let hint = match same_leaf {
        Some(found) => format!("; did you mean {found}?"),
        None => same_section().unwrap_or_default(),
    };
    format!("unknown key {key}{hint}")
}

/// A default is right by itself, so where one is refused it is because of what was given beside it.
fn located(problem: Problem, given: &Given) -> Fault {
    let section = problem.key.rsplit_once('.').map_or("", |(section, _)| section);
    let beside = || {
        let here = given.iter().filter(|(key, _)| key.rsplit_once('.').map_or("", |(s, _)| s) == section);
        here.map(|(key, (_, origin))| format!("{origin}: {key}")).collect::<Vec<_>>().join(", ")
    };
    // What is wrong in the element of a list stands where the list does.
    let whole = problem.key.split('[').next().unwrap_or_default();
    let origin = match given.get(&problem.key).or_else(|| given.get(whole)) {
        Some((_, origin)) => origin.to_string(),
        None => Some(beside()).filter(|b| !b.is_empty()).unwrap_or_else(|| "not given".to_owned()),
    };
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
        let variables = variables.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        sources.load_with(&Settings::default(), variables, |_| vec![]).map_err(|e| e.to_string())
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
    fn a_value_that_its_type_does_not_hold_is_one_error_among_the_others() {
        let file = "[engine]\nmax_entries = -5\ntick_ms = 1\n[log]\nformat = \"pretty\"\n";
        let error = load(file, &[], &["=5"]).unwrap_err();
        for part in [
            "4 error(s)",
            "jeton.toml:2: engine.max_entries: -5 is out of range",
            "jeton.toml:3: engine.tick_ms: must be between",
            "jeton.toml:5: log.format: unknown variant `pretty`, expected one of `auto`",
            "--set: a key is missing",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn a_default_that_what_was_given_made_wrong_is_shown_with_what_was_given() {
        let error = load("[lifecycle.rotation]\nafter_seconds = 99999999\n", &[], &[]).unwrap_err();
        assert!(
            error.contains("jeton.toml:2: lifecycle.rotation.after_seconds: lifecycle.rotation.valid_for"),
            "{error}"
        );
    }

    #[test]
    fn what_is_wrong_with_an_issuer_is_shown_where_the_issuers_are_given() {
        let file = "[log]\n[[access.issuers]]\nkind = \"oidc\"\nissuer = \"http://a.example\"\n";
        let error = load(file, &[], &[]).unwrap_err();
        for part in ["jeton.toml:2: access.issuers[0].audience: ", "jeton.toml:2: access.issuers[0].issuer: "]
        {
            assert!(error.contains(part), "{part} in {error}");
        }
        let error = load("[[access.issuers]]\nkind = \"oidc\"\nisuer = \"a\"\n", &[], &[]).unwrap_err();
        assert!(error.contains("jeton.toml:1: access.issuers: unknown field `isuer`"), "{error}");
    }

    #[test]
    fn the_issuers_in_the_full_configuration_are_valid_and_show_every_key() {
        let text = include_str!("../../../deploy/jeton.full.toml");
        let lines = text.lines().skip_while(|line| *line != "# [[access.issuers]]");
        let example: Vec<_> = lines.map_while(|line| line.strip_prefix('#')).map(str::trim_start).collect();
        let settings = load(&example.join("\n"), &[], &[]).unwrap();
        assert_eq!(settings.access.issuers.len(), 3);
        let known = Table::try_from(&settings.access.issuers[0]).unwrap();
        assert!(known.contains_key("token_review"));
        for key in known.keys() {
            assert!(example.iter().any(|line| line.starts_with(&format!("{key} = "))), "{key} is not shown");
        }
    }

    #[test]
    fn a_variable_that_is_no_text_is_an_error_if_it_is_ours() {
        use std::os::unix::ffi::OsStringExt;
        let variables = [("PATH", vec![0xff]), ("JETON__NODE__NAME", vec![0xff])];
        let variables = variables.map(|(name, value)| (name.into(), OsString::from_vec(value)));
        let loaded = Sources::default().load_with(&Settings::default(), variables.into_iter(), |_| vec![]);
        let error = loaded.unwrap_err().to_string();
        assert!(error.contains("1 error(s)") && error.contains("JETON__NODE__NAME: is not UTF-8"), "{error}");
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
