//! Metrics as they are at one moment.

use std::collections::BTreeMap;

use jeton_core::metrics::Buckets;

/// What can be told, and what it means.
#[derive(Debug)]
pub struct Instrument {
    /// The name, by OpenTelemetry's conventions.
    pub name: &'static str,
    /// How its values go on.
    pub kind: Kind,
    /// The unit, in UCUM.
    pub unit: &'static str,
    /// What tells its series apart.
    pub attributes: &'static [Attribute],
    /// What it says.
    pub says: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

/// How the values of an instrument go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A sum that only grows.
    Counter,
    /// A number of things that are there now.
    UpDownCounter,
    /// A value that is not added up.
    Gauge,
    /// How often in which range.
    Histogram,
}

/// What tells series apart.
#[derive(Debug, Clone, Copy)]
pub struct Attribute {
    /// The name, by OpenTelemetry's conventions.
    pub key: &'static str,
    /// Its values.
    pub values: Values,
    /// Whether a series may do without it.
    pub optional: bool,
}

/// The values of an attribute. There is no attribute without a bound.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// These and no others.
    Of(&'static [&'static str]),
    /// Others; what bounds them.
    Bounded(&'static str),
}

/// What is told.
#[derive(Debug, Default, Clone)]
pub struct Snapshot(BTreeMap<&'static str, Family>);

/// The series of one instrument.
#[derive(Debug, Clone)]
pub struct Family {
    /// Which.
    pub instrument: &'static Instrument,
    /// One for each combination of attributes.
    pub points: Vec<Point>,
}

/// One series.
#[derive(Debug, Clone)]
pub struct Point {
    /// In the order of the instrument's attributes; empty: the series does without it.
    pub attributes: Vec<String>,
    /// Its value.
    pub value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Whole.
    Whole(u64),
    /// Not whole.
    Real(f64),
    /// Of a histogram.
    Buckets(Buckets),
}

impl Snapshot {
    /// A number of things, so far or now.
    pub fn count<const N: usize>(&mut self, of: &'static Instrument, with: [&str; N], count: u64) {
        self.put(of, &with, Value::Whole(count));
    }

    /// A measured value.
    pub fn value<const N: usize>(&mut self, of: &'static Instrument, with: [&str; N], value: f64) {
        self.put(of, &with, Value::Real(value));
    }

    /// A histogram.
    pub fn buckets<const N: usize>(&mut self, of: &'static Instrument, with: [&str; N], buckets: Buckets) {
        self.put(of, &with, Value::Buckets(buckets));
    }

    /// What the series of an instrument have together; histograms have nothing.
    pub fn total(&self, of: &Instrument) -> f64 {
        let points = self.0.get(of.name).map_or(&[][..], |family| &family.points);
        let value = |point: &Point| match &point.value {
            Value::Whole(count) => *count as f64,
            Value::Real(value) => *value,
            Value::Buckets(_) => 0.0,
        };
        points.iter().map(value).sum()
    }

    /// In the order of their names.
    pub fn families(&self) -> impl Iterator<Item = &Family> {
        self.0.values()
    }

    fn put(&mut self, of: &'static Instrument, with: &[&str], value: Value) {
        debug_assert_eq!(of.attributes.len(), with.len(), "{}", of.name);
        let attributes = with.iter().map(|text| (*text).to_owned()).collect();
        let family = self.0.entry(of.name).or_insert_with(|| Family { instrument: of, points: vec![] });
        family.points.push(Point { attributes, value });
    }
}

impl Family {
    /// The attributes that a point has, by name.
    pub fn attributes<'a>(&self, point: &'a Point) -> impl Iterator<Item = (&'static str, &'a str)> {
        let keys = self.instrument.attributes.iter().map(|attribute| attribute.key);
        keys.zip(point.attributes.iter().map(String::as_str))
            .filter(|(_, value): &(_, &str)| !value.is_empty())
    }
}
