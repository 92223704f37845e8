//! The Entra-shaped tenant: the v2 token endpoint, discovery and signing keys.

mod assertion;
mod error;
mod grant;
mod groups;
mod signer;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State as Extract, rejection::BytesRejection},
    http::HeaderMap,
    routing::{get, post},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    reply::{FORM, Reply, basic, field, form, has_type, json as reply, with_header},
    settings::Settings,
    start::Shared,
    state::{State, machine_millis},
};
pub(crate) use grant::DEFAULT_LIFETIME_SECONDS;
pub(crate) use signer::Signer;

const MAX_BODY: usize = 64 * 1024;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/{tenant}/oauth2/v2.0/token", post(token))
        .route("/{tenant}/v2.0/.well-known/openid-configuration", get(discovery))
        .route("/{tenant}/discovery/v2.0/keys", get(keys))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

/// The time of a client's requests, as this tenant sees it.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) settings: Settings,
    pub(crate) millis: i64,
}

impl Moment {
    pub(crate) fn of(state: &State, client: &str) -> Self {
        let settings = state.settings(client);
        Self { settings, millis: machine_millis() + settings.clock_offset_seconds * 1_000 }
    }

    pub(crate) fn secs(&self) -> i64 {
        self.millis.div_euclid(1_000)
    }

    /// Whether something made then has spread by now.
    pub(crate) fn visible(&self, created_ms: i64) -> bool {
        machine_millis() - created_ms >= (self.settings.propagation_delay_seconds * 1_000.0) as i64
    }

    /// The Date header, by this tenant's clock.
    pub(crate) fn dated(&self, answer: Reply) -> Reply {
        let at = std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(self.millis).unwrap_or(0));
        with_header(answer, "date", &httpdate::fmt_http_date(at))
    }
}

/// The claims of a token that this tenant issued for an audience, and its client's moment. None if it expired by this tenant's clock.
pub(crate) fn accepted(
    shared: &Shared,
    state: &State,
    token: &str,
    audience: &str,
) -> Option<(Value, Moment)> {
    let claims = shared.signer.claims(token, &shared.description.entra.issuer, audience)?;
    let moment = Moment::of(state, claims["azp"].as_str()?);
    (claims["exp"].as_i64()? > moment.secs()).then_some((claims, moment))
}

async fn token(
    Extract(shared): Extract<Arc<Shared>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Reply {
    let correlation = correlation(&headers);
    let Ok(body) = body else {
        let now = Moment::of(&*shared.state.lock().await, "").secs();
        return with_header(error::too_large().reply(&correlation, now), "client-request-id", &correlation);
    };
    // A body of another type is not read, so its first parameter is missing.
    let form = if has_type(&headers, FORM) { form(&body) } else { vec![] };
    let (basic_id, secret) = basic(&headers).unzip();
    let client = field(&form, "client_id").map(str::to_owned).or(basic_id).unwrap_or_default();
    let settings = {
        let mut state = shared.state.lock().await;
        state.counts_of(&client).asked(field(&form, "scope").unwrap_or_default());
        state.settings(&client)
    };
    let fails = settings.strike().await;
    let mut state = shared.state.lock().await;
    let moment = Moment::of(&state, &client);
    let outcome = if fails {
        Err(error::fault(settings.error.status))
    } else {
        grant::grant(&shared, &mut state, &tenant, &client, &form, secret.as_deref(), moment).await
    };
    let mut answer = match outcome {
        Ok((body, key)) => {
            state.counts_of(&client).granted(key);
            reply(200, &body)
        }
        Err(refusal) => {
            state.counts_of(&client).refused += 1;
            refusal.reply(&correlation, moment.secs())
        }
    };
    if fails {
        answer = with_header(answer, "retry-after", &settings.error.retry_after_seconds.to_string());
    }
    moment.dated(with_header(answer, "client-request-id", &correlation))
}

/// The caller's own id of a request, or a new one.
pub(crate) fn correlation(headers: &HeaderMap) -> String {
    let given = headers.get("client-request-id").and_then(|h| h.to_str().ok());
    given.filter(|id| Uuid::try_parse(id).is_ok()).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

async fn discovery(Extract(shared): Extract<Arc<Shared>>, Path(tenant): Path<String>) -> Reply {
    let entra = &shared.description.entra;
    if tenant != entra.tenant {
        let now = Moment::of(&*shared.state.lock().await, "").secs();
        return error::unknown_tenant(&tenant).reply(&Uuid::new_v4().to_string(), now);
    }
    reply(
        200,
        &json!({
            "issuer": entra.issuer,
            "authorization_endpoint": format!("{}/oauth2/v2.0/authorize", entra.authority),
            "token_endpoint": entra.token_endpoint,
            "jwks_uri": entra.jwks_uri,
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "response_types_supported": ["code"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid"],
        }),
    )
}

async fn keys(Extract(shared): Extract<Arc<Shared>>, Path(_): Path<String>) -> Reply {
    reply(200, &shared.signer.jwks(&shared.description.entra.issuer))
}
