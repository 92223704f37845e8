//! What becomes of tokens: revocation (RFC 7009) and introspection (RFC 7662). As at oidc-provider a JWT cannot be revoked, because whoever
//! checks it asks nobody.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{State as Extract, rejection::BytesRejection},
    http::HeaderMap,
    routing::post,
};
use serde_json::{Value, json};

use super::{OidcError, authenticate, fault, of_type};
use crate::{
    entra::Moment,
    graph::ORDERS_API,
    model::OidcClient,
    reply::{FORM, Reply, empty, field, form, json as reply, repeated, with_header},
    start::Shared,
    state::State,
};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/oidc/token/revocation", post(revoke))
        .route("/oidc/token/introspection", post(introspect))
}

type Form = Vec<(String, String)>;

async fn revoke(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Reply {
    answer(&shared, &headers, body, |state, client, token, _| {
        if shared.signer.claims(token, &shared.description.oidc.issuer, ORDERS_API).is_some() {
            let told = "revocation of the presented token type is not supported by the authorization server";
            return Err(OidcError::new(400, "unsupported_token_type", told));
        }
        match state.opaque(token).map(|found| found.client_id == client.client_id) {
            Some(false) => {
                Err(OidcError::invalid_request("client is not authorized to revoke the presented token"))
            }
            // One that is not known, or not any more, is as good as revoked (RFC 7009 section 2.2).
            Some(true) | None => {
                state.revoke(token);
                Ok(empty(200))
            }
        }
    })
    .await
}

async fn introspect(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Reply {
    answer(&shared, &headers, body, |state, _, token, moment| {
        let mut found = match state.opaque(token) {
            Some(opaque) => json!({
                "client_id": opaque.client_id, "scope": opaque.scope, "iat": opaque.issued, "exp": opaque.ends,
                "iss": shared.description.oidc.issuer,
            }),
            None => shared
                .signer
                .claims(token, &shared.description.oidc.issuer, ORDERS_API)
                .unwrap_or(Value::Null),
        };
        if found["exp"].as_i64().is_none_or(|ends| ends <= moment.secs()) {
            return Ok(reply(200, &json!({"active": false})));
        }
        found["active"] = true.into();
        found["token_type"] = "Bearer".into();
        Ok(reply(200, &found))
    })
    .await
}

/// Both begin alike: a form, a client that proves itself, a token; and both fail when the client's settings say so.
async fn answer(
    shared: &Shared,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    with: impl FnOnce(&mut State, &OidcClient, &str, Moment) -> Result<Reply, OidcError>,
) -> Reply {
    let form: Result<Form, _> = of_type(headers, FORM, body).map(|body| form(&body));
    let claimed = authenticate::claimed_client(form.as_deref().unwrap_or_default(), headers);
    let settings = shared.state.lock().await.settings(&claimed);
    let fails = settings.strike().await;
    let mut state = shared.state.lock().await;
    let moment = Moment::of(&state, &claimed);
    let outcome = match form {
        _ if fails => Err(fault(settings.error.status)),
        Ok(form) => of_client(shared, &mut state, &form, headers, moment, with).await,
        Err(error) => Err(error),
    };
    let mut answer = outcome.unwrap_or_else(|e| e.to_client(headers, &shared.description.oidc.issuer));
    if fails {
        answer = with_header(answer, "retry-after", &settings.error.retry_after_seconds.to_string());
    }
    moment.dated(answer)
}

async fn of_client(
    shared: &Shared,
    state: &mut State,
    form: &Form,
    headers: &HeaderMap,
    moment: Moment,
    with: impl FnOnce(&mut State, &OidcClient, &str, Moment) -> Result<Reply, OidcError>,
) -> Result<Reply, OidcError> {
    if let Some(name) = repeated(form) {
        return Err(OidcError::invalid_request(format!("'{name}' parameter must not be provided twice")));
    }
    let (client, _) = authenticate::authenticate(shared, state, form, headers, moment).await?;
    let token = field(form, "token")
        .ok_or_else(|| OidcError::invalid_request("missing required parameter 'token'"))?;
    with(state, &client, token, moment)
}
