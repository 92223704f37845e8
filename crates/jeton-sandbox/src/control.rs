//! The control door: what was asked, and faults to come. For tests and demonstrations; the listener is on loopback.

use std::sync::Arc;

use axum::{Router, body::Bytes, extract::State as Extract, routing::get};
use serde_json::{Value, json};

use crate::{
    entra, oidc,
    reply::{Reply, json as reply},
    settings::Settings,
    start::Shared,
    state::{Counts, State},
};

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/sandbox/stats", get(stats))
        .route("/sandbox/totals", get(totals))
        .route("/sandbox/settings", get(settings).put(change))
}

async fn stats(Extract(shared): Extract<Arc<Shared>>) -> Reply {
    let state = shared.state.lock().await;
    let own = state.applications.values().filter(|a| !a.built_in);
    let clients = state
        .counts
        .keys()
        .filter(|client| !client.is_empty())
        .cloned()
        .chain(own.map(|a| a.app_id.clone()))
        .chain(state.clients.keys().cloned());
    let by_client: serde_json::Map<String, Value> =
        clients.map(|client| (client.clone(), of_client(&state, &client))).collect();
    let mut body = in_all(&state);
    body["by_client"] = by_client.into();
    reply(200, &body)
}

/// The same without the clients, of which there may be very many.
async fn totals(Extract(shared): Extract<Arc<Shared>>) -> Reply {
    reply(200, &in_all(&*shared.state.lock().await))
}

fn in_all(state: &State) -> Value {
    let sum = |of: fn(&Counts) -> u64| state.counts.values().map(of).sum::<u64>();
    let own = state.applications.values().filter(|a| !a.built_in);
    let keys = own.clone().map(|a| a.keys.len()).sum::<usize>()
        + state.clients.values().map(|c| jwks(&c.metadata).count()).sum::<usize>();
    json!({
        "token_requests": {"total": sum(|c| c.total), "ok": sum(|c| c.ok), "refused": sum(|c| c.refused)},
        "applications": own.count() + state.clients.len(),
        "keys": keys,
    })
}

fn of_client(state: &State, client: &str) -> Value {
    let counts = state.counts.get(client).cloned().unwrap_or_default();
    let keys: Vec<String> = match (state.application_by_app_id(client), state.clients.get(client)) {
        (Some(application), _) => application.keys.iter().map(|k| k.x5t_s256.clone()).collect(),
        (None, Some(client)) => {
            jwks(&client.metadata).filter_map(|k| k["kid"].as_str().map(str::to_owned)).collect()
        }
        (None, None) => vec![],
    };
    json!({
        "total": counts.total, "ok": counts.ok, "refused": counts.refused, "by_scope": counts.by_scope,
        "keys": keys, "signed_with": counts.signed_with,
    })
}

fn jwks(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["jwks"]["keys"].as_array().into_iter().flatten()
}

async fn settings(Extract(shared): Extract<Arc<Shared>>) -> Reply {
    let state = shared.state.lock().await;
    shown(&shared, &state, "", state.settings(""))
}

/// Members that are absent stay as they are; null clears one.
async fn change(Extract(shared): Extract<Arc<Shared>>, body: Bytes) -> Reply {
    let failed =
        |status, error, message| reply(status, &json!({"error": error, "error_description": message}));
    let wrong = |message: String| failed(400, "invalid_settings", message);
    let Ok(Value::Object(mut members)) = serde_json::from_slice(&body) else {
        return wrong("expected a JSON object".into());
    };
    let client = match members.remove("client_id") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(client)) if !client.is_empty() => client,
        Some(_) => return wrong("client_id must be a client's id, or null for all".into()),
    };
    let mut state = shared.state.lock().await;
    match state.name_settings(&client, &Value::Object(members)).await {
        Ok(Ok(settings)) => shown(&shared, &state, &client, settings),
        Ok(Err(message)) => wrong(message),
        Err(e) => failed(503, "unavailable", e.to_string()),
    }
}

fn shown(shared: &Shared, state: &State, client: &str, mut settings: Settings) -> Reply {
    let by_default = if state.clients.contains_key(client) {
        oidc::DEFAULT_LIFETIME_SECONDS
    } else {
        entra::DEFAULT_LIFETIME_SECONDS
    };
    settings.token_lifetime_seconds.get_or_insert(by_default);
    settings.token_bytes.get_or_insert(shared.token_bytes);
    let mut body = serde_json::to_value(settings).unwrap_or_default();
    body["client_id"] = if client.is_empty() { Value::Null } else { client.into() };
    reply(200, &body)
}
