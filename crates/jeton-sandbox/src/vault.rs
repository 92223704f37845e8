//! A small key vault: it asks for a token, and the token's roles decide.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State as Extract},
    http::{HeaderMap, header},
    routing::get,
};
use serde_json::json;

use crate::{
    entra::accepted,
    graph::{VAULT_API, VAULT_ROLE},
    reply::{Reply, bearer, json as reply, with_header},
    start::Shared,
};

pub(crate) const SECRET_NAME: &str = "greeting";
const SECRET_VALUE: &str = "Bonjour from the vault: a token opened me, and nobody typed a password.";
const SECRET_VERSION: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/secrets/{name}", get(latest))
        .route("/secrets/{name}/", get(latest))
        .route("/secrets/{name}/{version}", get(version))
}

async fn latest(shared: Extract<Arc<Shared>>, Path(name): Path<String>, headers: HeaderMap) -> Reply {
    secret(&shared, &name, SECRET_VERSION, &headers).await
}

async fn version(
    shared: Extract<Arc<Shared>>,
    Path((name, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Reply {
    secret(&shared, &name, &version, &headers).await
}

async fn secret(shared: &Shared, name: &str, version: &str, headers: &HeaderMap) -> Reply {
    let Some(token) = bearer(headers) else {
        return challenge(shared, "AKV10000: Request is missing a Bearer token.");
    };
    let accepted = {
        let state = shared.state.lock().await;
        let api = state.applications.values().find(|a| a.identifier_uris.iter().any(|u| u == VAULT_API));
        api.and_then(|api| accepted(shared, &state, token, &api.app_id))
    };
    let Some((claims, _)) = accepted else {
        return challenge(shared, "AKV10032: Invalid token: wrong issuer, audience, signature or time.");
    };
    let roles = claims["roles"].as_array().cloned().unwrap_or_default();
    if !roles.iter().any(|role| role == VAULT_ROLE) {
        let message = format!(
            "Caller {} does not have the app role {VAULT_ROLE} on this vault.",
            claims["azp"].as_str().unwrap_or("?")
        );
        return reply(403, &json!({"error": {"code": "Forbidden", "message": message}}));
    }
    if name != SECRET_NAME || version != SECRET_VERSION {
        let message = format!("A secret with (name/id) {name} was not found in this key vault.");
        return reply(404, &json!({"error": {"code": "SecretNotFound", "message": message}}));
    }
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let base = if host.is_empty() { shared.description.vault.url.clone() } else { format!("https://{host}") };
    let id = format!("{base}/secrets/{name}/{version}");
    reply(
        200,
        &json!({"value": SECRET_VALUE, "id": id, "attributes": {"enabled": true, "recoveryLevel": "Recoverable"}}),
    )
}

fn challenge(shared: &Shared, message: &str) -> Reply {
    let authority = &shared.description.entra.authority;
    let challenge = format!("Bearer authorization=\"{authority}\", resource=\"{VAULT_API}\"");
    let body = json!({"error": {"code": "Unauthorized", "message": message}});
    with_header(reply(401, &body), "www-authenticate", &challenge)
}
