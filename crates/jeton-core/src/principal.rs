//! How an authenticated caller is named.
//!
//! The listener and its credential decide the principal; a caller cannot choose it. A principal is a URI in canonical form:
//! `unix://{node}/uid/1000`, `loopback://dev`, `spiffe://td/path`, `k8s://{cluster}/{namespace}/{service account}`,
//! `oidc://{configured issuer}/{subject}`, `x509://...`, `secret://{workload uid}`. The last one names whoever showed a secret of that
//! workload. It belongs to the workload by itself and can be given to no other; the uid stands in its one canonical form, so no two texts
//! name one workload and no name that is made again inherits a secret. Patterns end at a `/`, so `spiffe://prod/payments/` never matches
//! `spiffe://prod/payments-evil`; they stand in role assignments only.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Uid, name::shorten};

/// Longest principal, in bytes (a SPIFFE ID may have 2048).
pub const MAX_PRINCIPAL_BYTES: usize = 2048;

const SCHEMES: [&str; 7] = ["spiffe", "unix", "k8s", "oidc", "x509", "loopback", SECRET];
/// The scheme of whoever showed a workload's secret.
const SECRET: &str = "secret";

/// Why a text is not a principal or a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrincipalError {
    /// Unknown scheme, or none.
    #[error(
        "{0:?} is not a principal: expected spiffe://, unix://, k8s://, oidc://, x509://, loopback:// or secret:// and a path"
    )]
    Scheme(String),
    /// Too long, empty, or with a character that no principal has.
    #[error(
        "{0:?} is not a principal: the part behind :// must be 1 to 2048 visible ASCII characters, without empty or dot segments"
    )]
    Path(String),
    /// A wildcard; patterns are written without.
    #[error(
        "{0:?} has a '*': a pattern ends at a '/' instead, such as spiffe://prod/payments/, and means all principals below it"
    )]
    Wildcard(String),
    /// An exact principal ends without a slash, a pattern with one.
    #[error("{0:?} ends with '/': that is a pattern, and patterns stand in role assignments only")]
    IsPattern(String),
    /// A pattern that would match a whole scheme.
    #[error("{0:?} is not a pattern: it must end with '/' and name at least a trust domain, node or cluster")]
    NotPattern(String),
}

/// An exact principal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Principal(Arc<str>);

impl Principal {
    /// The principal of `dev`'s loopback listener.
    pub fn loopback_dev() -> Self {
        Self(Arc::from("loopback://dev"))
    }

    /// Whoever asked before a restart. No door ever authenticates anybody as this one.
    pub fn restored() -> Self {
        Self(Arc::from("loopback://restored"))
    }

    /// A local user, by the credentials of a unix socket. `node` tells machines apart (configuration `node.name`).
    pub fn unix_uid(node: &str, uid: u32) -> Result<Self, PrincipalError> {
        format!("unix://{node}/uid/{uid}").parse()
    }

    /// What `unix_peers` may call a local user on the data plane: any name of its own node.
    pub fn peers(&self) -> Option<PrincipalPattern> {
        let (node, _) = self.0.strip_prefix("unix://")?.rsplit_once("/uid/")?;
        format!("unix://{node}/peer/").parse().ok()
    }

    /// Whoever showed a secret of this workload.
    pub fn of_secret(workload: Uid) -> Self {
        Self(format!("{SECRET}://{workload}").into())
    }

    /// The workload whose secret was shown, if that is how the caller proved itself.
    pub fn secret_of(&self) -> Option<Uid> {
        self.0.strip_prefix(SECRET)?.strip_prefix("://")?.parse().ok()
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// All principals below a prefix that ends with `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrincipalPattern(Arc<str>);

impl PrincipalPattern {
    /// Whether the pattern covers this principal.
    pub fn covers(&self, principal: &Principal) -> bool {
        principal.0.starts_with(self.0.as_ref())
    }

    /// Whether a principal could be covered by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.starts_with(other.0.as_ref()) || other.0.starts_with(self.0.as_ref())
    }

    /// The prefix, with its slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Principal {
    type Err = PrincipalError;

    fn from_str(text: &str) -> Result<Self, PrincipalError> {
        if text.ends_with('/') && text.len() <= MAX_PRINCIPAL_BYTES && !text.contains('*') {
            return Err(PrincipalError::IsPattern(shorten(text)));
        }
        check(text, text)?;
        Ok(Self(text.into()))
    }
}

impl FromStr for PrincipalPattern {
    type Err = PrincipalError;

    fn from_str(text: &str) -> Result<Self, PrincipalError> {
        let prefix = text.strip_suffix('/').ok_or_else(|| PrincipalError::NotPattern(shorten(text)))?;
        if prefix.ends_with('/') || prefix.starts_with("secret://") {
            return Err(PrincipalError::NotPattern(shorten(text)));
        }
        check(prefix, text)?;
        Ok(Self(text.into()))
    }
}

fn check(text: &str, shown: &str) -> Result<(), PrincipalError> {
    if text.contains('*') {
        return Err(PrincipalError::Wildcard(shorten(shown)));
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(|| PrincipalError::Scheme(shorten(shown)))?;
    if !SCHEMES.contains(&scheme) {
        return Err(PrincipalError::Scheme(shorten(shown)));
    }
    if scheme == SECRET && rest.parse::<Uid>().is_ok_and(|uid| uid.to_string() == rest) {
        return Ok(());
    }
    // An issuer inside oidc:// brings its own scheme: its "//" is the one empty segment that is allowed.
    let path = rest.strip_prefix("https://").filter(|_| scheme == "oidc").unwrap_or(rest);
    let segments_fit = path.split('/').all(|s| !s.is_empty() && s != "." && s != "..");
    let visible = path.bytes().all(|b| b.is_ascii_graphic());
    if scheme != SECRET && text.len() <= MAX_PRINCIPAL_BYTES && segments_fit && visible {
        Ok(())
    } else {
        Err(PrincipalError::Path(shorten(shown)))
    }
}

macro_rules! text_form {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = PrincipalError;

            fn try_from(text: String) -> Result<Self, PrincipalError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(it: $type) -> String {
                it.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_form!(Principal);
text_form!(PrincipalPattern);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_principal_parses_and_prints_the_same() {
        for text in [
            "unix://node-1/uid/1000",
            "loopback://dev",
            "spiffe://prod.example/ns/pay/sa/api",
            "k8s://east/payments/api",
            "oidc://https://issuer.example/tenant/subject-1",
            "x509://dns/api.example",
            "secret://01890a5d-ac96-774b-bcce-b302099a8057",
        ] {
            assert_eq!(text.parse::<Principal>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn malformed_principals_are_refused() {
        for bad in [
            "",
            "dev",
            "http://x",
            "unix://",
            "unix://a//b",
            "spiffe://a/../b",
            "spiffe://a/b ",
            "spiffe://a/*",
            "unix://a/",
        ] {
            assert!(bad.parse::<Principal>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_ends_at_a_segment_so_a_longer_name_does_not_match() {
        let pattern: PrincipalPattern = "spiffe://prod/payments/".parse().unwrap();
        assert!(pattern.covers(&"spiffe://prod/payments/api".parse().unwrap()));
        assert!(!pattern.covers(&"spiffe://prod/payments-evil/api".parse().unwrap()));
        assert!(!pattern.covers(&"spiffe://prod/payments".parse().unwrap()));
    }

    #[test]
    fn a_wildcard_is_told_how_a_pattern_is_written() {
        for bad in ["spiffe://a/*", "spiffe://a/pay*/x", "*", "unix://*/uid/1", "spiffe://a/*/"] {
            let error = bad.parse::<Principal>().unwrap_err().to_string();
            assert!(error.contains("ends at a '/'"), "{error}");
        }
    }

    #[test]
    fn the_principal_of_a_secret_has_one_spelling_and_no_pattern() {
        let uid: Uid = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        assert_eq!(Principal::of_secret(uid).secret_of(), Some(uid));
        for other in [
            "secret://01890A5D-AC96-774B-BCCE-B302099A8057",
            "secret://01890a5dac96774bbcceb302099a8057",
            "secret://{01890a5d-ac96-774b-bcce-b302099a8057}",
            "secret://01890a5d-ac96-774b-bcce-b302099a8057/x",
            "secret://checkout",
            "secret://",
        ] {
            assert!(other.parse::<Principal>().is_err(), "{other}");
        }
        assert!("secret://01890a5d-ac96-774b-bcce-b302099a8057/".parse::<PrincipalPattern>().is_err());
        assert_eq!(Principal::loopback_dev().secret_of(), None);
    }

    #[test]
    fn a_pattern_never_covers_a_whole_scheme() {
        for bad in ["spiffe://", "spiffe:///", "/", "spiffe://a", "spiffe://a//"] {
            assert!(bad.parse::<PrincipalPattern>().is_err(), "{bad}");
        }
    }
}
