//! Ready profiles, completed by one look at the authority's discovery document.
//!
//! Discovery is read when an authority is created, shown, stored, and never read again silently: an endpoint that moved must be
//! seen by a person before assertions are sent to it.

use jeton_core::{
    KeyKind, Profile, SigningAlgorithm, TargetRequest,
    profile::{
        AssertionProfile, AuthorityLimits, ErrorClass, ErrorRule, IssuedAt, KeyReference, RegistrationStyle,
        SecretTransport, TargetStyle,
    },
};
use serde_json::Value;

use crate::{Http, HttpError, bounds, trust};

const GRAPH: &str = "https://graph.microsoft.com/v1.0";
const GRAPH_SCOPE: &str = "https://graph.microsoft.com/.default";

/// The shapes for which profiles are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Microsoft Entra ID, or what speaks as it does.
    Entra,
    /// An OpenID provider with dynamic registration: oidc-provider, Keycloak, Hydra and their like.
    Oidc,
}

/// What to discover.
#[derive(Debug, Clone)]
pub struct Discovery {
    /// The shape.
    pub shape: Shape,
    /// Entra: the authority with its tenant; OIDC: the issuer.
    pub url: String,
    /// Certificates to trust, PEM; the system's if none.
    pub ca_file: Option<String>,
    /// The base of Graph, if it is not Microsoft's.
    pub graph: Option<String>,
    /// Members that replace those of the ready profile.
    pub overrides: Option<Value>,
}

/// Why there is no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoverError {
    /// The document cannot be read.
    #[error("discovery at {url} failed: {cause}")]
    Unreadable {
        /// Where.
        url: String,
        /// Why.
        cause: String,
    },
    /// The document does not fit.
    #[error("the discovery document at {url} does not fit: {problem}")]
    Misfit {
        /// Where.
        url: String,
        /// What does not fit.
        problem: String,
    },
    /// The overrides do not fit.
    #[error("the profile's overrides do not fit: {0}")]
    Overrides(String),
}

impl From<HttpError> for DiscoverError {
    fn from(error: HttpError) -> Self {
        Self::Unreadable { url: String::new(), cause: error.to_string() }
    }
}

/// Reads the discovery document once and makes the profile that follows from it.
pub async fn discover(wanted: &Discovery) -> Result<Profile, DiscoverError> {
    let base = wanted.url.trim_end_matches('/');
    let well_known = match wanted.shape {
        Shape::Entra => format!("{base}/v2.0/.well-known/openid-configuration"),
        Shape::Oidc => format!("{base}/.well-known/openid-configuration"),
    };
    let unreadable = |cause: String| DiscoverError::Unreadable { url: well_known.clone(), cause };
    let tls = trust(wanted.ca_file.as_deref()).map_err(|e| unreadable(e.to_string()))?;
    let http = Http::new(tls, bounds(&AuthorityLimits::default()));
    let answer = http.read(&well_known, None).await.map_err(|e| unreadable(e.to_string()))?;
    if !answer.is_success() {
        return Err(unreadable(format!("status {}", answer.status)));
    }
    let misfit = |problem: String| DiscoverError::Misfit { url: well_known.clone(), problem };
    let (issuer, token_endpoint) = (answer.text("issuer"), answer.text("token_endpoint"));
    if !token_endpoint.starts_with("https://") {
        return Err(misfit("it has no https token_endpoint".into()));
    }
    // RFC 8414 section 3.3: an issuer that is not the one asked is somebody else's document.
    let expected = if wanted.shape == Shape::Entra { format!("{base}/v2.0") } else { base.to_owned() };
    if issuer.trim_end_matches('/') != expected {
        return Err(misfit(format!("its issuer is {issuer:?} and not {expected:?}")));
    }
    let profile = match wanted.shape {
        Shape::Entra => entra(issuer, token_endpoint, wanted.graph.as_deref().unwrap_or(GRAPH)),
        Shape::Oidc => oidc(issuer, token_endpoint, &answer.json),
    };
    match &wanted.overrides {
        Some(overrides) => overridden(&profile, overrides),
        None => Ok(profile),
    }
}

pub(crate) fn overridden(profile: &Profile, overrides: &Value) -> Result<Profile, DiscoverError> {
    let wrong = |e: &dyn std::fmt::Display| DiscoverError::Overrides(e.to_string());
    let mut value = serde_json::to_value(profile).map_err(|e| wrong(&e))?;
    merge(&mut value, overrides);
    serde_json::from_value(value).map_err(|e| wrong(&e))
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn entra(issuer: &str, token_endpoint: &str, graph: &str) -> Profile {
    Profile {
        issuer: issuer.into(),
        token_endpoint: token_endpoint.into(),
        assertion: AssertionProfile {
            algorithm: SigningAlgorithm::Ps256,
            key_reference: KeyReference::X5tS256,
            audience: token_endpoint.into(),
            lifetime_seconds: 600,
            issued_at: IssuedAt::SecondsAgo(5),
            not_before: true,
        },
        key: KeyKind::Rsa2048,
        target: TargetStyle::EntraDefault,
        resource_aliases: vec![],
        registration: RegistrationStyle::Graph {
            base: graph.trim_end_matches('/').into(),
            scope: GRAPH_SCOPE.into(),
        },
        verify_target: TargetRequest { scopes: vec![GRAPH_SCOPE.into()], resources: vec![] },
        secret_transport: SecretTransport::Body,
        error_rules: rules(Shape::Entra),
        limits: AuthorityLimits::default(),
    }
}

/// What passes at every provider that was measured: one `aud`, the token endpoint; `kid`; 60 s; `iat` a little in the past, no `nbf`.
pub(crate) fn oidc(issuer: &str, token_endpoint: &str, document: &Value) -> Profile {
    let scopes = document["scopes_supported"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let scopes: Vec<_> =
        scopes.filter(|s| !matches!(*s, "openid" | "offline_access")).map(str::to_owned).collect();
    let registration = match document["registration_endpoint"].as_str() {
        Some(endpoint) => RegistrationStyle::Dynamic {
            endpoint: endpoint.into(),
            scope: Some(scopes.join(" ")).filter(|s| !s.is_empty()),
            metadata: Default::default(),
        },
        None => RegistrationStyle::None,
    };
    Profile {
        issuer: issuer.into(),
        token_endpoint: token_endpoint.into(),
        assertion: AssertionProfile {
            algorithm: SigningAlgorithm::Es256,
            key_reference: KeyReference::Kid,
            audience: token_endpoint.into(),
            lifetime_seconds: 60,
            issued_at: IssuedAt::SecondsAgo(5),
            not_before: false,
        },
        key: KeyKind::P256,
        target: TargetStyle::ScopeAndResource,
        resource_aliases: vec![],
        registration,
        // Whatever is registered first; a provider without scopes gets a request for none.
        verify_target: TargetRequest { scopes: scopes.into_iter().take(1).collect(), resources: vec![] },
        secret_transport: SecretTransport::Basic,
        error_rules: rules(Shape::Oidc),
        limits: AuthorityLimits::default(),
    }
}

/// What the answers of a shape mean beyond the general rules.
pub(crate) fn rules(shape: Shape) -> Vec<ErrorRule> {
    let code = |code, class| ErrorRule { status: None, error: None, code: Some(code), contains: None, class };
    let said = |error: Option<&str>, text: &str, class| ErrorRule {
        status: None,
        error: error.map(Into::into),
        code: None,
        contains: Some(text.into()),
        class,
    };
    match shape {
        Shape::Entra => vec![
            code(700_027, ErrorClass::KeyUnknown),
            code(700_016, ErrorClass::KeyUnknown),
            code(700_024, ErrorClass::ClockSkew),
            code(700_028, ErrorClass::Replay),
            code(90_055, ErrorClass::Throttled),
            code(90_024, ErrorClass::Transient),
            code(90_033, ErrorClass::Transient),
            code(90_006, ErrorClass::Transient),
        ],
        Shape::Oidc => vec![
            ErrorRule {
                status: None,
                error: Some("jti_known".into()),
                code: None,
                contains: None,
                class: ErrorClass::Replay,
            },
            said(Some("invalid_client"), "Token reuse detected", ErrorClass::Replay),
            said(Some("invalid_client"), "Unable to load public key", ErrorClass::KeyUnknown),
            said(Some("invalid_client"), "Token is not active", ErrorClass::ClockSkew),
            said(Some("invalid_client"), "Token was issued", ErrorClass::ClockSkew),
            said(Some("invalid_request"), "which could not be found", ErrorClass::KeyUnknown),
            said(Some("error"), "The error is unrecognizable", ErrorClass::ClockSkew),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(prefix: &str, value: &Value, into: &mut Vec<String>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            into.push(format!("{prefix}{name}"));
            if matches!(name.as_str(), "assertion") {
                members("assertion.", value, into);
            }
        }
    }

    #[test]
    fn every_member_of_a_profile_is_described() {
        let text = include_str!("../../../docs/profiles.md");
        let mut all = vec![];
        members("", &serde_json::to_value(entra("i", "https://t", GRAPH)).unwrap(), &mut all);
        for name in all.iter().filter(|name| *name != "assertion") {
            assert!(text.contains(&format!("`{name}`")), "{name} is not in docs/profiles.md");
        }
    }

    #[test]
    fn an_override_replaces_one_member_and_an_unknown_one_is_an_error() {
        let profile = entra("i", "https://t", GRAPH);
        let changed =
            overridden(&profile, &serde_json::json!({"assertion": {"lifetime_seconds": 120}})).unwrap();
        assert_eq!(changed.assertion.lifetime_seconds, 120);
        assert_eq!(changed.assertion.algorithm, profile.assertion.algorithm);
        let error = overridden(&profile, &serde_json::json!({"assertion": {"lifetime": 120}})).unwrap_err();
        assert!(error.to_string().contains("lifetime"), "{error}");
    }
}
