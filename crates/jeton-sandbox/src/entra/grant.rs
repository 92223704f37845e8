//! The client credentials grant: who asks, with what proof, for which API.

use serde_json::{Value, json};

use super::{
    Moment,
    assertion::{self, SKEW_SECONDS},
    error::{self, Refusal},
    groups,
};
use crate::{
    model::{Application, RoleGrant, ServicePrincipal},
    reply::{field, repeated},
    start::{Shared, random_secret},
    state::{State, sha256_hex},
};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
pub(crate) const DEFAULT_LIFETIME_SECONDS: u64 = 3600;

/// The answer, and the key that proved the client if one did.
type Granted = (Value, Option<String>);

/// Checks everything, in the order in which the errors are told apart.
pub(super) async fn grant(
    shared: &Shared,
    state: &mut State,
    tenant: &str,
    client: &str,
    form: &[(String, String)],
    basic_secret: Option<&str>,
    moment: Moment,
) -> Result<Granted, Refusal> {
    well_formed(shared, tenant, client, form)?;
    let application = state.application_by_app_id(client).filter(|a| moment.visible(a.created_ms)).cloned();
    let application = application.ok_or_else(|| error::unknown_application(client, tenant))?;
    let principal = state.principal_of(client).filter(|p| moment.visible(p.created_ms)).cloned();
    let principal = principal.ok_or_else(|| error::unknown_application(client, tenant))?;
    if !principal.enabled {
        return Err(error::disabled(client));
    }
    let key = authenticate(shared, state, &application, form, basic_secret, moment).await?;
    let (api, resource) = api_of(state, field(form, "scope").unwrap_or_default(), moment)?;
    let granted = state.granted(&principal.id, &resource.id).filter(|g| moment.visible(g.created_ms));
    let granted: Vec<&RoleGrant> = granted.collect();
    if resource.assignment_required && granted.is_empty() {
        return Err(error::not_assigned(client, &api.app_id));
    }
    let lifetime = moment.settings.token_lifetime_seconds.unwrap_or(DEFAULT_LIFETIME_SECONDS);
    let now = moment.secs();
    let mut claims = json!({
        "aud": api.app_id, "iss": shared.description.entra.issuer, "iat": now, "nbf": now,
        "exp": now.saturating_add_unsigned(lifetime),
        "aio": random_secret(), "azp": client, "azpacr": if key.is_some() { "2" } else { "1" },
        "oid": principal.id, "rh": format!("1.{}.", random_secret()), "sub": principal.id, "tid": tenant,
        "uti": random_secret(), "ver": "2.0",
    });
    if let Some(roles) = roles(&granted, &api) {
        claims["roles"] = roles;
    }
    if let Some(capabilities) = capabilities(form)? {
        claims["xms_cc"] = capabilities;
    }
    let mut token = shared.signer.sign(&claims, "JWT").ok_or_else(error::server_error)?;
    let wanted = moment.settings.token_bytes.unwrap_or(shared.token_bytes);
    if let Some(groups) = groups::filling(token.len(), wanted, &principal.id) {
        claims["groups"] = groups;
        token = shared.signer.sign(&claims, "JWT").ok_or_else(error::server_error)?;
    }
    Ok((
        json!({"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": token}),
        key,
    ))
}

/// Whether the request is one that this endpoint reads, whoever asks.
fn well_formed(
    shared: &Shared,
    tenant: &str,
    client: &str,
    form: &[(String, String)],
) -> Result<(), Refusal> {
    if tenant != shared.description.entra.tenant {
        return Err(error::unknown_tenant(tenant));
    }
    if let Some(name) = repeated(form) {
        return Err(error::repeated_parameter(name));
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
    Ok(())
}

/// The values of the app roles; none rather than an empty list.
fn roles(granted: &[&RoleGrant], api: &Application) -> Option<Value> {
    let role = |grant: &&RoleGrant| api.app_roles.iter().find(|role| role.id == grant.role);
    let mut roles: Vec<_> = granted.iter().filter_map(role).map(|role| role.value.as_str()).collect();
    roles.sort_unstable();
    (!roles.is_empty()).then(|| roles.into())
}

/// The key that proved the client; none if a secret did.
async fn authenticate(
    shared: &Shared,
    state: &mut State,
    application: &Application,
    form: &[(String, String)],
    basic_secret: Option<&str>,
    moment: Moment,
) -> Result<Option<String>, Refusal> {
    if let Some(assertion) = field(form, "client_assertion") {
        match field(form, "client_assertion_type") {
            Some(ASSERTION_TYPE) => {}
            Some(_) => return Err(error::invalid_parameter("client_assertion_type")),
            None => return Err(error::missing_parameter("client_assertion_type")),
        }
        let checked = assertion::check(assertion, application, &shared.description.entra, moment)?;
        if moment.settings.reject_replay {
            // Without an id, the assertion itself tells what was there before.
            let id = Some(checked.jti).filter(|jti| !jti.is_empty());
            let id = id.unwrap_or_else(|| sha256_hex(assertion.trim()));
            let first = state.use_once(&application.app_id, &id, checked.expires - moment.secs()).await;
            if !first.map_err(|_| error::server_error())? {
                return Err(error::replayed());
            }
        }
        return Ok(Some(checked.key));
    }
    let Some(secret) = field(form, "client_secret").or(basic_secret) else {
        return Err(error::no_credential());
    };
    let sha256 = sha256_hex(secret);
    let known = application.secrets.iter().find(|s| s.sha256 == sha256);
    match known.filter(|s| s.not_before <= moment.secs().saturating_add(SKEW_SECONDS)) {
        None => Err(error::wrong_secret(&application.app_id)),
        Some(found) if found.not_after <= moment.secs() => Err(error::expired_secret(&application.app_id)),
        Some(_) => Ok(None),
    }
}

/// The one API that a scope names, and its service principal in this tenant.
fn api_of(state: &State, scope: &str, moment: Moment) -> Result<(Application, ServicePrincipal), Refusal> {
    let mut resources = vec![];
    for scope in scope.split_whitespace() {
        resources.push(scope.strip_suffix("/.default").ok_or_else(|| error::not_default(scope))?);
    }
    resources.dedup();
    let resource = match resources[..] {
        [resource] if !resource.is_empty() => resource,
        [_, _, ..] => return Err(error::several_resources(scope)),
        _ => return Err(error::malformed_scope(scope)),
    };
    let named =
        |a: &&Application| a.app_id == resource || a.identifier_uris.iter().any(|uri| uri == resource);
    let api = state.applications.values().find(named).filter(|a| moment.visible(a.created_ms));
    let principal = api.and_then(|a| state.principal_of(&a.app_id)).filter(|p| moment.visible(p.created_ms));
    let (api, principal) = api.zip(principal).ok_or_else(|| error::unknown_resource(resource))?;
    if !principal.enabled {
        return Err(error::disabled_resource(resource));
    }
    Ok((api.clone(), principal.clone()))
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
