//! Dynamic client registration and its management (RFC 7591, RFC 7592). A registration access token is replaced at every PUT and
//! the old one is refused at once.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State as Extract},
    http::HeaderMap,
    routing::{get, post},
};
use serde_json::{Value, json};

use super::OidcError;
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
/// Members of a private JWK (RFC 7518 section 6).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];
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
]; // fmt: skip

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/oidc/reg", post(create))
        .route("/oidc/reg/{client_id}", get(read).put(update).delete(remove))
}

async fn create(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Reply {
    if bearer(&headers) != Some(&shared.description.initial_access_token) {
        return invalid_token();
    }
    let mut state = shared.state.lock().await;
    let metadata = match parse(&body).and_then(|given| checked(&given, &shared)) {
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
    body: Bytes,
) -> Reply {
    let mut state = shared.state.lock().await;
    let Some(mut client) = authorized(&state, &id, &headers).map(|(client, _)| client.clone()) else {
        return invalid_token();
    };
    let metadata = match parse(&body).and_then(|given| changed(&given, &id, &shared)) {
        Ok(metadata) => metadata,
        Err(error) => return error.reply(),
    };
    let issued_at = client.metadata["client_id_issued_at"].clone();
    let access_token = random_secret();
    client.metadata = metadata;
    client.metadata["client_id_issued_at"] = issued_at;
    client.access_token_sha256 = sha256_hex(&access_token);
    let shown = shown(&shared, &client, &access_token, None);
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

fn parse(body: &[u8]) -> Result<Value, OidcError> {
    let parsed: Option<Value> = serde_json::from_slice(body).ok().filter(Value::is_object);
    parsed.ok_or_else(|| OidcError::invalid_request("failed to parse the request body"))
}

/// A PUT carries the whole document, its own client id, and nothing that only the server sets.
fn changed(given: &Value, id: &str, shared: &Shared) -> Result<Value, OidcError> {
    if let Some(name) = FORBIDDEN.iter().find(|name| !given[**name].is_null()) {
        return Err(OidcError::invalid_request(format!("request MUST NOT include the {name} field")));
    }
    if given["client_id"] != id {
        return Err(OidcError::invalid_request(
            "provided client_id does not match the authenticated client's one",
        ));
    }
    checked(given, shared)
}

fn checked(given: &Value, shared: &Shared) -> Result<Value, OidcError> {
    let wrong = |text: &str| Err(OidcError::new(400, "invalid_client_metadata", text));
    let mut metadata = json!({});
    for name in KNOWN.iter().filter(|name| !given[**name].is_null()) {
        metadata[*name] = given[*name].clone();
    }
    if !given["redirect_uris"].is_array() {
        return Err(OidcError::new(400, "invalid_redirect_uri", "redirect_uris is mandatory property"));
    }
    if !given["response_types"].is_array() {
        return wrong("response_types can only contain 'code id_token', 'code', 'id_token', or 'none'");
    }
    if given["grant_types"] != json!(["client_credentials"]) {
        return wrong("grant_types can only contain 'client_credentials'");
    }
    let scopes = given["scope"].as_str().unwrap_or_default();
    if scopes.split_whitespace().any(|s| !shared.description.oidc.scopes.iter().any(|known| known == s)) {
        return wrong("scope must only contain Authorization Server supported scope values");
    }
    if given["token_endpoint_auth_method"] == "private_key_jwt" {
        let Some(keys) = given["jwks"]["keys"].as_array() else {
            return wrong("jwks or jwks_uri is mandatory for this client");
        };
        let public =
            |key: &Value| key["kty"].is_string() && PRIVATE.iter().all(|member| key[*member].is_null());
        if !keys.iter().all(public) {
            return wrong("client JSON Web Key Set is invalid: keys must be public and asymmetric");
        }
    }
    Ok(metadata)
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
