//! The text format of Prometheus 0.0.4, with names as OpenTelemetry translates them.

use std::fmt::Write;

use jeton_core::metrics::Buckets;

use crate::{Family, Instrument, Kind, Resource, Snapshot, Value};

/// The format's media type.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What an instrument is called: its unit and `_total` at the end.
pub fn name(instrument: &Instrument) -> String {
    let mut name = escaped_key(instrument.name);
    let unit = match instrument.unit {
        "s" => "_seconds",
        "By" => "_bytes",
        "{request}/s" => "_per_second",
        "1" if instrument.kind == Kind::Gauge => "_ratio",
        _ => "",
    };
    if !name.ends_with(unit) {
        name.push_str(unit);
    }
    if instrument.kind == Kind::Counter {
        name.push_str("_total");
    }
    name
}

/// Everything as text; of whom it is stands in `target_info`.
pub(crate) fn text(snapshot: &Snapshot, resource: &Resource) -> String {
    let mut text = String::with_capacity(64 * 1024);
    header(&mut text, "target_info", "Whose metrics these are.", "gauge");
    let labels: Vec<_> = resource.attributes().map(|(key, value)| (escaped_key(key), value)).collect();
    sample(&mut text, "target_info", &labels, None, "1");
    snapshot.families().for_each(|family| family_text(&mut text, family));
    text
}

fn family_text(text: &mut String, family: &Family) {
    let name = name(family.instrument);
    let kind = match family.instrument.kind {
        Kind::Counter => "counter",
        Kind::UpDownCounter | Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    header(text, &name, family.instrument.says, kind);
    for point in &family.points {
        let labels: Vec<_> = family.attributes(point).map(|(key, value)| (escaped_key(key), value)).collect();
        match &point.value {
            Value::Whole(count) => sample(text, &name, &labels, None, &count.to_string()),
            Value::Real(value) => sample(text, &name, &labels, None, &value.to_string()),
            Value::Buckets(buckets) => histogram(text, &name, &labels, buckets),
        }
    }
}

fn histogram(text: &mut String, name: &str, labels: &[(String, &str)], buckets: &Buckets) {
    let (mut so_far, bucket) = (0, format!("{name}_bucket"));
    for (n, count) in buckets.counts.iter().enumerate() {
        so_far += count;
        let bound =
            buckets.bounds.get(n).map_or_else(|| "+Inf".into(), |micros| seconds(*micros).to_string());
        sample(text, &bucket, labels, Some(&bound), &so_far.to_string());
    }
    sample(text, &format!("{name}_sum"), labels, None, &(buckets.nanos as f64 / 1e9).to_string());
    sample(text, &format!("{name}_count"), labels, None, &so_far.to_string());
}

pub(crate) fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn header(text: &mut String, name: &str, help: &str, kind: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    // Writing to a text cannot fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn sample(text: &mut String, name: &str, labels: &[(String, &str)], bound: Option<&str>, value: &str) {
    text.push_str(name);
    let bound = bound.map(|bound| ("le", bound));
    let all = labels.iter().map(|(key, value)| (key.as_str(), *value)).chain(bound);
    let mut between = '{';
    for (key, value) in all {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{between}{key}=\"{value}\"");
        between = ',';
    }
    if between == ',' {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

fn escaped_key(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jeton_core::metrics::Histogram;

    use super::*;
    use crate::{Attribute, Values};

    const WHO: Attribute = Attribute { key: "jeton.who", values: Values::Bounded("a test"), optional: true };
    static COUNTED: Instrument = instrument(Kind::Counter, "jeton.things", "{thing}", &[WHO]);
    static TOOK: Instrument = instrument(Kind::Histogram, "jeton.thing.duration", "s", &[WHO]);
    static PART: Instrument = instrument(Kind::Gauge, "jeton.part", "1", &[]);

    const fn instrument(
        kind: Kind,
        name: &'static str,
        unit: &'static str,
        attributes: &'static [Attribute],
    ) -> Instrument {
        Instrument { name, kind, unit, attributes, says: "Things.", advice: "" }
    }

    #[test]
    fn the_text_is_that_of_the_format() {
        let histogram = Histogram::new(&[10, 1_000_000]);
        histogram.record(Duration::from_micros(7));
        histogram.record(Duration::from_secs(2));
        let mut snapshot = Snapshot::default();
        snapshot.count(&COUNTED, ["a \"b\"\\\nc"], 3);
        snapshot.count(&COUNTED, [""], 4);
        snapshot.buckets(&TOOK, ["x"], histogram.read());
        snapshot.value(&PART, [], 0.25);
        let text = text(&snapshot, &Resource::new("jeton", "1", "i", &[]));
        let (_, rest) = text.split_once("} 1\n").unwrap();
        let expected = r#"# HELP jeton_part_ratio Things.
# TYPE jeton_part_ratio gauge
jeton_part_ratio 0.25
# HELP jeton_thing_duration_seconds Things.
# TYPE jeton_thing_duration_seconds histogram
jeton_thing_duration_seconds_bucket{jeton_who="x",le="0.00001"} 1
jeton_thing_duration_seconds_bucket{jeton_who="x",le="1"} 1
jeton_thing_duration_seconds_bucket{jeton_who="x",le="+Inf"} 2
jeton_thing_duration_seconds_sum{jeton_who="x"} 2.000007
jeton_thing_duration_seconds_count{jeton_who="x"} 2
# HELP jeton_things_total Things.
# TYPE jeton_things_total counter
jeton_things_total{jeton_who="a \"b\"\\\nc"} 3
jeton_things_total 4
"#;
        assert_eq!(rest, expected);
    }
}
