//! What a token is for, in one canonical form.
//!
//! Callers spell the same thing in several ways (`resource=https://x`, `scope=https://x/.default`, an alias, scopes in another
//! order). Two spellings of one thing must be one slot, and two things must never be one. The profile decides what a
//! request means; what comes out is compared byte by byte.

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    name::shorten,
    profile::{Profile, TargetStyle},
};

/// Most scopes in one request.
pub const MAX_SCOPES: usize = 32;
/// Longest scope or resource, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;

/// Scopes and resources as a caller wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRequest {
    /// Scopes, as at the authority (RFC 6749 section 3.3).
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Resource indicators (RFC 8707).
    #[serde(default)]
    pub resources: Vec<String>,
}

/// Why a request names no target at this authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Neither scopes nor resources.
    #[error("no scope and no resource: say what the token is for, such as {example}")]
    Empty {
        /// A request that this authority takes.
        example: &'static str,
    },
    /// A scope with characters that RFC 6749 section 3.3 does not allow, or an endless one.
    #[error(
        "scope {0:?} is malformed: a scope is 1 to 1024 visible ASCII characters without space, '\"' and '\\' (RFC 6749, 3.3)"
    )]
    Scope(String),
    /// Not an absolute URI, or one with a fragment.
    #[error(
        "resource {0:?} is malformed: expected an absolute URI without a fragment (RFC 8707, 2), or an application id"
    )]
    Resource(String),
    /// Too many scopes.
    #[error("{0} scopes in one request; at most 32 are taken")]
    TooMany(usize),
    /// More resources than the authority takes in one request.
    #[error(
        "several resources in one request ({0}); this authority issues a token for one: ask for each by itself"
    )]
    SeveralResources(String),
    /// Only `/.default` exists in this flow.
    #[error(
        "scope {0:?} does not end with \"/.default\": this authority's client-credentials grant takes RESOURCE/.default alone"
    )]
    NotDefault(String),
    /// The profile takes no resources.
    #[error("resource {0:?} given, but this authority selects by scope alone")]
    NoResources(String),
    /// A URI that could be either, where the two are different targets.
    #[error("{0:?} could be a scope or a resource at this authority: say scope:{0} or resource:{0}")]
    Ambiguous(String),
}

impl TargetRequest {
    /// What a text with a prefix says: `scope:A B`, or `resource:URI A B`. None without a prefix.
    pub fn prefixed(text: &str) -> Option<Self> {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        if let Some(rest) = text.strip_prefix("resource:") {
            let mut resources = words(rest);
            let scopes = resources.split_off(resources.len().min(1));
            return Some(Self { scopes, resources });
        }
        text.strip_prefix("scope:").map(|rest| Self { scopes: words(rest), resources: vec![] })
    }
}

/// What a token is for, canonical.
///
/// Its text is `resource:URI`, followed by sorted scopes where the authority knows scopes beside a resource, or `scope:` and
/// sorted scopes.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "Parts", from = "Parts")]
pub struct Target {
    text: Arc<str>,
    resource: Option<Arc<str>>,
    scopes: Arc<[Arc<str>]>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Parts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    scopes: Arc<[Arc<str>]>,
}

impl Target {
    /// The target that a request means at an authority.
    pub fn resolve(request: &TargetRequest, profile: &Profile) -> Result<Target, TargetError> {
        if request.scopes.len() > MAX_SCOPES {
            return Err(TargetError::TooMany(request.scopes.len()));
        }
        request.scopes.iter().try_for_each(|s| check_scope(s))?;
        request.resources.iter().try_for_each(|r| check_resource(r))?;
        match profile.target {
            TargetStyle::EntraDefault => entra(request, profile),
            TargetStyle::ScopeAndResource | TargetStyle::ScopeAndAudience => general(request, profile),
            TargetStyle::ScopeOnly => match request.resources.first() {
                Some(resource) => Err(TargetError::NoResources(shorten(resource))),
                None => general(request, profile),
            },
        }
    }

    /// The target that a person means: with a prefix what that says, without one what a caller would write, scopes or a resource.
    /// Refused where it could be both: a wrong guess would allow what nobody asks for, and not what is asked for.
    pub fn named(text: &str, profile: &Profile) -> Result<Target, TargetError> {
        if let Some(request) = TargetRequest::prefixed(text) {
            return Target::resolve(&request, profile);
        }
        let scopes = text.split_whitespace().map(str::to_owned).collect();
        let as_scopes = Target::resolve(&TargetRequest { scopes, resources: vec![] }, profile);
        let as_resource = TargetRequest { scopes: vec![], resources: vec![text.to_owned()] };
        match (as_scopes, Target::resolve(&as_resource, profile)) {
            // The scopes of Entra's flow all end in "/.default", and no resource does.
            (Ok(_), Ok(_)) if profile.target != TargetStyle::EntraDefault && is_uri(text) => {
                Err(TargetError::Ambiguous(shorten(text)))
            }
            (Err(_), Ok(target)) => Ok(target),
            (as_scopes, _) => as_scopes,
        }
    }

    /// The target of a canonical text, as [`Target::as_str`] gives it; none if the text is none.
    pub fn from_canonical(text: &str) -> Option<Target> {
        let (resource, scopes) = match text.strip_prefix("resource:") {
            Some(rest) => match rest.split_once(' ') {
                Some((uri, scopes)) => (Some(uri), scopes),
                None => (Some(rest), ""),
            },
            None => (None, text.strip_prefix("scope:")?),
        };
        let target = Target::new(
            resource.map(Arc::from),
            scopes.split(' ').filter(|s| !s.is_empty()).map(Arc::from).collect(),
        );
        (target.as_str() == text).then_some(target)
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The resource, if the target names one.
    pub fn resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    /// The scopes, sorted, each once. Empty where the authority derives them from the resource.
    pub fn scopes(&self) -> &[Arc<str>] {
        &self.scopes
    }

    fn new(resource: Option<Arc<str>>, scopes: Arc<[Arc<str>]>) -> Self {
        let joined = scopes.join(" ");
        let text = match &resource {
            Some(uri) if joined.is_empty() => format!("resource:{uri}"),
            Some(uri) => format!("resource:{uri} {joined}"),
            None => format!("scope:{joined}"),
        };
        Self { text: text.into(), resource, scopes }
    }
}

fn entra(request: &TargetRequest, profile: &Profile) -> Result<Target, TargetError> {
    let mut named = BTreeSet::new();
    for scope in &request.scopes {
        let resource = scope.strip_suffix("/.default").filter(|r| !r.is_empty());
        named.insert(canonical(resource.ok_or_else(|| TargetError::NotDefault(shorten(scope)))?, profile));
    }
    named.extend(request.resources.iter().map(|r| canonical(r, profile)));
    let mut named = named.into_iter();
    match (named.next(), named.next()) {
        (None, _) => Err(TargetError::Empty { example: "scope https://vault.example/.default" }),
        (Some(resource), None) => Ok(Target::new(Some(resource.into()), Arc::default())),
        (Some(first), Some(second)) => {
            Err(TargetError::SeveralResources(shorten(&format!("{first}, {second}"))))
        }
    }
}

fn general(request: &TargetRequest, profile: &Profile) -> Result<Target, TargetError> {
    let resources: BTreeSet<_> = request.resources.iter().map(|r| canonical(r, profile)).collect();
    let scopes: BTreeSet<&str> = request.scopes.iter().map(String::as_str).collect();
    if resources.len() > 1 {
        let all: Vec<_> = resources.into_iter().collect();
        return Err(TargetError::SeveralResources(shorten(&all.join(", "))));
    }
    if resources.is_empty() && scopes.is_empty() {
        return Err(TargetError::Empty { example: "scope orders.read, or resource https://orders.example" });
    }
    Ok(Target::new(resources.first().map(|r| Arc::from(*r)), scopes.into_iter().map(Arc::from).collect()))
}

fn canonical<'a>(resource: &'a str, profile: &'a Profile) -> &'a str {
    profile.resource_aliases.iter().find(|(alias, _)| alias == resource).map_or(resource, |(_, to)| to)
}

/// Scopes such as `read:orders` are URIs too, by the letter; nobody means a resource by them.
fn is_uri(text: &str) -> bool {
    text.contains("://") || text.starts_with("urn:")
}

fn check_scope(scope: &str) -> Result<(), TargetError> {
    let allowed = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    let fits = (1..=MAX_TEXT_BYTES).contains(&scope.len()) && scope.bytes().all(allowed);
    if fits { Ok(()) } else { Err(TargetError::Scope(shorten(scope))) }
}

fn check_resource(resource: &str) -> Result<(), TargetError> {
    let visible =
        (1..=MAX_TEXT_BYTES).contains(&resource.len()) && resource.bytes().all(|b| b.is_ascii_graphic());
    let absolute = url::Url::parse(resource).is_ok_and(|u| u.fragment().is_none());
    let application_id = uuid::Uuid::try_parse(resource).is_ok();
    if visible && (absolute || application_id) {
        Ok(())
    } else {
        Err(TargetError::Resource(shorten(resource)))
    }
}

impl From<Target> for Parts {
    fn from(target: Target) -> Self {
        Self { resource: target.resource, scopes: target.scopes }
    }
}

impl From<Parts> for Target {
    fn from(parts: Parts) -> Self {
        Self::new(parts.resource, parts.scopes)
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Target {}

impl std::hash::Hash for Target {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::tests::{entra_profile, oidc_profile};

    fn request(scopes: &[&str], resources: &[&str]) -> TargetRequest {
        let own = |them: &[&str]| them.iter().map(ToString::to_string).collect();
        TargetRequest { scopes: own(scopes), resources: own(resources) }
    }

    fn at_entra(scopes: &[&str], resources: &[&str]) -> Result<String, TargetError> {
        Target::resolve(&request(scopes, resources), &entra_profile()).map(|t| t.to_string())
    }

    fn at_oidc(scopes: &[&str], resources: &[&str]) -> Result<String, TargetError> {
        Target::resolve(&request(scopes, resources), &oidc_profile()).map(|t| t.to_string())
    }

    #[test]
    fn a_resource_and_its_default_scope_are_one_target() {
        let by_scope = at_entra(&["https://vault.example/.default"], &[]).unwrap();
        assert_eq!(by_scope, "resource:https://vault.example");
        assert_eq!(at_entra(&[], &["https://vault.example"]).unwrap(), by_scope);
        assert_eq!(
            at_entra(&["https://vault.example/.default"], &["https://vault.example"]).unwrap(),
            by_scope
        );
    }

    #[test]
    fn a_trailing_slash_of_the_resource_is_another_target() {
        assert_eq!(at_entra(&["https://x.example//.default"], &[]).unwrap(), "resource:https://x.example/");
    }

    #[test]
    fn an_alias_is_the_resource_it_stands_for() {
        let mut profile = entra_profile();
        profile.resource_aliases = vec![("https://x.example/".into(), "https://x.example".into())];
        let target = Target::resolve(&request(&[], &["https://x.example/"]), &profile).unwrap();
        assert_eq!(target.as_str(), "resource:https://x.example");
    }

    #[test]
    fn what_the_entra_flow_cannot_take_is_refused() {
        assert!(matches!(at_entra(&[], &[]), Err(TargetError::Empty { .. })));
        assert!(matches!(at_entra(&["User.Read"], &[]), Err(TargetError::NotDefault(_))));
        assert!(matches!(at_entra(&["/.default"], &[]), Err(TargetError::NotDefault(_))));
        assert!(matches!(
            at_entra(&["https://a.example/.default"], &["https://b.example"]),
            Err(TargetError::SeveralResources(_))
        ));
    }

    #[test]
    fn malformed_scopes_and_resources_are_refused_everywhere() {
        for scope in ["", "a b", "a\"b", "a\\b", "\u{e4}", &"x".repeat(1025)] {
            assert!(matches!(at_oidc(&[scope], &[]), Err(TargetError::Scope(_))), "{scope}");
        }
        for resource in ["", "orders", "https://x.example/#f", "https://x .example"] {
            assert!(matches!(at_oidc(&[], &[resource]), Err(TargetError::Resource(_))), "{resource}");
        }
        assert!(matches!(at_oidc(&["a"; 33], &[]), Err(TargetError::TooMany(33))));
    }

    #[test]
    fn what_a_person_means_is_what_a_caller_asks_for() {
        let (entra, oidc) = (entra_profile(), oidc_profile());
        for text in ["https://v.example", "https://v.example/.default", "scope:https://v.example/.default"] {
            assert_eq!(Target::named(text, &entra).unwrap().as_str(), "resource:https://v.example");
        }
        for (text, target) in [
            ("read:orders", "scope:read:orders"),
            ("b a", "scope:a b"),
            ("scope:b a", "scope:a b"),
            ("scope:https://o.example", "scope:https://o.example"),
            ("resource:https://o.example b a", "resource:https://o.example a b"),
        ] {
            assert_eq!(Target::named(text, &oidc).unwrap().as_str(), target);
        }
        let both = Target::named("https://o.example", &oidc).unwrap_err();
        assert!(both.to_string().contains("resource:https://o.example"), "{both}");
    }

    #[test]
    fn scopes_are_a_set() {
        assert_eq!(at_oidc(&["b", "a", "b"], &[]).unwrap(), "scope:a b");
        assert_eq!(at_oidc(&["b", "a"], &["https://o.example"]).unwrap(), "resource:https://o.example a b");
    }

    proptest! {
        #[test]
        fn any_order_and_repetition_of_scopes_is_one_target(
            mut scopes in proptest::collection::vec("[a-z]{1,3}", 1..8), turn in 0usize..8
        ) {
            let before = Target::resolve(&TargetRequest { scopes: scopes.clone(), resources: vec![] }, &oidc_profile()).unwrap();
            let first = scopes[0].clone();
            let by = turn % scopes.len();
            scopes.rotate_left(by);
            scopes.push(first);
            let after = Target::resolve(&TargetRequest { scopes, resources: vec![] }, &oidc_profile()).unwrap();
            prop_assert_eq!(before, after);
        }

        #[test]
        fn a_target_survives_its_stored_form(scopes in proptest::collection::vec("[a-z.]{1,5}", 1..5), with in any::<bool>()) {
            let resources = if with { vec!["https://o.example/a".to_owned()] } else { vec![] };
            let target = Target::resolve(&TargetRequest { scopes, resources }, &oidc_profile()).unwrap();
            let back: Target = serde_json::from_str(&serde_json::to_string(&target).unwrap()).unwrap();
            prop_assert_eq!(&back, &target);
            prop_assert_eq!(Target::from_canonical(target.as_str()), Some(target));
        }
    }
}
