//! Client authentication. Every failure of a credential looks the same from outside: 401 `invalid_client`.

use axum::http::HeaderMap;
use serde_json::Value;

use super::OidcError;
use crate::{
    description::OidcTenant,
    entra::Moment,
    jwt::{Received, numeric_date},
    model::OidcClient,
    reply::{basic, field},
    start::Shared,
    state::{State, sha256_hex},
};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Clocks may differ by this much.
const SKEW_SECONDS: i64 = 15;
/// No assertion may live longer, and none may end later from now, beside the skew.
const MAX_LIFE_SECONDS: i64 = 60;

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
pub(super) async fn authenticate(
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
        return by_assertion(shared, state, form, assertion, moment).await;
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

async fn by_assertion(
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
    let ends = fits(&jwt, &client, &shared.description.oidc, moment.secs());
    let (key, ends) = signed_by(&jwt, &client.metadata).zip(ends).ok_or_else(OidcError::invalid_client)?;
    // Taken before the rest of the request is looked at: a refused scope spends the assertion too.
    let first = state.use_once(&client_id, jwt.text("jti"), ends + SKEW_SECONDS - moment.secs()).await;
    match first {
        Ok(true) => Ok((client, Some(key))),
        Ok(false) => Err(OidcError::invalid_client()),
        Err(_) => Err(super::fault(503)),
    }
}

/// When the assertion ends, if its claims fit the client, the tenant and the time. Times are numbers here, never strings.
fn fits(jwt: &Received, client: &OidcClient, oidc: &OidcTenant, now: i64) -> Option<i64> {
    let time = |claim: &str| match &jwt.claims[claim] {
        Value::Null => Some(None),
        value => numeric_date(value).map(Some),
    };
    let (issued, from, ends) = (time("iat")?, time("nbf")?, time("exp")??);
    let audience = match &jwt.claims["aud"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let fits = client.metadata["token_endpoint_auth_method"] == "private_key_jwt"
        // No extension is understood here, so none may be critical (RFC 7515 section 4.1.11).
        && jwt.header.get("crit").is_none()
        && jwt.text("iss") == client.client_id
        && audience.iter().any(|a| *a == oidc.issuer || *a == oidc.token_endpoint)
        && !jwt.text("jti").is_empty()
        && ends + SKEW_SECONDS > now
        && ends <= now + MAX_LIFE_SECONDS + SKEW_SECONDS
        && issued.is_none_or(|issued| ends - issued <= MAX_LIFE_SECONDS)
        && from.is_none_or(|from| from <= now + SKEW_SECONDS);
    fits.then_some(ends)
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
