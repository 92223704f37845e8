//! The keys that an issuer publishes (JWK set, RFC 7517), each with the algorithms that it, and not the token, allows.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde_json::Value;

use super::shown;

/// Keys that one set may have.
const MAX_KEYS: usize = 100;

/// What signs with an RSA key whose JWK does not say (OpenID Connect Core, section 2).
const RSA_DEFAULT: &[Algorithm] = &[Algorithm::RS256];

/// Every algorithm that a caller's token may be signed with: public keys alone.
const ASYMMETRIC: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The keys of one issuer, as they were published.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Debug)]
pub(crate) struct Key {
    jwk: Jwk,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

/// Why a set has no key for a token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// The issuer may have published it since.
    Unknown,
    /// Asking the issuer again changes nothing.
    Unfit(String),
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.jwk == other.jwk
    }
}

impl Key {
    /// What verifies this key's signatures.
    pub(crate) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    fn id(&self) -> Option<&str> {
        self.jwk.common.key_id.as_deref()
    }
}

impl KeySet {
    /// Reads a set. Keys that are not understood, or are for something else than signatures, are not there (RFC 7517 section 5).
    ///
    /// `allowed`: what the configuration restricts algorithms to; empty: what the keys say.
    pub(crate) fn parse(document: &Value, allowed: &[Algorithm]) -> Result<Self, String> {
        let keys = document["keys"].as_array().ok_or("it is no JWK set: it has no list called keys")?;
        if keys.len() > MAX_KEYS {
            return Err(format!("it has {} keys, and at most {MAX_KEYS} are read", keys.len()));
        }
        let mut set: Vec<Key> = vec![];
        for key in keys.iter().filter_map(|key| usable(key, allowed)) {
            if !set.contains(&key) {
                set.push(key);
            }
        }
        Ok(Self(set))
    }

    /// The one key that a header names. Its algorithm is only compared: a header cannot choose how it is verified.
    pub(crate) fn select(&self, kid: Option<&str>, alg: &str) -> Result<(&Key, Algorithm), NoKey> {
        let unfit = |why: String| Err(NoKey::Unfit(why));
        let Some(algorithm) = alg.parse().ok().filter(|a| ASYMMETRIC.contains(a)) else {
            let names = ASYMMETRIC.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(", ");
            return unfit(format!("the token's alg is {}, and only {names} are ever accepted", shown(alg)));
        };
        let named: Vec<_> = self.0.iter().filter(|key| kid.is_none() || key.id() == kid).collect();
        let mut fitting = named.iter().filter(|key| key.algorithms.contains(&algorithm));
        match (fitting.next(), fitting.next(), kid) {
            (Some(key), None, _) => Ok((key, algorithm)),
            (Some(_), Some(_), Some(kid)) => {
                unfit(format!("the issuer publishes several keys called {}: none of them counts", shown(kid)))
            }
            (Some(_), Some(_), None) => {
                unfit("the token names no key (kid), and the issuer has several".to_owned())
            }
            (None, _, Some(kid)) if !named.is_empty() => {
                unfit(format!("the token's alg is {alg}, with which the key {} does not sign", shown(kid)))
            }
            _ => Err(NoKey::Unknown),
        }
    }

    /// The keys' names, for the log.
    pub(crate) fn names(&self) -> String {
        self.0.iter().map(|key| shown(key.id().unwrap_or_default())).collect::<Vec<_>>().join(", ")
    }
}

/// Of the algorithms that callers may use.
pub(crate) fn algorithm(name: &str) -> Option<Algorithm> {
    name.parse().ok().filter(|a| ASYMMETRIC.contains(a))
}

fn usable(document: &Value, allowed: &[Algorithm]) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(document.clone()).ok()?;
    let for_signatures = match &jwk.common.public_key_use {
        None | Some(PublicKeyUse::Signature) => true,
        // SPIFFE Trust Domain and Bundle, section 4.2.
        Some(PublicKeyUse::Other(name)) => name == "jwt-svid",
        Some(PublicKeyUse::Encryption) => false,
    };
    let verifies = jwk.common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify));
    if !for_signatures || !verifies {
        return None;
    }
    let possible = possible(&jwk.algorithm);
    let default = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) if allowed.is_empty() => RSA_DEFAULT,
        _ => possible,
    };
    // What the JWK says is all that the key does.
    let said = match document.get("alg") {
        Some(alg) => vec![algorithm(alg.as_str()?).filter(|a| possible.contains(a))?],
        None => default.to_vec(),
    };
    let algorithms: Vec<_> = said.into_iter().filter(|a| allowed.is_empty() || allowed.contains(a)).collect();
    let decoding = DecodingKey::from_jwk(&jwk).ok().filter(|_| !algorithms.is_empty())?;
    Some(Key { jwk, algorithms, decoding })
}

fn possible(key: &AlgorithmParameters) -> &'static [Algorithm] {
    match key {
        AlgorithmParameters::RSA(_) => &ASYMMETRIC[..6],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rsa(kid: &str, alg: Option<&str>) -> Value {
        let mut key = json!({"kty": "RSA", "kid": kid, "n": "AQAB", "e": "AQAB"});
        if let Some(alg) = alg {
            key["alg"] = alg.into();
        }
        key
    }

    fn set(keys: &[Value]) -> KeySet {
        KeySet::parse(&json!({ "keys": keys }), &[]).unwrap()
    }

    fn why(set: &KeySet, kid: Option<&str>, alg: &str) -> String {
        match set.select(kid, alg) {
            Err(NoKey::Unfit(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_key_fixes_the_algorithm_and_a_header_only_agrees() {
        let keys = set(&[rsa("a", None), rsa("b", Some("PS256"))]);
        assert_eq!(keys.select(Some("a"), "RS256").unwrap().1, Algorithm::RS256);
        assert_eq!(keys.select(Some("b"), "PS256").unwrap().1, Algorithm::PS256);
        for (kid, alg) in [("a", "PS256"), ("a", "RS512"), ("b", "RS256"), ("a", "ES256")] {
            assert!(why(&keys, Some(kid), alg).contains("does not sign"), "{kid} {alg}");
        }
        for alg in ["none", "None", "HS256", "HS512", "ES512", "rs256", ""] {
            assert!(why(&keys, Some("a"), alg).contains("ever accepted"), "{alg}");
        }
    }

    #[test]
    fn what_the_configuration_allows_restricts_what_keys_say_and_says_what_they_do_not() {
        let keys = json!({"keys": [rsa("a", None), rsa("b", Some("RS256"))]});
        let keys = KeySet::parse(&keys, &[Algorithm::PS256]).unwrap();
        assert_eq!(keys.select(Some("a"), "PS256").unwrap().1, Algorithm::PS256);
        assert!(why(&keys, Some("a"), "RS256").contains("does not sign"));
        assert_eq!(keys.select(Some("b"), "RS256").unwrap_err(), NoKey::Unknown);
    }

    #[test]
    fn keys_that_are_no_public_keys_for_signatures_are_not_there() {
        let keys = set(&[
            json!({"kty": "oct", "kid": "secret", "k": "c2VjcmV0", "alg": "HS256"}),
            json!({"kty": "RSA", "kid": "enc", "use": "enc", "n": "AQAB", "e": "AQAB"}),
            json!({"kty": "RSA", "kid": "svid", "use": "x509-svid", "n": "AQAB", "e": "AQAB"}),
            json!({"kty": "RSA", "kid": "ops", "key_ops": ["encrypt"], "n": "AQAB", "e": "AQAB"}),
            json!({"kty": "RSA", "kid": "odd", "alg": "ES256", "n": "AQAB", "e": "AQAB"}),
            json!({"kty": "RSA", "kid": "wrap", "alg": "RSA-OAEP", "n": "AQAB", "e": "AQAB"}),
            json!({"kty": "EC", "kid": "k1", "crv": "secp256k1", "x": "AQAB", "y": "AQAB"}),
            json!({"kty": "new", "kid": "later"}),
            json!("text"),
            rsa("good", None),
        ]);
        assert_eq!(keys.names(), "\"good\"");
        for kid in ["secret", "enc", "svid", "ops", "odd", "wrap", "k1", "later"] {
            assert_eq!(keys.select(Some(kid), "RS256").unwrap_err(), NoKey::Unknown, "{kid}");
        }
    }

    #[test]
    fn a_name_that_two_keys_have_is_nobodys_unless_the_algorithm_tells_them_apart() {
        let other = json!({"kty": "RSA", "kid": "a", "n": "AQAD", "e": "AQAB"});
        let keys = set(&[rsa("a", None), other]);
        assert!(why(&keys, Some("a"), "RS256").contains("several keys called \"a\""));
        let keys = set(&[rsa("a", Some("RS256")), rsa("a", Some("PS256"))]);
        assert_eq!(keys.select(Some("a"), "PS256").unwrap().1, Algorithm::PS256);
        let keys = set(&[rsa("a", None), rsa("a", None)]);
        assert!(keys.select(Some("a"), "RS256").is_ok(), "the same key twice is one key");
    }

    #[test]
    fn a_token_that_names_no_key_has_the_only_one() {
        assert!(set(&[rsa("a", None)]).select(None, "RS256").is_ok());
        assert!(why(&set(&[rsa("a", None), rsa("b", None)]), None, "RS256").contains("names no key"));
        assert_eq!(set(&[]).select(None, "RS256").unwrap_err(), NoKey::Unknown);
    }

    #[test]
    fn what_is_no_set_or_too_large_a_one_is_refused_whole() {
        for bad in [json!({}), json!([]), json!({"keys": {}}), Value::Null] {
            assert!(KeySet::parse(&bad, &[]).is_err(), "{bad}");
        }
        let many: Vec<_> = (0..=MAX_KEYS).map(|n| rsa(&n.to_string(), None)).collect();
        assert!(KeySet::parse(&json!({ "keys": many }), &[]).unwrap_err().contains("101 keys"));
    }
}
