//! The OIDC-shaped tenant: private_key_jwt by `kid`, single-use assertions of 60 s, dynamic registration. It answers as oidc-provider
//! does.

mod authenticate;
mod metadata;
mod registration;
mod tokens;

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State as Extract, rejection::BytesRejection},
    http::{HeaderMap, header},
    routing::{any, get, post},
};
use serde_json::{Value, json};

use crate::{
    entra::Moment,
    graph::ORDERS_API,
    model::OidcClient,
    reply::{FORM, Reply, field, form, has_type, json as reply, repeated, with_header},
    start::{Shared, random_secret},
    state::{Opaque, State},
};

pub(crate) const DEFAULT_LIFETIME_SECONDS: u64 = 600;
const MAX_BODY: usize = 56 * 1024;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/oidc/.well-known/openid-configuration", get(discovery))
        .route("/oidc/jwks", get(keys))
        .route("/oidc/token", post(token))
        .merge(registration::routes())
        .merge(tokens::routes())
        .route("/oidc/{*rest}", any(unrecognized))
        .method_not_allowed_fallback(unrecognized)
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

async fn unrecognized(request: Request) -> Reply {
    let path = request.uri().path().trim_start_matches("/oidc");
    let told = format!("unrecognized route or not allowed method ({} on {path})", request.method());
    OidcError::new(404, "invalid_request", told).reply()
}

/// A body of the one type that a route takes.
fn of_type(headers: &HeaderMap, kind: &str, body: Result<Bytes, BytesRejection>) -> Result<Bytes, OidcError> {
    if !has_type(headers, kind) {
        return Err(OidcError::invalid_request(format!("only {kind} content-type bodies are supported")));
    }
    body.map_err(|_| OidcError::new(413, "invalid_request", "request entity too large"))
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

    /// Whoever tried Basic is told so (RFC 6749 section 5.2).
    fn to_client(&self, headers: &HeaderMap, issuer: &str) -> Reply {
        let tried = headers.get(header::AUTHORIZATION).and_then(|h| h.to_str().ok()).unwrap_or_default();
        if self.status != 401 || !tried.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic")) {
            return self.reply();
        }
        let challenge = format!(
            "Basic realm=\"{issuer}\", error=\"{}\", error_description=\"{}\"",
            self.error, self.description
        );
        with_header(self.reply(), "www-authenticate", &challenge)
    }

    fn reply(&self) -> Reply {
        let mut body = json!({"error": self.error, "error_description": self.description});
        if let Some(scope) = &self.scope {
            body["scope"] = scope.as_str().into();
        }
        reply(self.status, &body)
    }
}

async fn token(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Reply {
    let form = of_type(&headers, FORM, body).map(|body| form(&body));
    let read = form.as_deref().unwrap_or_default();
    let client_id = authenticate::claimed_client(read, &headers);
    let settings = {
        let mut state = shared.state.lock().await;
        state.counts_of(&client_id).asked(field(read, "scope").unwrap_or_default());
        state.settings(&client_id)
    };
    let fails = settings.strike().await;
    let mut state = shared.state.lock().await;
    let moment = Moment::of(&state, &client_id);
    let outcome = match form {
        _ if fails => Err(fault(settings.error.status)),
        Ok(form) => grant(&shared, &mut state, &form, &headers, moment).await,
        Err(error) => Err(error),
    };
    let mut answer = match outcome {
        Ok((body, key)) => {
            state.counts_of(&client_id).granted(key);
            reply(200, &body)
        }
        Err(error) => {
            state.counts_of(&client_id).refused += 1;
            error.to_client(&headers, &shared.description.oidc.issuer)
        }
    };
    if fails {
        answer = with_header(answer, "retry-after", &settings.error.retry_after_seconds.to_string());
    }
    moment.dated(answer)
}

/// A failure of the provider's own.
fn fault(status: u16) -> OidcError {
    match status {
        429 | 503 => OidcError::new(status, "temporarily_unavailable", "the server is overloaded, try later"),
        _ => OidcError::new(status, "server_error", "oops! something went wrong"),
    }
}

async fn grant(
    shared: &Shared,
    state: &mut State,
    form: &[(String, String)],
    headers: &HeaderMap,
    moment: Moment,
) -> Result<(Value, Option<String>), OidcError> {
    if let Some(name) = repeated(form) {
        return Err(OidcError::invalid_request(format!("'{name}' parameter must not be provided twice")));
    }
    let (client, key) = authenticate::authenticate(shared, state, form, headers, moment).await?;
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
        None => opaque(state, &client, &asked, lifetime, moment),
        Some(resource) => jwt(shared, &client, resource, &asked, lifetime, moment)?,
    };
    let mut body = json!({"access_token": access_token, "expires_in": lifetime, "token_type": "Bearer"});
    if !asked.is_empty() {
        body["scope"] = asked.join(" ").into();
    }
    Ok((body, key))
}

/// A token that says nothing: whoever gets it asks here what it is worth.
fn opaque(state: &mut State, client: &OidcClient, scopes: &[&str], lifetime: u64, moment: Moment) -> String {
    let (token, issued) = (random_secret(), moment.secs());
    let ends = issued.saturating_add_unsigned(lifetime);
    let (client_id, scope) = (client.client_id.clone(), scopes.join(" "));
    state.remember(&token, Opaque { client_id, scope, issued, ends });
    token
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
        "exp": now.saturating_add_unsigned(lifetime), "iss": shared.description.oidc.issuer, "aud": resource,
    });
    if !scopes.is_empty() {
        claims["scope"] = scopes.join(" ").into();
    }
    shared.signer.sign(&claims, "at+jwt").ok_or_else(|| fault(500))
}

async fn discovery(Extract(shared): Extract<Arc<Shared>>) -> Reply {
    let oidc = &shared.description.oidc;
    reply(
        200,
        &json!({
            "issuer": oidc.issuer, "token_endpoint": oidc.token_endpoint, "jwks_uri": oidc.jwks_uri,
            "registration_endpoint": oidc.registration_endpoint,
            "revocation_endpoint": oidc.revocation_endpoint,
            "introspection_endpoint": oidc.introspection_endpoint,
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
