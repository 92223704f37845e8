//! The errors of the token endpoint, worded and numbered as Entra's.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::reply::{Reply, json as reply};

#[derive(Debug)]
pub(crate) struct Refusal {
    status: u16,
    error: &'static str,
    code: u32,
    text: String,
}

impl Refusal {
    pub(super) fn reply(&self, correlation: &str, now: i64) -> Reply {
        let trace = Uuid::new_v4().to_string();
        let timestamp = timestamp(now);
        let body: Value = json!({
            "error": self.error,
            "error_description": format!(
                "AADSTS{}: {} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}", self.code, self.text
            ),
            "error_codes": [self.code],
            "timestamp": timestamp,
            "trace_id": trace,
            "correlation_id": correlation,
        });
        reply(self.status, &body)
    }
}

/// `2026-01-01 00:00:00Z`
fn timestamp(now: i64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(now).unwrap_or(0));
    let date = httpdate::fmt_http_date(at);
    // "Thu, 01 Jan 2026 00:00:00 GMT"
    let parts: Vec<_> = date.split_whitespace().collect();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|m| Some(m) == parts.get(2)).unwrap_or(0) + 1;
    match parts[..] {
        [_, day, _, year, time, _] => format!("{year}-{month:02}-{day} {time}Z"),
        _ => date,
    }
}

fn client(code: u32, text: impl Into<String>) -> Refusal {
    Refusal { status: 401, error: "invalid_client", code, text: text.into() }
}

fn bad(error: &'static str, code: u32, text: impl Into<String>) -> Refusal {
    Refusal { status: 400, error, code, text: text.into() }
}

pub(super) fn unknown_tenant(tenant: &str) -> Refusal {
    bad(
        "invalid_request",
        90002,
        format!(
            "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."
        ),
    )
}

pub(super) fn missing_parameter(name: &str) -> Refusal {
    bad(
        "invalid_request",
        900144,
        format!("The request body must contain the following parameter: '{name}'."),
    )
}

pub(super) fn unsupported_grant(given: &str) -> Refusal {
    bad("unsupported_grant_type", 70003, format!("The app requested an unsupported grant type '{given}'."))
}

pub(super) fn resource_parameter() -> Refusal {
    bad("invalid_request", 901002, "The 'resource' request parameter is not supported.")
}

pub(super) fn unknown_application(app: &str, tenant: &str) -> Refusal {
    bad(
        "unauthorized_client",
        700016,
        format!(
            "Application with identifier '{app}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant."
        ),
    )
}

pub(super) fn disabled(app: &str) -> Refusal {
    bad("unauthorized_client", 7000112, format!("Application '{app}' is disabled."))
}

pub(super) fn no_credential() -> Refusal {
    client(
        7000218,
        "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
    )
}

pub(super) fn wrong_secret(app: &str) -> Refusal {
    client(
        7000215,
        format!(
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{app}'."
        ),
    )
}

pub(super) fn expired_secret(app: &str) -> Refusal {
    client(7000222, format!("The provided client secret keys for app '{app}' are expired."))
}

pub(super) fn malformed_assertion() -> Refusal {
    client(50027, "Invalid JWT token. The token is malformed.")
}

pub(super) fn no_thumbprint() -> Refusal {
    client(50027, "Invalid JWT token. No certificate thumbprint specified in token header.")
}

pub(super) fn algorithm(given: &str) -> Refusal {
    client(
        5002738,
        format!(
            "Invalid JWT token. '{given}' is not a supported signature algorithm. Supported signing algorithms are: 'RS256, PS256'."
        ),
    )
}

pub(super) fn unknown_key(thumbprint: &str) -> Refusal {
    client(
        700027,
        format!(
            "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - The key was not found., Thumbprint of key used by client: '{thumbprint}']"
        ),
    )
}

pub(super) fn lapsed_key(thumbprint: &str) -> Refusal {
    client(
        700027,
        format!(
            "The certificate with identifier used to sign the client assertion is expired on application. [Reason - The key used is expired., Thumbprint of key used by client: '{thumbprint}']"
        ),
    )
}

pub(super) fn bad_signature(thumbprint: &str) -> Refusal {
    client(
        700027,
        format!(
            "Client assertion failed signature validation. [Reason - The provided signature value did not match the expected signature value., Thumbprint of key used by client: '{thumbprint}']"
        ),
    )
}

pub(super) fn time_range(now: i64, from: Option<i64>, until: i64) -> Refusal {
    client(
        700024,
        format!(
            "Client assertion is not within its valid time range. Current time: {now}, assertion valid from {}, expiry time of assertion {until}.",
            from.unwrap_or(0)
        ),
    )
}

pub(super) fn wrong_audience() -> Refusal {
    client(
        700023,
        "Client assertion audience claim does not match Realm issuer. Review the documentation at https://docs.microsoft.com/azure/active-directory/develop/active-directory-certificate-credentials .",
    )
}

pub(super) fn not_the_client(claim: &str) -> Refusal {
    client(
        700021,
        format!(
            "Client assertion application identifier doesn't match 'client_id' parameter: the claim '{claim}' is another."
        ),
    )
}

pub(super) fn missing_claim(claim: &str) -> Refusal {
    client(50027, format!("Invalid JWT token. The claim '{claim}' is missing or malformed."))
}

pub(super) fn replayed() -> Refusal {
    client(700028, "Client assertion was used before; assertions are single-use here.")
}

pub(super) fn several_scopes(scope: &str) -> Refusal {
    bad(
        "invalid_scope",
        70011,
        format!(
            "The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid: exactly one resource can be asked for."
        ),
    )
}

pub(super) fn not_default(scope: &str) -> Refusal {
    bad(
        "invalid_scope",
        1002012,
        format!(
            "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."
        ),
    )
}

pub(super) fn unknown_resource(resource: &str) -> Refusal {
    bad(
        "invalid_resource",
        500011,
        format!(
            "The resource principal named {resource} was not found in the tenant. This can happen if the application has not been installed by the administrator of the tenant."
        ),
    )
}

pub(super) fn malformed_claims() -> Refusal {
    bad("invalid_request", 900144, "The request parameter 'claims' is not a JSON object.")
}

pub(super) fn server_error() -> Refusal {
    Refusal {
        status: 500,
        error: "server_error",
        code: 90033,
        text: "A transient error has occurred.".into(),
    }
}
