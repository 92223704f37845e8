//! The OIDC-shaped tenant: private_key_jwt by `kid`, single-use assertions of 60 s, dynamic registration. It answers as oidc-provider
//! does.

mod authenticate;
mod registration;

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::State as Extract,
    http::HeaderMap,
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::{
    entra::{Moment, faults},
    graph::ORDERS_API,
    model::OidcClient,
    reply::{Reply, field, form, json as reply},
    start::{Shared, random_secret},
    state::State,
};

const DEFAULT_LIFETIME_SECONDS: u64 = 600;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/oidc/.well-known/openid-configuration", get(discovery))
        .route("/oidc/jwks", get(keys))
        .route("/oidc/token", post(token))
        .merge(registration::routes())
}

/// An OAuth error (RFC 6749 section 5.2).
#[derive(Debug)]
pub(super) struct OidcError {
    status: u16,
    error: &'static str,
    description: String,
    scope: Option<String>,
}

impl OidcError {
    fn new(status: u16, error: &'static str, description: impl Into<String>) -> Self {
        Self { status, error, description: description.into(), scope: None }
    }

    fn invalid_client() -> Self {
        Self::new(401, "invalid_client", "client authentication failed")
    }

    fn invalid_request(description: impl Into<String>) -> Self {
        Self::new(400, "invalid_request", description)
    }

    fn reply(&self) -> Reply {
        let mut body = json!({"error": self.error, "error_description": self.description});
        if let Some(scope) = &self.scope {
            body["scope"] = scope.as_str().into();
        }
        reply(self.status, &body)
    }
}

async fn token(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Reply {
    let form = form(&body);
    let client_id = authenticate::claimed_client(&form, &headers);
    let settings = {
        let mut state = shared.state.lock().await;
        let counts = state.counts.entry(client_id.clone()).or_default();
        counts.total += 1;
        *counts.by_scope.entry(field(&form, "scope").unwrap_or_default().to_owned()).or_default() += 1;
        state.settings(&client_id)
    };
    let fault = faults(&settings).await;
    let mut state = shared.state.lock().await;
    let moment = Moment::of(&state, &client_id);
    if let Some(fault) = fault {
        state.counts.entry(client_id).or_default().refused += 1;
        return moment.dated(fault);
    }
    let outcome = grant(&shared, &mut state, &form, &headers, moment);
    let counts = state.counts.entry(client_id).or_default();
    let answer = match outcome {
        Ok((body, key)) => {
            counts.ok += 1;
            counts.signed_with.extend(key.filter(|k| !counts.signed_with.contains(k)));
            reply(200, &body)
        }
        Err(error) => {
            counts.refused += 1;
            error.reply()
        }
    };
    moment.dated(answer)
}

fn grant(
    shared: &Shared,
    state: &mut State,
    form: &[(String, String)],
    headers: &HeaderMap,
    moment: Moment,
) -> Result<(Value, Option<String>), OidcError> {
    let mut names: Vec<_> = form.iter().map(|(name, _)| name).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
        return Err(OidcError::invalid_request(format!(
            "'{}' parameter must not be provided twice",
            twice[0]
        )));
    }
    let (client, key) = authenticate::authenticate(shared, state, form, headers, moment)?;
    match field(form, "grant_type") {
        Some("client_credentials") => {}
        Some(_) => {
            return Err(OidcError::new(400, "unsupported_grant_type", "unsupported grant_type requested"));
        }
        None => return Err(OidcError::invalid_request("missing required parameter 'grant_type'")),
    }
    let registered: Vec<&str> = client.metadata["scope"].as_str().unwrap_or_default().split(' ').collect();
    let known = &shared.description.oidc.scopes;
    // A scope that nobody knows is dropped; one that the client lacks is an error.
    let asked: Vec<&str> = field(form, "scope")
        .unwrap_or_default()
        .split_whitespace()
        .filter(|s| known.iter().any(|k| k == s))
        .collect();
    if let Some(lacking) = asked.iter().find(|s| !registered.contains(s)) {
        let mut error = OidcError::new(400, "invalid_scope", "requested scope is not allowed");
        error.scope = Some((*lacking).to_owned());
        return Err(error);
    }
    let resource = field(form, "resource");
    if resource.is_some_and(|r| r != ORDERS_API) {
        return Err(OidcError::new(400, "invalid_target", "resource indicator is missing, or unknown"));
    }
    let lifetime = moment.settings.token_lifetime_seconds.unwrap_or(DEFAULT_LIFETIME_SECONDS);
    let access_token = match resource {
        None => random_secret(),
        Some(resource) => jwt(shared, &client, resource, &asked, lifetime, moment)?,
    };
    let mut body = json!({"access_token": access_token, "expires_in": lifetime, "token_type": "Bearer"});
    if !asked.is_empty() {
        body["scope"] = asked.join(" ").into();
    }
    Ok((body, key))
}

/// A JWT access token (RFC 9068).
fn jwt(
    shared: &Shared,
    client: &OidcClient,
    resource: &str,
    scopes: &[&str],
    lifetime: u64,
    moment: Moment,
) -> Result<String, OidcError> {
    let now = moment.secs();
    let mut claims = json!({
        "jti": random_secret(), "sub": client.client_id, "client_id": client.client_id, "iat": now,
        "exp": now + i64::try_from(lifetime).unwrap_or(i64::MAX / 2), "iss": shared.description.oidc.issuer, "aud": resource,
    });
    if !scopes.is_empty() {
        claims["scope"] = scopes.join(" ").into();
    }
    shared
        .signer
        .sign(&claims, "at+jwt")
        .ok_or_else(|| OidcError::new(500, "server_error", "oops! something went wrong"))
}

async fn discovery(Extract(shared): Extract<Arc<Shared>>) -> Reply {
    let oidc = &shared.description.oidc;
    reply(
        200,
        &json!({
            "issuer": oidc.issuer, "token_endpoint": oidc.token_endpoint, "jwks_uri": oidc.jwks_uri,
            "registration_endpoint": oidc.registration_endpoint,
            "authorization_endpoint": format!("{}/auth", oidc.issuer),
            "grant_types_supported": ["client_credentials"],
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": oidc.scopes,
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": ["RS256", "PS256", "ES256"],
        }),
    )
}

async fn keys(Extract(shared): Extract<Arc<Shared>>) -> Reply {
    reply(200, &shared.signer.jwks(&shared.description.oidc.issuer))
}
