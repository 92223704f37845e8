//! SPIFFE IDs: whoever shows one, in a certificate or in a token, is held to the same letters.

use std::{fmt, str::FromStr};

/// A SPIFFE trust domain: lower-case letters, digits, '-', '.' and '_' (SPIFFE-ID section 2.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrustDomain(String);

/// Why a text is no trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a trust domain: 1 to 255 lower-case letters, digits, '-', '.' and '_', without spiffe://"
)]
pub struct TrustDomainError(String);

impl FromStr for TrustDomain {
    type Err = TrustDomainError;

    fn from_str(text: &str) -> Result<Self, TrustDomainError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
        let fits =
            (1..=255).contains(&text.len()) && text.bytes().all(allowed) && text.bytes().any(|b| b != b'.');
        if fits { Ok(Self(text.to_owned())) } else { Err(TrustDomainError(text.chars().take(255).collect())) }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TrustDomain {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A SPIFFE ID of this trust domain, in its one spelling (SPIFFE-ID section 2).
pub(crate) fn spiffe_id<'a>(id: &'a str, domain: &str) -> Result<&'a str, String> {
    let wrong = |why: &str| format!("{} is no SPIFFE ID of {domain}: {why}", id.escape_debug());
    let rest = id.strip_prefix("spiffe://").ok_or_else(|| wrong("it does not begin with spiffe://"))?;
    let (found, path) =
        rest.split_once('/').ok_or_else(|| wrong("it names a trust domain and nobody in it"))?;
    if found != domain {
        return Err(wrong("it is of another trust domain"));
    }
    is_path(path).then_some(id).ok_or_else(|| {
        wrong("a path has letters, digits, '-', '.' and '_' between single slashes, and nothing percent-encoded")
    })
}

/// The segments of a SPIFFE ID's path (SPIFFE-ID section 2.2).
fn is_path(path: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    path.split('/').all(|s| !s.is_empty() && !matches!(s, "." | "..") && s.bytes().all(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        assert!(is_path("ns/pay/sa/api-1.x_Y"));
        for bad in ["", "a//b", "a/", "/a", "a/../b", "./a", "a%2Fb", "a?b", "a#b", "a b", "a\0", "\u{e9}"] {
            assert!(!is_path(bad), "{bad}");
        }
    }
}
