//! The few OData query options that clients of this API use.

/// `$filter`, `$select`, `$top`, `$skiptoken`.
pub(super) struct Query {
    pub(super) filter: Option<Filter>,
    pub(super) raw_filter: Option<String>,
    pub(super) select: Vec<String>,
    pub(super) top: Option<usize>,
    pub(super) skip: usize,
}

/// One condition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Equals(String, String),
    StartsWith(String, String),
    /// `name/any(x:x eq 'value')`
    Any(String, String),
    Unknown,
}

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        let value = |name: &str| pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let raw_filter = value("$filter");
        Self {
            filter: raw_filter.as_deref().map(Filter::parse),
            raw_filter,
            select: value("$select")
                .map(|s| s.split(',').map(|p| p.trim().to_owned()).collect())
                .unwrap_or_default(),
            top: value("$top").and_then(|t| t.parse().ok()).map(|t: usize| t.clamp(1, 999)),
            skip: value("$skiptoken").and_then(|t| t.parse().ok()).unwrap_or(0),
        }
    }

    /// Leaves the members that were selected; all if none were.
    pub(super) fn selected(&self, mut value: serde_json::Value) -> serde_json::Value {
        if let Some(members) = value.as_object_mut().filter(|_| !self.select.is_empty()) {
            members.retain(|name, _| self.select.contains(name) || name == "id");
        }
        value
    }
}

impl Filter {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        if let Some(inner) = text.strip_prefix("startswith(").and_then(|t| t.strip_suffix(')')) {
            return match inner.split_once(',') {
                Some((name, value)) => Self::StartsWith(name.trim().into(), unquoted(value)),
                None => Self::Unknown,
            };
        }
        if let Some((name, rest)) = text.split_once("/any(") {
            return match rest.trim_end_matches(')').split_once(" eq ") {
                Some((_, value)) => Self::Any(name.trim().into(), unquoted(value)),
                None => Self::Unknown,
            };
        }
        match text.split_once(" eq ") {
            Some((name, value)) => Self::Equals(name.trim().into(), unquoted(value)),
            None => Self::Unknown,
        }
    }

    pub(super) fn matches(&self, value: &serde_json::Value) -> bool {
        match self {
            Self::Equals(name, wanted) => value[name] == wanted.as_str(),
            Self::StartsWith(name, wanted) => value[name].as_str().is_some_and(|v| v.starts_with(wanted)),
            Self::Any(name, wanted) => {
                value[name].as_array().is_some_and(|all| all.iter().any(|v| v == wanted))
            }
            Self::Unknown => false,
        }
    }
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches('\'').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_of_filter_are_read() {
        assert_eq!(Filter::parse("appId eq 'a'"), Filter::Equals("appId".into(), "a".into()));
        assert_eq!(
            Filter::parse("startswith(uniqueName,'j-')"),
            Filter::StartsWith("uniqueName".into(), "j-".into())
        );
        assert_eq!(
            Filter::parse("identifierUris/any(x:x eq 'u')"),
            Filter::Any("identifierUris".into(), "u".into())
        );
        assert_eq!(Filter::parse("nonsense"), Filter::Unknown);
    }
}
