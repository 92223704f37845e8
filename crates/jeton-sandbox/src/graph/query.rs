//! The few OData query options that clients of this API use.

use super::GraphError;

/// What a filter may ask for.
const FILTERABLE: [&str; 6] =
    ["id", "appId", "displayName", "uniqueName", "identifierUris", "servicePrincipalNames"];

/// `$filter`, `$select`, `$top`, `$skiptoken`.
pub(super) struct Query {
    filter: Option<Filter>,
    select: Vec<String>,
    pub(super) top: Option<usize>,
    /// The id of the last one that was seen.
    pub(super) after: Option<String>,
    options: Vec<(String, String)>,
}

/// One condition.
#[derive(Debug, PartialEq, Eq)]
enum Filter {
    Equals(String, String),
    StartsWith(String, String),
    /// `name/any(x:x eq 'value')`
    Any(String, String),
}

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, GraphError> {
        let options: Vec<(String, String)> =
            url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        let value = |name: &str| options.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let filter = value("$filter").map(|f| {
            Filter::parse(f).ok_or_else(|| GraphError::bad(format!("Invalid filter clause: '{f}'.")))
        });
        let top = value("$top").map(|t| {
            t.parse::<usize>().map_err(|_| GraphError::bad(format!("Invalid value '{t}' for $top.")))
        });
        Ok(Self {
            filter: filter.transpose()?,
            select: value("$select")
                .map(|s| s.split(',').map(|p| p.trim().to_owned()).collect())
                .unwrap_or_default(),
            top: top.transpose()?.map(|t| t.clamp(1, 999)),
            after: value("$skiptoken").map(str::to_owned),
            options,
        })
    }

    /// The same query for what comes after an id.
    pub(super) fn next(&self, last: &str) -> String {
        let kept = self.options.iter().filter(|(name, _)| name != "$skiptoken");
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(kept)
            .append_pair("$skiptoken", last)
            .finish()
    }

    pub(super) fn selects(&self, member: &str) -> bool {
        self.select.iter().any(|name| name == member)
    }

    /// Leaves the members that were selected; all if none were.
    pub(super) fn selected(&self, mut value: serde_json::Value) -> serde_json::Value {
        if let Some(members) = value.as_object_mut().filter(|_| !self.select.is_empty()) {
            members.retain(|name, _| self.selects(name) || name == "id");
        }
        value
    }

    pub(super) fn finds(&self, value: &serde_json::Value) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(value))
    }
}

impl Filter {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let name = |name: &str| FILTERABLE.contains(&name.trim()).then(|| name.trim().to_owned());
        if let Some(inner) = text.strip_prefix("startswith(") {
            let (member, value) = inner.strip_suffix(')')?.split_once(',')?;
            return Some(Self::StartsWith(name(member)?, literal(value)?));
        }
        if let Some((member, rest)) = text.split_once("/any(") {
            let (_, value) = rest.strip_suffix(')')?.split_once(" eq ")?;
            return Some(Self::Any(name(member)?, literal(value)?));
        }
        let (member, value) = text.split_once(" eq ")?;
        Some(Self::Equals(name(member)?, literal(value)?))
    }

    fn matches(&self, value: &serde_json::Value) -> bool {
        match self {
            Self::Equals(name, wanted) => value[name] == wanted.as_str(),
            Self::StartsWith(name, wanted) => value[name].as_str().is_some_and(|v| v.starts_with(wanted)),
            Self::Any(name, wanted) => {
                value[name].as_array().is_some_and(|all| all.iter().any(|v| v == wanted))
            }
        }
    }
}

/// A text between quotes; a quote in it is doubled.
pub(super) fn literal(text: &str) -> Option<String> {
    let inner = text.trim().strip_prefix('\'')?.strip_suffix('\'')?;
    (!inner.replace("''", "").contains('\'')).then(|| inner.replace("''", "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_of_filter_are_read_and_no_others() {
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (filter, (name, value), kind) in [
            ("appId eq 'a'", text("appId", "a"), Filter::Equals as fn(String, String) -> Filter),
            ("displayName eq 'o''brien'", text("displayName", "o'brien"), Filter::Equals),
            ("startswith(uniqueName,'j-')", text("uniqueName", "j-"), Filter::StartsWith),
            ("identifierUris/any(x:x eq 'u')", text("identifierUris", "u"), Filter::Any),
        ] {
            assert_eq!(Filter::parse(filter), Some(kind(name, value)), "{filter}");
        }
        for unknown in
            ["nonsense", "appId eq a", "appId eq 'a' and id eq 'b'", "colour eq 'red'", "appId ne 'a'"]
        {
            assert_eq!(Filter::parse(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_next_page_is_asked_with_the_same_options() {
        let query =
            Query::parse("%24filter=displayName%20eq%20'a%26b'&%24select=id,appId&%24skiptoken=old").unwrap();
        let next = Query::parse(&query.next("last")).unwrap();
        assert_eq!((next.filter, next.select), (query.filter, query.select));
        assert_eq!(next.after.as_deref(), Some("last"));
    }
}
