//! A small key vault: it asks for a token, and the token's roles decide.
//!
//! It goes by two names. Clients that verify the challenge's resource want to see their vault below it, as every vault of the cloud is
//! below `vault.azure.net`: for them it is `NAME.vault.localhost`, and the resource `https://vault.localhost:PORT`.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State as Extract},
    http::{header, request::Parts, uri::Authority},
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
/// What its names end with where its resource is verified.
pub(crate) const DOMAIN: &str = "vault.localhost";

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/secrets/{name}", get(latest))
        .route("/secrets/{name}/", get(latest))
        .route("/secrets/{name}/{version}", get(version))
        .method_not_allowed_fallback(nothing_else)
        .fallback(nothing_else)
}

async fn nothing_else() -> Reply {
    let message = "This vault only answers GET /secrets/NAME and GET /secrets/NAME/VERSION.";
    reply(404, &json!({"error": {"code": "NotFound", "message": message}}))
}

async fn latest(shared: Extract<Arc<Shared>>, Path(name): Path<String>, request: Parts) -> Reply {
    secret(&shared, &name, SECRET_VERSION, &request).await
}

async fn version(
    shared: Extract<Arc<Shared>>,
    Path((name, version)): Path<(String, String)>,
    request: Parts,
) -> Reply {
    secret(&shared, &name, &version, &request).await
}

async fn secret(shared: &Shared, name: &str, version: &str, request: &Parts) -> Reply {
    let called = called(request);
    let Some(token) = bearer(&request.headers) else {
        return challenge(shared, called.as_ref(), "AKV10000: Request is missing a Bearer token.");
    };
    let accepted = {
        let state = shared.state.lock().await;
        let api = state.applications.values().find(|a| a.identifier_uris.iter().any(|u| u == VAULT_API));
        api.and_then(|api| accepted(shared, &state, token, &api.app_id))
    };
    let Some((claims, _)) = accepted else {
        let message = "AKV10032: Invalid token: wrong issuer, audience, signature or time.";
        return challenge(shared, called.as_ref(), message);
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
    let base =
        called.map_or_else(|| shared.description.vault.url.clone(), |called| format!("https://{called}"));
    let id = format!("{base}/secrets/{name}/{version}");
    reply(
        200,
        &json!({"value": SECRET_VALUE, "id": id, "attributes": {"enabled": true, "recoveryLevel": "Recoverable"}}),
    )
}

/// By which name the client called; in HTTP/2 it stands in the target.
fn called(request: &Parts) -> Option<Authority> {
    let host = || request.headers.get(header::HOST)?.to_str().ok()?.parse().ok();
    request.uri.authority().cloned().or_else(host)
}

fn challenge(shared: &Shared, called: Option<&Authority>, message: &str) -> Reply {
    let (authority, vault) = (&shared.description.entra.authority, &shared.description.vault);
    let resource = if called.is_some_and(in_domain) { vault.named_resource.as_str() } else { VAULT_API };
    let challenge = format!("Bearer authorization=\"{authority}\", resource=\"{resource}\"");
    let body = json!({"error": {"code": "Unauthorized", "message": message}});
    with_header(reply(401, &body), "www-authenticate", &challenge)
}

fn in_domain(called: &Authority) -> bool {
    let host = called.host().to_ascii_lowercase();
    host.strip_suffix(DOMAIN).is_some_and(|name| name.len() > 1 && name.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_below_the_domain_is_asked_for_the_resource_above_it() {
        for (called, named) in [
            ("greeting.vault.localhost:7444", true),
            ("GREETING.Vault.localhost", true),
            ("localhost:7444", false),
            ("127.0.0.1:7444", false),
            ("vault.localhost:7444", false),
            (".vault.localhost", false),
            ("greetingvault.localhost", false),
            ("greeting.vault.localhost.example", false),
        ] {
            assert_eq!(in_domain(&called.parse().unwrap()), named, "{called}");
        }
    }

    #[test]
    fn the_name_is_read_from_the_target_or_from_the_host_header() {
        let parts = |uri: &str, host: &str| {
            let request = axum::http::Request::get(uri).header(header::HOST, host).body(()).unwrap();
            called(&request.into_parts().0).unwrap().to_string()
        };
        assert_eq!(
            parts("/secrets/greeting/?api%2Dversion=7.4", "a.vault.localhost:1"),
            "a.vault.localhost:1"
        );
        assert_eq!(parts("https://b.vault.localhost:2/secrets/greeting", "x"), "b.vault.localhost:2");
    }
}
