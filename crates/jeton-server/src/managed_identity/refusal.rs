//! A failure in the words of the endpoints. This is the one file that speaks their statuses.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use tonic::body::Body;

use super::Flavour;
use crate::{
    door::AuthenticationFailure,
    grpc::{Failure, Reason},
};

/// What a failure is to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The request is wrong.
    Invalid,
    /// The parameter resource, or what it names.
    Resource,
    /// The proof is missing or wrong.
    Unproven,
    /// No such identity, or not for this caller: these look alike.
    Unknown,
    /// It is refused, and no try will help.
    Refused,
    /// Too much at once.
    TooMany,
    /// It will pass.
    Unavailable,
    /// Nothing is under this path.
    NoPath,
}

/// A failure on its way to the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) kind: Kind,
    pub(super) message: String,
    pub(super) correlation_id: String,
    /// Whole seconds, and few: clients sleep all of it, and some of them three times.
    pub(super) retry_after: Option<u64>,
    /// The challenge of a 401.
    pub(super) challenge: Option<String>,
    /// As what it is counted where something was to be proved.
    pub(super) failure: AuthenticationFailure,
}

impl Refusal {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        let transient = matches!(kind, Kind::TooMany | Kind::Unavailable);
        Self {
            kind,
            message: message.into(),
            correlation_id: String::new(),
            retry_after: transient.then_some(1),
            challenge: None,
            failure: AuthenticationFailure::Token,
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    fn status(&self) -> StatusCode {
        match self.kind {
            Kind::Invalid | Kind::Resource | Kind::Unknown => StatusCode::BAD_REQUEST,
            Kind::Unproven => StatusCode::UNAUTHORIZED,
            Kind::Refused => StatusCode::FORBIDDEN,
            Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::NoPath => StatusCode::NOT_FOUND,
        }
    }

    /// As this flavour's clients read it.
    pub(super) fn into_response(self, flavour: Flavour) -> Response<Body> {
        let status = self.status();
        let mut response = super::endpoint::json(status, &self.body(flavour));
        if self.kind == Kind::Unproven && self.challenge.is_none() {
            response.extensions_mut().insert(self.failure);
        }
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }

    fn body(&self, flavour: Flavour) -> Value {
        let (message, id) = (&self.message, &self.correlation_id);
        match flavour {
            Flavour::AppService | Flavour::AzureMl => {
                json!({"statusCode": self.status().as_u16(), "message": message, "correlationId": id})
            }
            Flavour::ServiceFabric => {
                json!({"error": {"code": self.fabric(), "message": message, "correlationId": id}})
            }
            Flavour::CloudShell => json!({"error": {"code": self.code(), "message": message}}),
            Flavour::Imds | Flavour::Arc | Flavour::Gce => {
                json!({"error": self.code(), "error_description": message})
            }
        }
    }

    fn code(&self) -> &'static str {
        match self.kind {
            Kind::Invalid | Kind::Unknown => "invalid_request",
            Kind::Resource => "invalid_resource",
            Kind::Unproven => "unauthorized_client",
            Kind::Refused => "access_denied",
            Kind::TooMany => "too_many_requests",
            Kind::Unavailable => "temporarily_unavailable",
            Kind::NoPath => "not_found",
        }
    }

    fn fabric(&self) -> &'static str {
        match self.kind {
            Kind::Unproven => "SecretHeaderNotFound",
            Kind::Unknown => "ManagedIdentityNotFound",
            Kind::Invalid | Kind::Resource => "ArgumentNullOrEmpty",
            Kind::NoPath => "NotFound",
            Kind::Refused => "AccessDenied",
            Kind::TooMany => "TooManyRequests",
            Kind::Unavailable => "InternalServerError",
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let failure = failure.told();
        let kind = kind(failure.reason);
        let id = failure.metadata.get("correlation_id").cloned().unwrap_or_default();
        let message = match failure.reason {
            // Clients look for these words, and go on with the next credential of their chain.
            Reason::AccessDenied => format!(
                "Identity not found: there is none, or this caller may not use it for this resource. The operator learns which by `jeton access explain --correlation {id}`"
            ),
            Reason::NoSystemIdentity => format!(
                "Identity not found: none was named, and this caller belongs to no workload with a system-assigned identity; name one by client_id, object_id or msi_res_id (correlation id {id})"
            ),
            // One client takes a 403 with this word for a network that is not there.
            _ => failure.message.replace("unreachable", "not reachable"),
        };
        Self { correlation_id: id, retry_after: retry_after(kind, failure.retry), ..Self::new(kind, message) }
    }
}

fn retry_after(kind: Kind, wanted: Option<Duration>) -> Option<u64> {
    matches!(kind, Kind::TooMany | Kind::Unavailable)
        .then(|| wanted.map_or(1, |delay| delay.as_secs().clamp(1, 2)))
}

fn kind(reason: Reason) -> Kind {
    match reason {
        Reason::AccessDenied | Reason::NoSystemIdentity => Kind::Unknown,
        Reason::InvalidTarget => Kind::Resource,
        Reason::InvalidName
        | Reason::InvalidClaims
        | Reason::InvalidMinValidity
        | Reason::InvalidField
        | Reason::MalformedRequest
        | Reason::MalformedFraming
        | Reason::RequestTooLarge
        | Reason::RequestIdReused => Kind::Invalid,
        Reason::Unauthenticated => Kind::Unproven,
        Reason::AuthorityRefused
        | Reason::NotPermitted
        | Reason::NotFound
        | Reason::AlreadyExists
        | Reason::FailedPrecondition
        | Reason::SealedValueUnreadable
        | Reason::UnknownMethod
        | Reason::UnsupportedEncoding => Kind::Refused,
        Reason::Overloaded | Reason::CallerOverLimit => Kind::TooMany,
        Reason::AuthorityUnavailable
        | Reason::AuthorityThrottled
        | Reason::TokensRevoked
        | Reason::DeadlineExceeded
        | Reason::ShuttingDown
        | Reason::Conflict
        | Reason::AuthenticationUnavailable
        | Reason::Internal
        | Reason::StoreUnavailable
        | Reason::AuditUnavailable => Kind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::REASONS;

    #[test]
    fn what_is_permanent_is_400_401_or_403_and_what_passes_is_429_or_503_with_a_second_or_two() {
        for (reason, name, _, retries, _) in REASONS {
            let refusal =
                Refusal::from(Failure::new(*reason, "text").retry_in(Some(Duration::from_secs(90))));
            let status = refusal.status().as_u16();
            match refusal.retry_after {
                None => assert!([400, 401, 403].contains(&status), "{name}: {status}"),
                Some(seconds) => {
                    assert!([429, 503].contains(&status) && (1..=2).contains(&seconds), "{name}")
                }
            }
            assert!(!retries || refusal.retry_after.is_some(), "{name}: a retry helps");
        }
    }

    #[test]
    fn each_flavour_says_it_where_its_clients_look() {
        let body = |flavour| {
            Refusal::from(Failure::new(Reason::AccessDenied, "x").with("correlation_id", "7")).body(flavour)
        };
        let app = body(Flavour::AppService);
        assert_eq!((app["statusCode"].as_u64(), app["correlationId"].as_str()), (Some(400), Some("7")));
        assert!(app["message"].as_str().unwrap().starts_with("Identity not found"));
        let imds = body(Flavour::Imds);
        assert_eq!(imds["error"], "invalid_request");
        assert!(imds["error_description"].as_str().unwrap().starts_with("Identity not found"));
        let fabric = body(Flavour::ServiceFabric);
        assert_eq!(fabric["error"]["code"], "ManagedIdentityNotFound");
        assert_eq!(fabric["error"]["correlationId"], "7");
        assert!(body(Flavour::CloudShell)["error"]["message"].is_string());
    }

    #[test]
    fn a_403_does_not_say_the_word_that_one_client_takes_for_no_network() {
        let refusal = Refusal::from(Failure::new(Reason::AuthorityRefused, "the host is unreachable"));
        assert_eq!((refusal.status().as_u16(), refusal.message.as_str()), (403, "the host is not reachable"));
    }
}
