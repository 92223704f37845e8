//! The process's settings: read, merged, checked, and every error at once.
//!
//! Each section is a struct of the crate that uses it, with its defaults and its `validate`. Here they are only put together. The
//! known keys are those of the defaults, so a section that grows a field needs no word here.

mod settings;
mod sources;

use std::{fmt, path::PathBuf};

use jeton_core::Problem;
use toml::{Table, Value};

pub(crate) use settings::Settings;
use sources::{Fault, Given};

/// What the command line says about configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Sources {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// One setting, over the file and the environment: section.key=value
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    pub(crate) set: Vec<String>,
}

/// Everything that is wrong with the configuration.
#[derive(Debug)]
pub(crate) struct Faults(Vec<Fault>);

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

    fn load_with(&self, base: &Settings, variables: impl Iterator<Item = (String, String)>) -> Result<Settings, Faults> {
        let (mut given, mut faults) = (Given::new(), vec![]);
        if let Some(path) = &self.config {
            sources::from_file(path, &mut given, &mut faults);
        }
        sources::from_environment(variables, &mut given);
        sources::from_flags(&self.set, &mut given, &mut faults);
        let merged = merge(base, &given, &mut faults);
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        let settings: Settings = merged
            .try_into()
            .map_err(|e: toml::de::Error| Faults(vec![Fault { origin: "configuration".into(), message: e.to_string() }]))?;
        let problems: Vec<_> = settings.validate().into_iter().map(|problem| located(problem, &given)).collect();
        if problems.is_empty() { Ok(settings) } else { Err(Faults(problems)) }
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
        (Value::Integer(_) | Value::Boolean(_) | Value::Float(_), Value::String(_)) => Some(Value::String(value.to_string())),
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
    let origin = given.get(&problem.key).map_or_else(|| "default".to_owned(), |(_, origin)| origin.to_string());
    Fault { origin, message: format!("{}: {}", problem.key, problem.message) }
}
