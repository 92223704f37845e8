//! The Entra-shaped tenant: the v2 token endpoint, discovery and signing keys.

mod assertion;
mod error;
mod signer;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State as Extract},
    http::{HeaderMap, header},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    model::{Application, Settings},
    reply::{Reply, field, form, json as reply, text, with_header},
    start::Shared,
    state::{State, machine_millis, sha256_hex},
};
use error::Refusal;
pub(crate) use signer::Signer;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const DEFAULT_LIFETIME_SECONDS: u64 = 3600;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/{tenant}/oauth2/v2.0/token", post(token))
        .route("/{tenant}/v2.0/.well-known/openid-configuration", get(discovery))
        .route("/{tenant}/discovery/v2.0/keys", get(keys))
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

async fn token(
    Extract(shared): Extract<Arc<Shared>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    let form = form(&body);
    let request_id = headers
        .get("client-request-id")
        .and_then(|h| h.to_str().ok())
        .filter(|id| Uuid::try_parse(id).is_ok());
    let correlation = request_id.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
    let basic = basic(&headers);
    let client =
        field(&form, "client_id").map(str::to_owned).or_else(|| basic.as_ref().map(|(id, _)| id.clone()));
    let (client, secret) = (client.unwrap_or_default(), basic.map(|(_, secret)| secret));
    let moment = {
        let mut state = shared.state.lock().await;
        let counts = state.counts.entry(client.clone()).or_default();
        counts.total += 1;
        *counts.by_scope.entry(field(&form, "scope").unwrap_or_default().to_owned()).or_default() += 1;
        Moment::of(&state, &client)
    };
    if let Some(fault) = faults(&moment.settings).await {
        shared.state.lock().await.counts.entry(client).or_default().refused += 1;
        return Moment::of(&*shared.state.lock().await, "").dated(fault);
    }
    let mut state = shared.state.lock().await;
    let moment = Moment::of(&state, &client);
    let outcome = grant(&shared, &mut state, &tenant, &client, &form, secret.as_deref(), moment);
    let counts = state.counts.entry(client).or_default();
    let answer = match outcome {
        Ok((body, key)) => {
            counts.ok += 1;
            counts.signed_with.extend(key.filter(|k| !counts.signed_with.contains(k)));
            reply(200, &body)
        }
        Err(refusal) => {
            counts.refused += 1;
            refusal.reply(&correlation, moment.secs())
        }
    };
    moment.dated(with_header(answer, "client-request-id", &correlation))
}

/// Latency, hanging, errors: what the control door ordered.
pub(crate) async fn faults(settings: &Settings) -> Option<Reply> {
    let wait = Duration::from_millis(settings.latency_ms)
        + Duration::from_secs_f64(settings.hang_seconds.clamp(0.0, 3_600.0));
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    if settings.error.rate <= 0.0 || rand::rng().random::<f64>() >= settings.error.rate {
        return None;
    }
    let answer = match settings.error.status {
        429 => text(429, "Too Many Requests"),
        status => reply(
            status,
            &json!({"error": "temporarily_unavailable", "error_description": "AADSTS90033: A transient error has occurred. Please try again.", "error_codes": [90033]}),
        ),
    };
    Some(with_header(answer, "retry-after", &settings.error.retry_after_seconds.to_string()))
}

type Granted = (Value, Option<String>);

fn grant(
    shared: &Shared,
    state: &mut State,
    tenant: &str,
    client: &str,
    form: &[(String, String)],
    basic_secret: Option<&str>,
    moment: Moment,
) -> Result<Granted, Refusal> {
    if tenant != shared.description.entra.tenant {
        return Err(error::unknown_tenant(tenant));
    }
    for required in ["grant_type", "scope"] {
        field(form, required).ok_or_else(|| error::missing_parameter(required))?;
    }
    if client.is_empty() {
        return Err(error::missing_parameter("client_id"));
    }
    let grant_type = field(form, "grant_type").unwrap_or_default();
    if grant_type != "client_credentials" {
        return Err(error::unsupported_grant(grant_type));
    }
    if field(form, "resource").is_some() {
        return Err(error::resource_parameter());
    }
    let application = state.application_by_app_id(client).filter(|a| moment.visible(a.created_ms)).cloned();
    let application = application.ok_or_else(|| error::unknown_application(client, tenant))?;
    let principal = state.principal_of(client).filter(|p| moment.visible(p.created_ms)).cloned();
    let principal = principal.ok_or_else(|| error::unknown_application(client, tenant))?;
    if !principal.enabled {
        return Err(error::disabled(client));
    }
    let key = authenticate(shared, state, &application, form, basic_secret, moment)?;
    let api = api_of(state, field(form, "scope").unwrap_or_default())?;
    let capabilities = capabilities(form)?;
    let roles = state.roles(&principal.id, &api, |created| moment.visible(created));
    let lifetime = moment.settings.token_lifetime_seconds.unwrap_or(DEFAULT_LIFETIME_SECONDS);
    let now = moment.secs();
    let mut claims = json!({
        "aud": api.app_id, "iss": shared.description.entra.issuer, "iat": now, "nbf": now,
        "exp": now + i64::try_from(lifetime).unwrap_or(i64::MAX / 2),
        "aio": crate::start::random_secret(), "azp": client, "azpacr": if key.is_some() { "2" } else { "1" },
        "oid": principal.id, "sub": principal.id, "tid": tenant, "uti": crate::start::random_secret(), "ver": "2.0",
    });
    if !roles.is_empty() {
        claims["roles"] = roles.into();
    }
    if let Some(capabilities) = capabilities {
        claims["xms_cc"] = capabilities;
    }
    let token = shared.signer.sign(&claims, "JWT").ok_or_else(error::server_error)?;
    Ok((
        json!({"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": token}),
        key,
    ))
}

/// The key that proved the client; none if a secret did.
fn authenticate(
    shared: &Shared,
    state: &mut State,
    application: &Application,
    form: &[(String, String)],
    basic_secret: Option<&str>,
    moment: Moment,
) -> Result<Option<String>, Refusal> {
    if let Some(assertion) = field(form, "client_assertion") {
        if field(form, "client_assertion_type") != Some(ASSERTION_TYPE) {
            return Err(error::missing_parameter("client_assertion_type"));
        }
        let checked = assertion::check(assertion, application, &shared.description.entra, moment)?;
        let first = state.use_once(&application.app_id, &checked.jti, checked.expires, moment.secs());
        if moment.settings.reject_replay && !first {
            return Err(error::replayed());
        }
        return Ok(Some(checked.key));
    }
    let Some(secret) = field(form, "client_secret").or(basic_secret) else {
        return Err(error::no_credential());
    };
    let sha256 = sha256_hex(secret);
    match application.secrets.iter().find(|s| s.sha256 == sha256) {
        None => Err(error::wrong_secret(&application.app_id)),
        Some(found) if found.not_after <= moment.secs() => Err(error::expired_secret(&application.app_id)),
        Some(_) => Ok(None),
    }
}

/// The one API that a scope names.
fn api_of(state: &State, scope: &str) -> Result<Application, Refusal> {
    let scopes: Vec<_> = scope.split_whitespace().collect();
    let [scope] = scopes[..] else { return Err(error::several_scopes(scope)) };
    let Some(resource) = scope.strip_suffix("/.default") else { return Err(error::not_default(scope)) };
    let named =
        |a: &&Application| a.app_id == resource || a.identifier_uris.iter().any(|uri| uri == resource);
    state.applications.values().find(named).cloned().ok_or_else(|| error::unknown_resource(resource))
}

/// `xms_cc` of a claims request; a text that is no JSON object is refused.
fn capabilities(form: &[(String, String)]) -> Result<Option<Value>, Refusal> {
    let Some(claims) = field(form, "claims") else { return Ok(None) };
    let parsed: Value = serde_json::from_str(claims).map_err(|_| error::malformed_claims())?;
    if !parsed.is_object() {
        return Err(error::malformed_claims());
    }
    let values = &parsed["access_token"]["xms_cc"]["values"];
    Ok(values.is_array().then(|| values.clone()))
}

/// HTTP Basic, with both parts form-encoded (RFC 6749 section 2.3.1).
pub(crate) fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let encoded = value.strip_prefix("Basic ").or_else(|| value.strip_prefix("basic "))?;
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let plain = |part: &str| form(format!("x={part}").as_bytes()).into_iter().next().map(|(_, value)| value);
    Some((plain(id)?, plain(secret)?))
}

async fn discovery(Extract(shared): Extract<Arc<Shared>>, Path(tenant): Path<String>) -> Reply {
    let entra = &shared.description.entra;
    if tenant != entra.tenant {
        return error::unknown_tenant(&tenant).reply(&Uuid::new_v4().to_string(), machine_millis() / 1_000);
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
