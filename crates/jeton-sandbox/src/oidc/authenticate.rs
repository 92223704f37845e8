//! Client authentication. Every failure of a credential looks the same from outside: 401 `invalid_client`.

use axum::http::HeaderMap;
use serde_json::Value;

use super::OidcError;
use crate::{
    entra::{Moment, basic},
    jwt::Received,
    model::OidcClient,
    reply::field,
    start::Shared,
    state::{State, sha256_hex},
};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Clocks may differ by this much.
const SKEW_SECONDS: i64 = 15;
/// No assertion may end later from now, beside the skew.
const MAX_AHEAD_SECONDS: i64 = 60;

/// The client that a request says it comes from, for counting.
pub(super) fn claimed_client(form: &[(String, String)], headers: &HeaderMap) -> String {
    let from_assertion =
        || field(form, "client_assertion").and_then(Received::read).map(|jwt| jwt.text("sub").to_owned());
    let named = field(form, "client_id")
        .map(str::to_owned)
        .or_else(from_assertion)
        .or_else(|| basic(headers).map(|(id, _)| id));
    named.unwrap_or_default().chars().take(200).collect()
}

/// The client, and the key that proved it if one did.
pub(super) fn authenticate(
    shared: &Shared,
    state: &mut State,
    form: &[(String, String)],
    headers: &HeaderMap,
    moment: Moment,
) -> Result<(OidcClient, Option<String>), OidcError> {
    let basic = basic(headers);
    if let Some(assertion) = field(form, "client_assertion") {
        if basic.is_some() {
            return Err(OidcError::invalid_request(
                "client authentication must only be provided using one mechanism",
            ));
        }
        return by_assertion(shared, state, form, assertion, moment);
    }
    let by_basic = basic.is_some();
    let posted = || Some((field(form, "client_id")?.to_owned(), field(form, "client_secret")?.to_owned()));
    let (id, secret) = basic.or_else(posted).ok_or_else(OidcError::invalid_client)?;
    let client = state.clients.get(&id).ok_or_else(OidcError::invalid_client)?;
    let method = client.metadata["token_endpoint_auth_method"].as_str().unwrap_or("client_secret_basic");
    // oidc-provider takes both ways of sending a secret for a client registered for either.
    let takes = matches!(method, "client_secret_basic" | "client_secret_post")
        && (by_basic || field(form, "client_secret").is_some());
    let right = client.secret_sha256.as_ref() == Some(&sha256_hex(&secret));
    if takes && right { Ok((client.clone(), None)) } else { Err(OidcError::invalid_client()) }
}

fn by_assertion(
    shared: &Shared,
    state: &mut State,
    form: &[(String, String)],
    assertion: &str,
    moment: Moment,
) -> Result<(OidcClient, Option<String>), OidcError> {
    match field(form, "client_assertion_type") {
        None => return Err(OidcError::invalid_request("client_assertion_type must be provided")),
        Some(ASSERTION_TYPE) => {}
        Some(_) => {
            return Err(OidcError::invalid_request(
                "client_assertion_type must have value urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ));
        }
    }
    let jwt = Received::read(assertion)
        .ok_or_else(|| OidcError::invalid_request("invalid client_assertion format"))?;
    let client_id = jwt.text("sub").to_owned();
    if field(form, "client_id").is_some_and(|id| id != client_id) {
        return Err(OidcError::invalid_request("client_id mismatch"));
    }
    let client = state.clients.get(&client_id).cloned().ok_or_else(OidcError::invalid_client)?;
    let oidc = &shared.description.oidc;
    let now = moment.secs();
    let audience = match &jwt.claims["aud"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let jti = jwt.text("jti");
    let expires = jwt.claims["exp"].as_f64().map(|exp| exp as i64).ok_or_else(OidcError::invalid_client)?;
    let from = jwt.claims["nbf"].as_f64().map(|nbf| nbf as i64);
    let fits = client.metadata["token_endpoint_auth_method"] == "private_key_jwt"
        && jwt.text("iss") == client_id
        && audience.iter().any(|a| *a == oidc.issuer || *a == oidc.token_endpoint)
        && !jti.is_empty()
        && expires + SKEW_SECONDS > now
        && expires <= now + MAX_AHEAD_SECONDS + SKEW_SECONDS
        && from.is_none_or(|from| from <= now + SKEW_SECONDS);
    let key = signed_by(&jwt, &client.metadata).filter(|_| fits).ok_or_else(OidcError::invalid_client)?;
    if !state.use_once(&client_id, jti, expires + SKEW_SECONDS, now) {
        return Err(OidcError::invalid_client());
    }
    Ok((client, Some(key)))
}

/// The kid of the registered key that signed.
fn signed_by(jwt: &Received, metadata: &Value) -> Option<String> {
    let algorithm = jwt.algorithm();
    if metadata["token_endpoint_auth_signing_alg"].as_str().is_some_and(|registered| registered != algorithm)
    {
        return None;
    }
    let kid = jwt.header["kid"].as_str();
    let usable = |key: &&Value| {
        kid.is_none_or(|kid| key["kid"] == kid) && key["alg"].as_str().is_none_or(|alg| alg == algorithm)
    };
    let keys = metadata["jwks"]["keys"].as_array()?;
    let key = keys.iter().filter(usable).find(|key| jwt.verifies_with_jwk(key))?;
    Some(key["kid"].as_str().unwrap_or_default().to_owned())
}
