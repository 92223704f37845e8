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
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        IdentityName, TargetRequest, Wall,
        profile::{
            Profile,
            tests::{entra_profile, oidc_profile},
        },
    };

    /// What a caller asks for, before anything is canonical.
    #[derive(Debug, Clone)]
    struct Asked {
        identity: String,
        scopes: Vec<String>,
        resource: Option<String>,
        claims: Option<Value>,
    }

    /// Few letters and all separators, so that many differ in where one thing ends and the next begins.
    fn asked() -> impl Strategy<Value = Asked> {
        let resource = prop::sample::select(vec![
            "https://a",
            "https://a/",
            "https://a/a",
            "https://a/.default",
            "https://a/a/.default",
            "https://A",
            "urn:a",
            "urn:a:a",
            "resource:a",
        ]);
        let claims = prop::sample::select(vec![
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":1.0}"#,
            r#"{"a":[1]}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a.b":1}"#,
            r#"{"a\":1,\"b":1}"#,
            r#"{"a":1,"b":1}"#,
            r#"{ "b": 1, "a": 1 }"#,
            r#"{"a":null}"#,
            r#"{"a":"a\",\"b\":\"b"}"#,
            r#"{"a":"a","b":"b"}"#,
        ]);
        let claims = claims.prop_map(|text| serde_json::from_str(text).unwrap());
        let scope = prop::sample::select(vec!["a", "b", "ab", "a.b", "a:b", "scope:a", "resource:https://a"]);
        let scopes = prop::collection::vec(scope.prop_map(str::to_owned), 0..3);
        let resource = prop::option::of(resource.prop_map(str::to_owned));
        ("[ab][.-]?[ab]{1,2}", scopes, resource, prop::option::of(claims))
            .prop_map(|(identity, scopes, resource, claims)| Asked { identity, scopes, resource, claims })
    }

    /// One who asks, and others who ask for almost the same: each differs from the first in one part alone.
    fn look_alikes() -> impl Strategy<Value = Vec<Asked>> {
        let others = prop::collection::vec((asked(), 0..4), 1..32);
        (asked(), others).prop_map(|(first, others)| {
            let differing = |(other, part): (Asked, i32)| match part {
                0 => Asked { identity: other.identity, ..first.clone() },
                1 => Asked { scopes: other.scopes, ..first.clone() },
                2 => Asked { resource: other.resource, ..first.clone() },
                _ => Asked { claims: other.claims, ..first.clone() },
            };
            let mut all: Vec<_> = others.into_iter().map(differing).collect();
            all.push(first);
            all
        })
    }

    /// The keys of all who ask, each identity with the uid that its name got when it was first seen.
    fn keys(all: &[Asked], profile: &Profile) -> Vec<TokenKey> {
        let mut uids = HashMap::<IdentityName, Uid>::new();
        let mut key = |asked: &Asked| {
            let next = u8::try_from(uids.len()).unwrap();
            let name = IdentityName::from_id(&asked.identity).unwrap();
            let identity = *uids.entry(name).or_insert(Uid::new(Wall::from_secs(1), [next; 10]));
            let request = TargetRequest {
                scopes: asked.scopes.clone(),
                resources: asked.resource.iter().cloned().collect(),
            };
            let target = Target::resolve(&request, profile).unwrap();
            let claims = asked.claims.as_ref().and_then(|claims| Claims::parse(&claims.to_string()).unwrap());
            let authority = Uid::new(Wall::from_secs(1), [0; 10]);
            let (token_type, cnf) = (TokenType::Bearer, None);
            TokenKey { identity, authority, profile_version: 1, target, claims, token_type, cnf }
        };
        all.iter().map(&mut key).collect()
    }

    /// In memory and in the form in which they are kept, two keys are one exactly if the same thing is meant.
    fn check<M: PartialEq>(
        all: &[Asked],
        keys: &[TokenKey],
        meant: impl Fn(&Asked) -> M,
    ) -> Result<(), TestCaseError> {
        let kept: Vec<_> = keys.iter().map(|key| serde_json::to_string(key).unwrap()).collect();
        for (n, one) in all.iter().enumerate() {
            for (m, other) in all.iter().enumerate() {
                let same = meant(one) == meant(other);
                prop_assert_eq!(keys[n] == keys[m], same, "{:?} and {:?}", one, other);
                prop_assert_eq!(kept[n] == kept[m], same, "kept: {:?} and {:?}", one, other);
            }
        }
        Ok(())
    }

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

        #[test]
        fn look_alikes_never_share_a_key_where_scopes_and_resources_are_asked_for(
            all in look_alikes()
        ) {
            let named = |it: &Asked| !it.scopes.is_empty() || it.resource.is_some();
            let all: Vec<_> = all.into_iter().filter(named).collect();
            check(&all, &keys(&all, &oidc_profile()), |it| {
                let scopes: BTreeSet<_> = it.scopes.iter().cloned().collect();
                (it.identity.clone(), scopes, it.resource.clone(), it.claims.clone())
            })?;
        }

        #[test]
        fn look_alikes_never_share_a_key_where_a_default_scope_is_asked_for(
            all in look_alikes(), by_scope in any::<u32>()
        ) {
            let meant = |it: &Asked| (it.identity.clone(), it.resource.clone(), it.claims.clone());
            let all: Vec<_> = all.into_iter().filter(|it| it.resource.is_some()).collect();
            // Some say the resource and some its scope, and both mean the same.
            let spelled: Vec<_> = all.iter().enumerate().map(|(n, it)| {
                let (scopes, resource) = match &it.resource {
                    Some(resource) if by_scope >> n & 1 == 1 => (vec![format!("{resource}/.default")], None),
                    resource => (vec![], resource.clone()),
                };
                Asked { scopes, resource, ..it.clone() }
            }).collect();
            check(&all, &keys(&spelled, &entra_profile()), meant)?;
        }
    }
}
