//! What a token is cached under.
//!
//! The key holds everything that makes two tokens different, in canonical form, and binds uids: never a name, which can be made
//! again, and never a raw string of the caller's, of which there are many for one thing.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Target, Uid};

/// Longest claims request, in bytes.
pub const MAX_CLAIMS_BYTES: usize = 4096;

/// How the token is to be presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenType {
    /// RFC 6750.
    #[default]
    Bearer,
}

/// (identity, authority and profile version, target, claims, token type, confirmation key).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenKey {
    /// The identity.
    pub identity: Uid,
    /// Its authority.
    pub authority: Uid,
    /// The version of the authority's profile under which the target was resolved.
    pub profile_version: u32,
    /// What the token is for.
    pub target: Target,
    /// The claims request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Claims>,
    /// How the token is presented.
    #[serde(default)]
    pub token_type: TokenType,
    /// Thumbprint of the key that the token is bound to (RFC 7800), if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Arc<str>>,
}

/// A claims request or challenge (OpenID Connect Core section 5.5), as canonical JSON: members sorted, no white space.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Claims(Arc<str>);

/// Why a text is not a claims request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimsError {
    /// Over [`MAX_CLAIMS_BYTES`].
    #[error("claims have {0} bytes; at most 4096 are taken")]
    TooLong(usize),
    /// Not JSON, or not an object.
    #[error(
        "claims are not a JSON object ({0}): pass the claims of the challenge as they are, decoded from base64"
    )]
    NotAnObject(String),
}

impl Claims {
    /// Parses and canonicalises; an empty text or object is no claims at all.
    pub fn parse(text: &str) -> Result<Option<Claims>, ClaimsError> {
        if text.len() > MAX_CLAIMS_BYTES {
            return Err(ClaimsError::TooLong(text.len()));
        }
        if text.is_empty() {
            return Ok(None);
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(members)) if members.is_empty() => Ok(None),
            Ok(value @ Value::Object(_)) => Ok(Some(Claims(canonical(&value).into()))),
            Ok(_) => Err(ClaimsError::NotAnObject("it is another kind of JSON value".into())),
            Err(e) => Err(ClaimsError::NotAnObject(format!("line {} column {}", e.line(), e.column()))),
        }
    }

    /// The canonical JSON.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// Written out rather than left to serde_json's map: its order depends on a feature that any dependency can switch on.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            let inner: Vec<_> = sorted
                .into_iter()
                .map(|(name, it)| format!("{}:{}", Value::from(name.as_str()), canonical(it)))
                .collect();
            format!("{{{}}}", inner.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_spellings_of_the_same_claims_are_one() {
        let one = Claims::parse(r#"{"access_token": {"b": 1, "a": [true, null]}}"#).unwrap();
        let other = Claims::parse("{\"access_token\":{\"a\":[true,null],\n\"b\":1}}").unwrap();
        assert_eq!(one, other);
        assert_eq!(one.unwrap().as_str(), r#"{"access_token":{"a":[true,null],"b":1}}"#);
    }

    #[test]
    fn no_claims_are_no_claims() {
        assert_eq!(Claims::parse("").unwrap(), None);
        assert_eq!(Claims::parse(" {} ").unwrap(), None);
    }

    #[test]
    fn claims_that_are_no_json_object_are_refused() {
        for bad in ["x", "[]", "\"a\"", "{", "{\"a\":}", "1"] {
            assert!(matches!(Claims::parse(bad), Err(ClaimsError::NotAnObject(_))), "{bad}");
        }
        assert!(matches!(Claims::parse(&"x".repeat(4097)), Err(ClaimsError::TooLong(4097))));
        assert!(Claims::parse(&"[".repeat(4000)).is_err(), "deep nesting must not overflow the stack");
    }

    proptest! {
        #[test]
        fn canonical_claims_are_a_fixed_point(names in proptest::collection::vec("[a-z\"\\\\]{1,4}", 1..6)) {
            let object = Value::Object(names.into_iter().enumerate().map(|(i, n)| (n, Value::from(i))).collect());
            let once = Claims::parse(&object.to_string()).unwrap().unwrap();
            prop_assert_eq!(Claims::parse(once.as_str()).unwrap().unwrap(), once);
        }
    }
}
