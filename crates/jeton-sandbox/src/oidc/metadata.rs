//! What clients may say of themselves when they are registered (RFC 7591 section 2).

use serde_json::{Value, json};

use super::OidcError;
use crate::jwt::decode;

const KNOWN: [&str; 9] = [
    "client_name",
    "grant_types",
    "response_types",
    "redirect_uris",
    "token_endpoint_auth_method",
    "token_endpoint_auth_signing_alg",
    "jwks",
    "scope",
    "client_uri",
];
/// Those of them that are texts, and the values that they may have, if not all.
const TEXTS: [(&str, &[&str]); 5] = [
    ("client_name", &[]),
    ("client_uri", &[]),
    ("scope", &[]),
    ("token_endpoint_auth_method", &["client_secret_basic", "client_secret_post", "private_key_jwt"]),
    ("token_endpoint_auth_signing_alg", &["RS256", "PS256", "ES256"]),
];
/// Members of a private JWK (RFC 7518 section 6).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

/// The members that are known, all of which make sense.
pub(super) fn checked(given: &Value, scopes: &[String]) -> Result<Value, OidcError> {
    let wrong = |text: &str| Err(OidcError::new(400, "invalid_client_metadata", text));
    if !given["redirect_uris"].is_array() {
        return Err(OidcError::new(400, "invalid_redirect_uri", "redirect_uris is mandatory property"));
    }
    if !given["response_types"].is_array() {
        return wrong("response_types can only contain 'code id_token', 'code', 'id_token', or 'none'");
    }
    if given["grant_types"] != json!(["client_credentials"]) {
        return wrong("grant_types can only contain 'client_credentials'");
    }
    for (name, values) in TEXTS.iter().filter(|(name, _)| !given[*name].is_null()) {
        let Some(text) = given[*name].as_str() else { return wrong(&format!("{name} must be a string")) };
        if !values.is_empty() && !values.contains(&text) {
            return wrong(&format!("{name} must be one of {}", values.join(", ")));
        }
    }
    let asked = given["scope"].as_str().unwrap_or_default();
    if asked.split_whitespace().any(|scope| !scopes.iter().any(|known| known == scope)) {
        return wrong("scope must only contain Authorization Server supported scope values");
    }
    if !given["jwks"].is_null() && !given["jwks_uri"].is_null() {
        return wrong("jwks and jwks_uri must not be used at the same time");
    }
    let keys = given["jwks"]["keys"].as_array();
    if keys.is_none() && given["token_endpoint_auth_method"] == "private_key_jwt" {
        return wrong("jwks or jwks_uri is mandatory for this client");
    }
    if keys.is_none() && !given["jwks"].is_null() || !keys.into_iter().flatten().all(is_public) {
        return wrong("client JSON Web Key Set is invalid: keys must be public and asymmetric");
    }
    let named = KNOWN.iter().filter(|name| !given[**name].is_null());
    Ok(named.map(|name| ((*name).to_owned(), given[*name].clone())).collect())
}

/// A whole public key.
fn is_public(key: &Value) -> bool {
    let number = |name: &&str| key[*name].as_str().and_then(decode).is_some_and(|bytes| !bytes.is_empty());
    let text = |name: &&str| key[*name].is_null() || key[*name].is_string();
    let whole = match key["kty"].as_str() {
        Some("RSA") => ["n", "e"].iter().all(number),
        Some("EC") => key["crv"].is_string() && ["x", "y"].iter().all(number),
        Some("OKP") => key["crv"].is_string() && number(&"x"),
        _ => false,
    };
    whole && ["kid", "use", "alg"].iter().all(text) && PRIVATE.iter().all(|member| key[*member].is_null())
}
