//! Whose metrics these are.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::Environment;

/// Attributes of the whole process (OpenTelemetry's `service.*`, `host.*`).
#[derive(Debug, Clone)]
pub struct Resource(BTreeMap<String, String>);

impl Resource {
    /// Of this service, version and instance.
    pub fn new(service: &str, version: &str, instance: &str, more: &[(&str, &str)]) -> Self {
        let own =
            [("service.name", service), ("service.version", version), ("service.instance.id", instance)];
        let all = own.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Self(all.collect())
    }

    /// With what `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` say, which is over it.
    #[must_use]
    pub fn under(mut self, environment: &Environment) -> Self {
        let given = environment.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        self.0.extend(pairs(given).filter_map(|(_, pair)| pair));
        if let Some(name) = environment.get("OTEL_SERVICE_NAME") {
            self.0.insert("service.name".into(), name.into());
        }
        self
    }

    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// `key=value,key=value`, percent-encoded (W3C Baggage without properties), by position from 1. None: it is no pair.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = (usize, Option<(String, String)>)> {
    let one = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
        Some((decoded(key), decoded(value))).filter(|(key, _)| !key.is_empty())
    };
    let all = (1..).zip(text.split(',')).filter(|(_, pair)| !pair.trim().is_empty());
    all.map(move |(position, pair)| (position, one(pair)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_over_what_is_found_and_the_service_name_over_both() {
        let variables = [
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "service.name=other, deployment.environment.name=a%2Cb ,nonsense,=x",
            ),
            ("OTEL_SERVICE_NAME", "tokens"),
        ];
        let resource =
            Resource::new("jeton", "1", "i", &[("host.name", "n")]).under(&Environment::of(variables));
        let attributes: Vec<_> = resource.attributes().collect();
        let expected = [
            ("deployment.environment.name", "a,b"),
            ("host.name", "n"),
            ("service.instance.id", "i"),
            ("service.name", "tokens"),
            ("service.version", "1"),
        ];
        assert_eq!(attributes, expected);
    }
}
