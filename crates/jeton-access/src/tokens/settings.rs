//! `[[access.issuers]]`: whose bearer tokens count, and for what.

use std::time::Duration;

use jeton_core::{Principal, Problem};
use serde::{Deserialize, Serialize};

use super::keys;
use crate::TrustDomain;

/// The most that an issuer's clock may differ from ours.
const MAX_LEEWAY_SECONDS: u64 = 60;

/// One issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSettings {
    /// What its subjects are.
    pub kind: IssuerKind,
    /// Its claim `iss`. `spiffe` needs none: a trust domain is enough.
    #[serde(default)]
    pub issuer: String,
    /// The only audience of tokens that are meant for this broker.
    #[serde(default)]
    pub audience: String,
    /// `kubernetes`: the cluster's name, in `k8s://{cluster}/{namespace}/{service account}`.
    #[serde(default)]
    pub cluster: String,
    /// `spiffe`: the trust domain.
    #[serde(default)]
    pub trust_domain: String,
    /// `oidc`: a name, in `oidc://{name}/{subject}`; empty: the issuer's URL.
    #[serde(default)]
    pub name: String,
    /// Where its keys are (a JWK set). With neither this nor a file: what its discovery document says.
    #[serde(default)]
    pub jwks_url: String,
    /// A file with its keys; read again when it changes.
    #[serde(default)]
    pub jwks_file: String,
    /// What its TLS certificate must come from (PEM); empty: what the system trusts.
    #[serde(default)]
    pub ca_file: String,
    /// A file with a bearer token for its discovery document and its keys, where it wants one. It goes to the configured host alone.
    #[serde(default)]
    pub token_file: String,
    /// How often its keys are fetched, in seconds. An unknown key is asked for at once, at most every 30 s.
    #[serde(default = "default_refresh_seconds")]
    pub refresh_seconds: u64,
    /// Algorithms that its keys may be used with; empty: what each key says, RS256 for an RSA key that says nothing.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// How far its clock may be from ours, in seconds.
    #[serde(default = "default_leeway_seconds")]
    pub leeway_seconds: u64,
    /// `kubernetes`: whether a token must be bound to a pod.
    #[serde(default)]
    pub require_pod: bool,
    /// `kubernetes`: asks the API server whether each token still counts, so that one of a deleted pod ends within 60 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_review: Option<TokenReviewSettings>,
}

/// What kind of issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum IssuerKind {
    /// Projected service-account tokens.
    Kubernetes,
    /// JWT-SVIDs.
    Spiffe,
    /// OpenID Connect.
    Oidc,
}

/// `token_review`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenReviewSettings {
    /// The API server's URL.
    pub api_server: String,
    /// What its TLS certificate must come from (PEM); empty: what the system trusts.
    #[serde(default)]
    pub ca_file: String,
    /// A file with the broker's own token there, which may create TokenReviews (ClusterRole `system:auth-delegator`). Read for each.
    pub token_file: String,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysAt<'a> {
    /// Where its discovery document says.
    Discovery(&'a str),
    /// At a URL.
    Url(&'a str),
    /// In a file.
    File(&'a str),
}

fn default_refresh_seconds() -> u64 {
    300
}

fn default_leeway_seconds() -> u64 {
    30
}

impl IssuerSettings {
    /// Where the keys are.
    pub fn keys_at(&self) -> KeysAt<'_> {
        match (&*self.jwks_url, &*self.jwks_file) {
            ("", "") => KeysAt::Discovery(&self.issuer),
            (_, "") => KeysAt::Url(&self.jwks_url),
            (_, file) => KeysAt::File(file),
        }
    }

    /// How far its clock may be from ours.
    pub(crate) fn leeway(&self) -> Duration {
        Duration::from_secs(self.leeway_seconds.min(MAX_LEEWAY_SECONDS))
    }

    /// What principals of this issuer begin with, without the slash at its end.
    pub(crate) fn prefix(&self) -> String {
        match self.kind {
            IssuerKind::Kubernetes => format!("k8s://{}", self.cluster),
            IssuerKind::Spiffe => format!("spiffe://{}", self.trust_domain),
            IssuerKind::Oidc => format!("oidc://{}", self.oidc_name()),
        }
    }

    /// The name, or the URL without a slash at its end.
    pub(crate) fn oidc_name(&self) -> &str {
        if self.name.is_empty() { self.issuer.trim_end_matches('/') } else { &self.name }
    }

    /// Everything that is wrong.
    pub(crate) fn validate(&self) -> Vec<Problem> {
        let mut wrong = Wrong(vec![]);
        wrong.unless(
            is_text(&self.audience),
            "audience",
            "must be the one audience that tokens for this broker have, such as \"jeton\"",
        );
        self.check_kind(&mut wrong);
        self.check_keys(&mut wrong);
        wrong.unless(
            self.algorithms.iter().all(|name| keys::algorithm(name).is_some()),
            "algorithms",
            "may list RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA, and no others",
        );
        wrong.unless(self.leeway_seconds <= MAX_LEEWAY_SECONDS, "leeway_seconds", "must be at most 60");
        wrong.unless(
            (30..=86_400).contains(&self.refresh_seconds),
            "refresh_seconds",
            "must be between 30 and 86400",
        );
        if let Some(review) = &self.token_review {
            wrong.unless(is_safe_url(&review.api_server), "token_review.api_server", SAFE_URL);
            wrong.unless(
                !review.token_file.is_empty(),
                "token_review.token_file",
                "must be the file of a token that may create TokenReviews",
            );
        }
        wrong.0
    }

    fn check_kind(&self, wrong: &mut Wrong) {
        use IssuerKind::{Kubernetes, Oidc, Spiffe};
        let here = |kind| self.kind == kind;
        wrong.unless(
            here(Spiffe) || is_text(&self.issuer),
            "issuer",
            "must be the issuer, exactly as its tokens name it in iss",
        );
        for (key, text, kind) in [
            ("cluster", &self.cluster, Kubernetes),
            ("trust_domain", &self.trust_domain, Spiffe),
            ("name", &self.name, Oidc),
        ] {
            wrong.unless(
                here(kind) || text.is_empty(),
                key,
                &format!("is not for kind = {:?}", self.kind.as_str()),
            );
        }
        wrong.unless(
            here(Kubernetes) || !self.require_pod,
            "require_pod",
            "is for kind = \"kubernetes\" alone",
        );
        wrong.unless(
            here(Kubernetes) || self.token_review.is_none(),
            "token_review",
            "is for kind = \"kubernetes\" alone",
        );
        let named = |text: &str| is_name(text) && format!("{}/x", self.prefix()).parse::<Principal>().is_ok();
        match self.kind {
            Kubernetes => wrong.unless(
                named(&self.cluster),
                "cluster",
                "must name the cluster with letters, digits, '-', '.' and '_', such as \"east\"",
            ),
            Spiffe => wrong.unless(
                self.trust_domain.parse::<TrustDomain>().is_ok(),
                "trust_domain",
                "must be a trust domain in lower case, such as \"prod.example\"",
            ),
            Oidc if self.name.is_empty() => wrong.unless(
                is_https(&self.issuer) && format!("{}/x", self.prefix()).parse::<Principal>().is_ok(),
                "name",
                "must be given, because principals cannot hold this issuer: oidc://NAME/SUBJECT",
            ),
            Oidc => wrong.unless(
                named(&self.name),
                "name",
                "must be made of letters, digits, '-', '.' and '_', such as \"corp\"",
            ),
        }
    }

    fn check_keys(&self, wrong: &mut Wrong) {
        wrong.unless(
            self.jwks_url.is_empty() || self.jwks_file.is_empty(),
            "jwks_file",
            "must be empty where jwks_url says where the keys are",
        );
        match self.keys_at() {
            KeysAt::Discovery("") => wrong.unless(
                false,
                "jwks_url",
                "must be given, or jwks_file: without an issuer nothing can be discovered",
            ),
            KeysAt::Discovery(issuer) => wrong.unless(is_safe_url(issuer), "issuer", SAFE_URL),
            KeysAt::Url(url) => wrong.unless(is_safe_url(url), "jwks_url", SAFE_URL),
            KeysAt::File(_) => {
                let unused = self.ca_file.is_empty() && self.token_file.is_empty();
                wrong.unless(
                    unused,
                    "jwks_file",
                    "is read from disk: ca_file and token_file are for keys that are fetched",
                );
            }
        }
    }
}

/// What no two issuers may share, or tokens of one would count as those of another.
pub(crate) fn between(issuers: &[IssuerSettings]) -> Vec<Problem> {
    let mut problems = vec![];
    for (n, issuer) in issuers.iter().enumerate() {
        for (m, before) in issuers[..n].iter().enumerate() {
            let mut clash = |key: &str, text: &str| {
                problems.push(Problem::new(format!("issuers[{n}].{key}"), format!("{text} issuers[{m}]")));
            };
            // Two clusters that were never told their issuer have the same one, and different keys.
            let clusters = [issuer, before].iter().all(|it| it.kind == IssuerKind::Kubernetes);
            if !issuer.issuer.is_empty() && issuer.issuer == before.issuer && !clusters {
                clash("issuer", "is the issuer of");
            }
            let (this, that) = (format!("{}/", issuer.prefix()), format!("{}/", before.prefix()));
            if this.starts_with(&that) || that.starts_with(&this) {
                clash(issuer.kind.naming_key(), "gives principals that look like those of");
            }
        }
    }
    problems
}

impl IssuerKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Spiffe => "spiffe",
            Self::Oidc => "oidc",
        }
    }

    fn naming_key(self) -> &'static str {
        match self {
            Self::Kubernetes => "cluster",
            Self::Spiffe => "trust_domain",
            Self::Oidc => "name",
        }
    }
}

struct Wrong(Vec<Problem>);

impl Wrong {
    fn unless(&mut self, right: bool, key: &str, message: &str) {
        if !right {
            self.0.push(Problem::new(key, message));
        }
    }
}

const SAFE_URL: &str =
    "must be an https URL without user, query and fragment (http://127.0.0.1 may do without TLS)";

fn is_https(text: &str) -> bool {
    text.starts_with("https://") && is_safe_url(text)
}

fn is_safe_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let host = rest.split('/').next().unwrap_or_default();
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(n, _)| n);
    let loopback = matches!(name, "127.0.0.1" | "[::1]");
    let plain = !rest.contains(['@', '?', '#', '\\']) && is_text(text) && !name.is_empty();
    plain && (scheme == "https" || scheme == "http" && loopback)
}

fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    (1..=100).contains(&text.len()) && text.bytes().all(fits)
}

fn is_text(text: &str) -> bool {
    (1..=1_000).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}
