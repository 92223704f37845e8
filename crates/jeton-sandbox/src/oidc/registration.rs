//! Dynamic client registration and its management (RFC 7591, RFC 7592). A registration access token is replaced at every PUT and
//! the old one is refused at once.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State as Extract, rejection::BytesRejection},
    http::HeaderMap,
    routing::{get, post},
};
use serde_json::Value;

use super::{OidcError, metadata, of_type};
use crate::{
    model::OidcClient,
    reply::{Reply, bearer, empty, json as reply},
    start::{Shared, random_secret},
    state::{Changes, Kind, State, machine_millis, sha256_hex},
};

/// Members that a PUT must not carry.
const FORBIDDEN: [&str; 4] = [
    "registration_access_token",
    "registration_client_uri",
    "client_secret_expires_at",
    "client_id_issued_at",
];
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/oidc/reg", post(create))
        .route("/oidc/reg/{client_id}", get(read).put(update).delete(remove))
}

async fn create(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Reply {
    if bearer(&headers) != Some(&shared.description.initial_access_token) {
        return invalid_token();
    }
    let mut state = shared.state.lock().await;
    let metadata = match parse(&headers, body)
        .and_then(|given| metadata::checked(&given, &shared.description.oidc.scopes))
    {
        Ok(metadata) => metadata,
        Err(error) => return error.reply(),
    };
    let (access_token, secret) = (random_secret(), secret_for(&metadata));
    let mut client = OidcClient {
        client_id: random_secret().chars().take(21).collect(),
        metadata,
        access_token_sha256: sha256_hex(&access_token),
        secret_sha256: secret.as_deref().map(sha256_hex),
    };
    client.metadata["client_id_issued_at"] = (machine_millis() / 1_000).into();
    let shown = shown(&shared, &client, &access_token, secret.as_deref());
    match save(&mut state, client).await {
        Ok(()) => reply(201, &shown),
        Err(error) => error.reply(),
    }
}

async fn read(Extract(shared): Extract<Arc<Shared>>, Path(id): Path<String>, headers: HeaderMap) -> Reply {
    let state = shared.state.lock().await;
    match authorized(&state, &id, &headers) {
        Some((client, token)) => reply(200, &shown(&shared, client, token, None)),
        None => invalid_token(),
    }
}

async fn update(
    Extract(shared): Extract<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Reply {
    let mut state = shared.state.lock().await;
    let Some(mut client) = authorized(&state, &id, &headers).map(|(client, _)| client.clone()) else {
        return invalid_token();
    };
    let metadata = match parse(&headers, body).and_then(|given| changed(&given, &client, &shared)) {
        Ok(metadata) => metadata,
        Err(error) => return error.reply(),
    };
    let issued_at = client.metadata["client_id_issued_at"].clone();
    let access_token = random_secret();
    client.metadata = metadata;
    client.metadata["client_id_issued_at"] = issued_at;
    client.access_token_sha256 = sha256_hex(&access_token);
    // One that had no use for a secret before gets one now.
    let secret = if client.secret_sha256.is_none() { secret_for(&client.metadata) } else { None };
    client.secret_sha256 = secret.as_deref().map(sha256_hex).or(client.secret_sha256);
    let shown = shown(&shared, &client, &access_token, secret.as_deref());
    match save(&mut state, client).await {
        Ok(()) => reply(200, &shown),
        Err(error) => error.reply(),
    }
}

async fn remove(Extract(shared): Extract<Arc<Shared>>, Path(id): Path<String>, headers: HeaderMap) -> Reply {
    let mut state = shared.state.lock().await;
    if authorized(&state, &id, &headers).is_none() {
        return invalid_token();
    }
    if let Err(e) = state.commit(Changes::default().remove(Kind::Client, &id)).await {
        return OidcError::new(503, "temporarily_unavailable", e.to_string()).reply();
    }
    state.clients.remove(&id);
    empty(204)
}

fn authorized<'a>(state: &'a State, id: &str, headers: &'a HeaderMap) -> Option<(&'a OidcClient, &'a str)> {
    let token = bearer(headers)?;
    let client = state.clients.get(id).filter(|c| c.access_token_sha256 == sha256_hex(token))?;
    Some((client, token))
}

fn parse(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Value, OidcError> {
    let body = of_type(headers, "application/json", body)?;
    let parsed: Option<Value> = serde_json::from_slice(&body).ok().filter(Value::is_object);
    parsed.ok_or_else(|| OidcError::invalid_request("failed to parse the request body"))
}

/// A PUT carries the whole document, its own client id and secret, and nothing that only the server sets.
fn changed(given: &Value, client: &OidcClient, shared: &Shared) -> Result<Value, OidcError> {
    if let Some(name) = FORBIDDEN.iter().find(|name| !given[**name].is_null()) {
        return Err(OidcError::invalid_request(format!("request MUST NOT include the {name} field")));
    }
    let other = |name: &str| {
        let text = format!("provided {name} does not match the authenticated client's one");
        Err(OidcError::invalid_request(text))
    };
    if given["client_id"] != client.client_id.as_str() {
        return other("client_id");
    }
    if !given["client_secret"].is_null()
        && given["client_secret"].as_str().map(sha256_hex) != client.secret_sha256
    {
        return other("client_secret");
    }
    metadata::checked(given, &shared.description.oidc.scopes)
}

fn secret_for(metadata: &Value) -> Option<String> {
    let method = metadata["token_endpoint_auth_method"].as_str().unwrap_or("client_secret_basic");
    method.starts_with("client_secret").then(random_secret)
}

fn shown(shared: &Shared, client: &OidcClient, access_token: &str, secret: Option<&str>) -> Value {
    let mut body = client.metadata.clone();
    body["client_id"] = client.client_id.as_str().into();
    body["registration_client_uri"] =
        format!("{}/{}", shared.description.oidc.registration_endpoint, client.client_id).into();
    body["registration_access_token"] = access_token.into();
    if let Some(secret) = secret {
        body["client_secret"] = secret.into();
        body["client_secret_expires_at"] = 0.into();
    }
    body
}

async fn save(state: &mut State, client: OidcClient) -> Result<(), OidcError> {
    let changes = Changes::default().put(Kind::Client, &client.client_id, &client);
    state.commit(changes).await.map_err(|e| OidcError::new(503, "temporarily_unavailable", e.to_string()))?;
    state.clients.insert(client.client_id.clone(), client);
    Ok(())
}

fn invalid_token() -> Reply {
    let answer = OidcError::new(401, "invalid_token", "invalid token provided").reply();
    crate::reply::with_header(answer, "www-authenticate", "Bearer realm=\"oidc\", error=\"invalid_token\"")
}
