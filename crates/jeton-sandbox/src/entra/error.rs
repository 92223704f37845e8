//! The errors of the token endpoint, worded and numbered as Entra's.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    dates::{american, timestamp},
    jwt,
    model::Key,
    reply::{Reply, json as reply, text},
};

#[derive(Debug)]
pub(crate) struct Refusal {
    status: u16,
    error: &'static str,
    code: u32,
    text: String,
}

impl Refusal {
    pub(super) fn reply(&self, correlation: &str, now: i64) -> Reply {
        // Throttling is told in plain text where clients ask for themselves.
        if self.status == 429 {
            return text(429, "Too Many Requests");
        }
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

pub(super) fn invalid_parameter(name: &str) -> Refusal {
    bad("invalid_request", 90100, format!("The '{name}' parameter is empty or not valid."))
}

pub(super) fn repeated_parameter(name: &str) -> Refusal {
    bad(
        "invalid_request",
        9002313,
        format!("Invalid request. Request is malformed or invalid: the parameter '{name}' is there twice."),
    )
}

pub(super) fn too_large() -> Refusal {
    Refusal {
        status: 413,
        ..bad(
            "invalid_request",
            9002313,
            "Invalid request. Request is malformed or invalid: it is too large.",
        )
    }
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
    of_certificate("is not registered on application", "The key was not found.", thumbprint, None)
}

pub(super) fn expired_key(thumbprint: &str, key: &Key) -> Refusal {
    of_certificate("is expired on application", "The key used is expired.", thumbprint, Some(key))
}

pub(super) fn early_key(thumbprint: &str, key: &Key) -> Refusal {
    of_certificate("is not yet valid on application", "The key used is not yet valid.", thumbprint, Some(key))
}

fn of_certificate(fault: &str, reason: &str, thumbprint: &str, found: Option<&Key>) -> Refusal {
    let reason = reasons(reason, thumbprint, found);
    client(
        700027,
        format!("The certificate with identifier used to sign the client assertion {fault}. {reason}"),
    )
}

pub(super) fn bad_signature(thumbprint: &str, key: &Key) -> Refusal {
    let reason = reasons(
        "The provided signature value did not match the expected signature value.",
        thumbprint,
        Some(key),
    );
    client(700027, format!("Client assertion failed signature validation. {reason}"))
}

fn reasons(reason: &str, thumbprint: &str, found: Option<&Key>) -> String {
    let hex: String =
        jwt::decode(thumbprint).unwrap_or_default().iter().map(|b| format!("{b:02X}")).collect();
    let found = found.map_or_else(String::new, |key| {
        format!(", Found key 'Start={}, End={}'", american(key.not_before), american(key.not_after))
    });
    format!("[Reason - {reason}, Thumbprint of key used by client: '{hex}'{found}]")
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

pub(super) fn malformed_scope(scope: &str) -> Refusal {
    bad(
        "invalid_scope",
        70011,
        format!(
            "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope '{scope}' is not valid."
        ),
    )
}

pub(super) fn several_resources(scope: &str) -> Refusal {
    bad(
        "invalid_scope",
        700022,
        format!(
            "The provided value for the input parameter 'scope' is not valid because it contains more than one resource: '{scope}'."
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

pub(super) fn disabled_resource(resource: &str) -> Refusal {
    bad("invalid_resource", 50001, format!("The resource named {resource} is disabled in the tenant."))
}

pub(super) fn not_assigned(app: &str, resource: &str) -> Refusal {
    bad(
        "invalid_grant",
        501051,
        format!("Application '{app}' is not assigned to a role for the application '{resource}'."),
    )
}

pub(super) fn malformed_claims() -> Refusal {
    bad("invalid_request", 900144, "The request parameter 'claims' is not a JSON object.")
}

pub(super) fn server_error() -> Refusal {
    fault(500)
}

/// A failure of the authority's own, as its status tells.
pub(super) fn fault(status: u16) -> Refusal {
    let (error, code) = match status {
        429 => ("temporarily_unavailable", 90055),
        503 => ("temporarily_unavailable", 90033),
        504 => ("temporarily_unavailable", 90024),
        _ => ("server_error", 90006),
    };
    Refusal { status, error, code, text: "A transient error has occurred. Please try again.".into() }
}
