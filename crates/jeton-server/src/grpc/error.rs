//! The one place that speaks gRPC codes. Every reason stands in [`REASONS`], which `docs/errors.md` shows.

use std::{collections::HashMap, time::Duration};

use http::Response;
use jeton_access::{AccessError, NotPermitted, Refused};
use jeton_core::{ClaimsError, NameError};
use jeton_engine::{IssueErrorClass, TokenError};
use jeton_lifecycle::{LifecycleError, StoreError};
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{correlation, seldom::Seldom};

const DOMAIN: &str = "jeton";
/// What a server takes, in its refusal of what it does not take.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// The library's own words for what is not framed as it has to be. Those for a stream that broke off have "protocol error" too.
const NOT_FRAMED: [&str; 3] =
    ["protocol error: received message", "Missing request message", "Unexpected EOF"];
/// When to come again, where nothing says it better.
const DEFAULT_DELAY: Duration = Duration::from_secs(1);

/// Why a request failed, for programs: `google.rpc.ErrorInfo.reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not allowed, or not there.
    AccessDenied,
    /// On the admin plane: the caller's roles do not allow this.
    NotPermitted,
    /// No identity named, and the caller has none of its own.
    NoSystemIdentity,
    /// A name is malformed.
    InvalidName,
    /// Scopes or resources do not make a target at this authority.
    InvalidTarget,
    /// The claims are no JSON object, or too long.
    InvalidClaims,
    /// More remaining life was asked for than can be promised.
    InvalidMinValidity,
    /// Another field is wrong.
    InvalidField,
    /// The authority refuses; no retry helps.
    AuthorityRefused,
    /// The authority cannot be reached, or failed.
    AuthorityUnavailable,
    /// The authority wants less traffic.
    AuthorityThrottled,
    /// A bound of this broker.
    Overloaded,
    /// A limit of this caller's own.
    CallerOverLimit,
    /// A watched token was taken back.
    TokensRevoked,
    /// The deadline passed while the authority was asked.
    DeadlineExceeded,
    /// The broker is about to stop.
    ShuttingDown,
    /// There is no such resource.
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// Somebody changed it meanwhile.
    Conflict,
    /// Its state does not allow this.
    FailedPrecondition,
    /// The request id belongs to another request.
    RequestIdReused,
    /// This door has no such method.
    UnknownMethod,
    /// The bytes are no message of this method.
    MalformedRequest,
    /// The bytes of a request are not framed as gRPC frames messages.
    MalformedFraming,
    /// The request is compressed.
    UnsupportedEncoding,
    /// The message is larger than this method takes.
    RequestTooLarge,
    /// The connection has no authenticated caller.
    Unauthenticated,
    /// Whoever could judge the caller's token does not answer.
    AuthenticationUnavailable,
    /// A bug.
    Internal,
    /// The registry cannot be written.
    StoreUnavailable,
    /// The audit log cannot be written.
    AuditUnavailable,
    /// A sealed value does not open.
    SealedValueUnreadable,
}

/// Every reason: its name, its code, whether a retry helps, what to do.
pub const REASONS: &[(Reason, &str, Code, bool, &str)] = &[
    (
        Reason::AccessDenied,
        "ACCESS_DENIED",
        Code::PermissionDenied,
        false,
        "The identity does not exist, or the caller may not use it for this target. The operator learns which by `jeton access explain --correlation ID`.",
    ),
    (
        Reason::NotPermitted,
        "NOT_PERMITTED",
        Code::PermissionDenied,
        false,
        "No role of the caller allows this there; the message says what is missing. An access administrator finds the command that would allow it by `jeton access explain --correlation ID`.",
    ),
    (
        Reason::NoSystemIdentity,
        "NO_SYSTEM_IDENTITY",
        Code::FailedPrecondition,
        false,
        "Name an identity, or enable a system-assigned identity for the caller's workload.",
    ),
    (
        Reason::UnknownMethod,
        "UNKNOWN_METHOD",
        Code::Unimplemented,
        false,
        "Ask the right door: the data plane serves TokenService, the admin plane everything else.",
    ),
    (
        Reason::MalformedRequest,
        "MALFORMED_REQUEST",
        Code::InvalidArgument,
        false,
        "Send a message of this method, encoded as protobuf: regenerate the stubs.",
    ),
    (
        Reason::MalformedFraming,
        "MALFORMED_FRAMING",
        Code::Internal,
        false,
        "Frame messages as gRPC does: five bytes before each, the flag in them 0, and for a call that is no stream exactly one message. A gRPC library does.",
    ),
    (
        Reason::UnsupportedEncoding,
        "UNSUPPORTED_ENCODING",
        Code::Unimplemented,
        false,
        "Send requests uncompressed: `grpc-accept-encoding` of the answer says `identity`. Tokens do not compress.",
    ),
    (
        Reason::RequestTooLarge,
        "REQUEST_TOO_LARGE",
        Code::InvalidArgument,
        false,
        "Send at most 64 KiB, in a batch and on the admin plane 512 KiB. An entry of a batch whose answer is full: ask for it in another call.",
    ),
    (
        Reason::Unauthenticated,
        "UNAUTHENTICATED",
        Code::Unauthenticated,
        false,
        "Connect with a credential that this door takes.",
    ),
    (
        Reason::AuthenticationUnavailable,
        "AUTHENTICATION_UNAVAILABLE",
        Code::Unavailable,
        true,
        "Wait as RetryInfo says and try again: the caller's token cannot be judged at the moment.",
    ),
    (
        Reason::Internal,
        "INTERNAL",
        Code::Internal,
        false,
        "Report it, with what the broker's log says under the correlation id.",
    ),
    (Reason::InvalidName, "INVALID_NAME", Code::InvalidArgument, false, "Correct the resource name."),
    (
        Reason::InvalidTarget,
        "INVALID_TARGET",
        Code::InvalidArgument,
        false,
        "Correct scopes and resources; the message says what the authority takes.",
    ),
    (
        Reason::InvalidClaims,
        "INVALID_CLAIMS",
        Code::InvalidArgument,
        false,
        "Pass a JSON object of at most 4096 bytes.",
    ),
    (
        Reason::InvalidMinValidity,
        "INVALID_MIN_VALIDITY",
        Code::InvalidArgument,
        false,
        "Ask for at most 40 % of the token's life.",
    ),
    (
        Reason::InvalidField,
        "INVALID_FIELD",
        Code::InvalidArgument,
        false,
        "Correct the field that the message names.",
    ),
    (
        Reason::AuthorityRefused,
        "AUTHORITY_REFUSED",
        Code::FailedPrecondition,
        false,
        "The authority refuses this identity or target; the message has its words. Change what is registered there, or rotate the credential.",
    ),
    (
        Reason::AuthorityUnavailable,
        "AUTHORITY_UNAVAILABLE",
        Code::Unavailable,
        true,
        "Wait as RetryInfo says and try again.",
    ),
    (
        Reason::AuthorityThrottled,
        "AUTHORITY_THROTTLED",
        Code::Unavailable,
        true,
        "Wait as RetryInfo says and try again.",
    ),
    (
        Reason::Overloaded,
        "OVERLOADED",
        Code::ResourceExhausted,
        true,
        "Wait as RetryInfo says and try again; the message names the bound.",
    ),
    (
        Reason::CallerOverLimit,
        "CALLER_OVER_LIMIT",
        Code::ResourceExhausted,
        true,
        "Wait as RetryInfo says. The metadata's `limit` names the setting: ask for fewer different tokens, or have it raised for this caller with `jeton access assign --limit`.",
    ),
    (
        Reason::TokensRevoked,
        "TOKENS_REVOKED",
        Code::Aborted,
        true,
        "An administrator took the token back: throw it away and watch again, or ask again, for a new one.",
    ),
    (
        Reason::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        Code::DeadlineExceeded,
        true,
        "Try again: the request to the authority goes on, and its answer will be in memory.",
    ),
    (Reason::ShuttingDown, "SHUTTING_DOWN", Code::Unavailable, true, "Connect anew."),
    (Reason::NotFound, "NOT_FOUND", Code::NotFound, false, "Check the name."),
    (
        Reason::AlreadyExists,
        "ALREADY_EXISTS",
        Code::AlreadyExists,
        false,
        "Choose another name, or delete the present one first.",
    ),
    (Reason::Conflict, "CONFLICT", Code::Aborted, true, "Read the resource again and repeat the change."),
    (
        Reason::FailedPrecondition,
        "FAILED_PRECONDITION",
        Code::FailedPrecondition,
        false,
        "The message says what must be so first.",
    ),
    (
        Reason::RequestIdReused,
        "REQUEST_ID_REUSED",
        Code::InvalidArgument,
        false,
        "Use a new request id for a new request.",
    ),
    (
        Reason::StoreUnavailable,
        "STORE_UNAVAILABLE",
        Code::Unavailable,
        true,
        "The registry's disk is full, read-only or broken; nothing was changed. Tokens are still served.",
    ),
    (
        Reason::AuditUnavailable,
        "AUDIT_UNAVAILABLE",
        Code::Unavailable,
        true,
        "The audit log cannot be written, so nothing is changed; the message says why. Tokens are still served, unless `audit.on_full` is `refuse`.",
    ),
    (
        Reason::SealedValueUnreadable,
        "SEALED_VALUE_UNREADABLE",
        Code::FailedPrecondition,
        false,
        "The message names the resource: rotate its credential, or attach it anew.",
    ),
];

/// A failure on its way to the wire.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) metadata: HashMap<String, String>,
    pub(crate) retry: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), metadata: HashMap::new(), retry: None }
    }

    pub(crate) fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(Reason::InvalidField, format!("{field}: {problem}")).with("field", field)
    }

    pub(crate) fn not_found(name: impl std::fmt::Display) -> Self {
        Self::new(Reason::NotFound, format!("{name} does not exist"))
    }

    pub(crate) fn unknown_method() -> Self {
        let text = "this door has no such method: the data plane serves TokenService, the admin plane everything else";
        Self::new(Reason::UnknownMethod, text)
    }

    /// More bytes than the method takes.
    pub(crate) fn too_large(what: impl std::fmt::Display) -> Self {
        Self::new(
            Reason::RequestTooLarge,
            format!(
                "{what}; a request has at most 64 KiB, a batch or a request of the admin plane 512 KiB, and a batch's answer 1 MiB: ask for less at once"
            ),
        )
    }

    /// The library's words for a message that it does not take; none: that is not what it says.
    pub(crate) fn of_message(status: &Status) -> Option<Self> {
        let message = status.message();
        match status.code() {
            Code::OutOfRange | Code::ResourceExhausted => Some(Self::too_large(message)),
            Code::Internal if message.contains("decode") => {
                let text = format!("the message cannot be read: {message}");
                Some(Self::new(Reason::MalformedRequest, text))
            }
            Code::Internal if NOT_FRAMED.iter().any(|words| message.contains(words)) => {
                Some(Self::new(Reason::MalformedFraming, message))
            }
            _ => None,
        }
    }

    pub(crate) fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn retry_in(mut self, delay: Option<Duration>) -> Self {
        self.retry = delay;
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.row().2
    }

    pub(crate) fn name(&self) -> &'static str {
        self.row().1
    }

    fn row(&self) -> &'static (Reason, &'static str, Code, bool, &'static str) {
        // Every reason has a row; a test goes through them all.
        REASONS.iter().find(|row| row.0 == self.reason).unwrap_or(&REASONS[0])
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let failure = failure.told();
        let mut details = ErrorDetails::new();
        let (code, name) = (failure.code(), failure.name());
        if let Some(delay) = failure.retry {
            details.set_retry_info(Some(delay));
        }
        details.set_error_info(name, DOMAIN, failure.metadata);
        Status::with_error_details(code, failure.message, details)
    }
}

impl Failure {
    /// As a caller sees it: with a correlation id, which the log has too, and with a delay where a retry helps and nowhere else.
    pub(crate) fn told(mut self) -> Self {
        self.retry = self.row().3.then(|| self.retry.unwrap_or(DEFAULT_DELAY));
        if !self.metadata.contains_key("correlation_id") {
            let (id, reason, why) = (correlation::id(), self.name(), &self.message);
            if self.reason == Reason::Internal {
                tracing::error!(
                    correlation_id = id,
                    reason,
                    why,
                    "a request failed inside the broker: report it with this line"
                );
            } else {
                tracing::debug!(correlation_id = id, reason, why, "a request failed");
            }
            self.metadata.insert("correlation_id".into(), id);
        }
        let span = jeton_trace::current();
        span.text("jeton.error.reason", self.name());
        span.text("jeton.correlation_id", &self.metadata["correlation_id"]);
        self
    }
}

/// Gives the errors of the layers around the services what the services' own errors have.
pub fn complete(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    if headers.get("grpc-status").is_none_or(|code| code == "0")
        || headers.contains_key("grpc-status-details-bin")
    {
        return response;
    }
    let Some(status) = Status::from_header_map(headers) else { return response };
    let message = status.message();
    let accepted = headers.get(ACCEPT_ENCODING).cloned();
    let failure = match status.code() {
        Code::Unimplemented if accepted.is_some() => {
            Failure::new(Reason::UnsupportedEncoding, format!("{message}: send it uncompressed (identity)"))
        }
        Code::Unimplemented => Failure::unknown_method(),
        // The health service's word for a service that it does not know.
        Code::NotFound => Failure::new(Reason::NotFound, message),
        Code::DeadlineExceeded => Failure::new(Reason::DeadlineExceeded, message),
        Code::Unauthenticated => Failure::new(Reason::Unauthenticated, message),
        // The doors' word for a token that cannot be judged now; services bring their own details.
        Code::Unavailable => Failure::new(Reason::AuthenticationUnavailable, message),
        _ => {
            let of_message = Failure::of_message(&status);
            of_message.unwrap_or_else(|| Failure::new(Reason::Internal, message))
        }
    };
    let mut completed = Status::from(failure).into_http();
    if let Some(accepted) = accepted {
        completed.headers_mut().insert(ACCEPT_ENCODING, accepted);
    }
    completed
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Denied { correlation_id } => Self::new(
                Reason::AccessDenied,
                format!("access denied; the operator can look it up with `jeton access explain --correlation {correlation_id}`"),
            )
            .with("correlation_id", correlation_id),
            Refused::BadTarget(error) => Self::new(Reason::InvalidTarget, error.to_string()),
            Refused::NoSystemIdentity { correlation_id } => Self::new(
                Reason::NoSystemIdentity,
                "no identity was named, and this caller belongs to no workload with a system-assigned identity: name one",
            )
            .with("correlation_id", correlation_id),
            _ => Self::new(Reason::AccessDenied, "access denied"),
        }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Authority(issue) => {
                let reason = match issue.class {
                    IssueErrorClass::Permanent => Reason::AuthorityRefused,
                    IssueErrorClass::Credential => Reason::SealedValueUnreadable,
                    IssueErrorClass::Throttled => Reason::AuthorityThrottled,
                    _ => Reason::AuthorityUnavailable,
                };
                let failure = Self::new(reason, issue.message.to_string());
                let failure =
                    issue.code.iter().fold(failure, |f, code| f.with("authority_code", code.to_string()));
                failure.retry_in(issue.retry_after)
            }
            TokenError::Overloaded { what, retry_after } => {
                Self::new(Reason::Overloaded, what).retry_in(Some(retry_after))
            }
            TokenError::OverLimit { limit, retry_after, .. } => {
                Self::new(Reason::CallerOverLimit, error.to_string())
                    .with("limit", limit)
                    .retry_in(Some(retry_after))
            }
            TokenError::MinValidity { .. } => Self::new(Reason::InvalidMinValidity, error.to_string()),
            TokenError::Denied => Self::new(Reason::AccessDenied, "access denied"),
            TokenError::ShuttingDown => Self::new(Reason::ShuttingDown, error.to_string()),
            _ => Self::new(Reason::DeadlineExceeded, error.to_string()),
        }
    }
}

impl From<LifecycleError> for Failure {
    fn from(error: LifecycleError) -> Self {
        let message = error.to_string();
        match error {
            LifecycleError::NotFound(_) => Self::new(Reason::NotFound, message),
            LifecycleError::Exists(_) => Self::new(Reason::AlreadyExists, message),
            LifecycleError::Invalid { field, .. } => {
                Self::new(Reason::InvalidField, message).with("field", field)
            }
            LifecycleError::Precondition(_) => Self::new(Reason::FailedPrecondition, message),
            LifecycleError::RequestIdReused(_) => Self::new(Reason::RequestIdReused, message),
            LifecycleError::Key(_) => Self::new(Reason::InvalidField, message),
            LifecycleError::Store(StoreError::Conflict(_)) => Self::new(Reason::Conflict, message),
            LifecycleError::Store(StoreError::Exists(_)) => Self::new(Reason::AlreadyExists, message),
            LifecycleError::Store(StoreError::Sealed(_)) => Self::new(Reason::SealedValueUnreadable, message),
            _ => Self::new(Reason::StoreUnavailable, message),
        }
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        let message = error.to_string();
        match error {
            AccessError::NotFound(_) => Self::new(Reason::NotFound, message),
            AccessError::Exists(_) => Self::new(Reason::AlreadyExists, message),
            AccessError::Invalid { field, .. } => {
                Self::new(Reason::InvalidField, message).with("field", field)
            }
            AccessError::RequestIdReused(_) => Self::new(Reason::RequestIdReused, message),
            AccessError::NotPermitted(refused) => refused.into(),
            AccessError::Precondition(_) => Self::new(Reason::FailedPrecondition, message),
            _ => Self::new(Reason::StoreUnavailable, message),
        }
    }
}

impl From<NotPermitted> for Failure {
    fn from(refused: NotPermitted) -> Self {
        static LOG: Seldom = Seldom::new();
        let (id, reason) = (&refused.correlation_id, &refused.reason);
        LOG.line("not permitted", reason, |left_out| {
            tracing::info!(correlation_id = id, reason, left_out, "a call on the admin plane is not permitted: `jeton access explain --correlation` with this id says which role would allow it");
        });
        Self::new(Reason::NotPermitted, refused.to_string()).with("correlation_id", refused.correlation_id)
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::new(Reason::InvalidName, error.to_string())
    }
}

impl From<ClaimsError> for Failure {
    fn from(error: ClaimsError) -> Self {
        Self::new(Reason::InvalidClaims, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_documents_is_the_table_in_the_code() {
        let documented = include_str!("../../../../docs/errors.md");
        for (_, name, code, retry, advice) in REASONS {
            let code = format!("{code:?}");
            let code: String = code
                .char_indices()
                .flat_map(|(i, c)| {
                    let gap = (i > 0 && c.is_uppercase()).then_some('_');
                    gap.into_iter().chain([c.to_ascii_uppercase()])
                })
                .collect();
            let row = format!("| `{name}` | `{code}` | {} | {advice} |", if *retry { "yes" } else { "no" });
            assert!(documented.contains(&row), "docs/errors.md lacks the row\n{row}");
        }
    }

    #[test]
    fn a_status_carries_reason_domain_and_when_to_come_again() {
        let status: Status =
            Failure::new(Reason::Overloaded, "x").retry_in(Some(Duration::from_secs(3))).into();
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "OVERLOADED");
        assert_eq!(details.error_info().unwrap().domain, "jeton");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(3)));
    }

    #[test]
    fn errors_of_other_layers_get_a_reason_and_a_correlation_id_and_nothing_else_is_touched() {
        for (status, reason) in [
            (Status::unimplemented(""), "UNKNOWN_METHOD"),
            (Status::internal("failed to decode Protobuf message"), "MALFORMED_REQUEST"),
            (Status::internal("Missing request message."), "MALFORMED_FRAMING"),
            (Status::out_of_range("decoded message length too large"), "REQUEST_TOO_LARGE"),
            (Status::not_found("service not registered"), "NOT_FOUND"),
            (Status::deadline_exceeded("late"), "DEADLINE_EXCEEDED"),
            (Status::unauthenticated("who"), "UNAUTHENTICATED"),
            (Status::unavailable("not now"), "AUTHENTICATION_UNAVAILABLE"),
        ] {
            let completed = complete(status.into_http());
            let status = Status::from_header_map(completed.headers()).unwrap();
            let info = status.get_details_error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "jeton"));
            assert_eq!(info.metadata["correlation_id"].len(), 36);
            assert!(!status.message().is_empty());
        }
        let own: Status = Failure::not_found("identities/x").into();
        let before = own.get_details_error_info().unwrap().metadata;
        let completed = complete(own.into_http());
        let after = Status::from_header_map(completed.headers()).unwrap().get_details_error_info().unwrap();
        assert_eq!(before, after.metadata);
        assert!(!complete(Response::new(Body::empty())).headers().contains_key("grpc-status"));
    }

    #[test]
    fn what_is_not_framed_is_malformed_and_a_peer_that_goes_in_the_middle_is_not() {
        let reason = |status: &Status| Failure::of_message(status).map(|failure| failure.reason);
        for words in [
            "protocol error: received message with compressed-flag but no grpc-encoding was specified",
            "protocol error: received message with invalid compression flag: 2 (valid flags are 0 and 1), while sending request",
            "Missing request message.",
            "Unexpected EOF decoding stream.",
        ] {
            assert_eq!(reason(&Status::internal(words)), Some(Reason::MalformedFraming), "{words}");
        }
        for code in [h2::Reason::NO_ERROR, h2::Reason::PROTOCOL_ERROR, h2::Reason::INTERNAL_ERROR] {
            let gone = Status::from_error(Box::new(h2::Error::from(code)));
            assert_eq!((gone.code(), reason(&gone)), (Code::Internal, None), "{gone}");
        }
    }

    #[test]
    fn a_failure_inside_an_answer_offers_a_retry_where_one_helps_and_nowhere_else() {
        let delay = |reason| {
            let failure = Failure::new(reason, "x").retry_in(Some(Duration::from_secs(9)));
            jeton_proto::v1::Failure::from(failure).retry_delay.map(|d| d.seconds)
        };
        assert_eq!(delay(Reason::AuthorityRefused), None);
        assert_eq!(delay(Reason::AuthorityThrottled), Some(9));
    }

    #[test]
    fn an_unknown_identity_and_a_forbidden_one_look_the_same() {
        let refused = Refused::Denied { correlation_id: "c".into() };
        let status: Status = Failure::from(refused).into();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(!status.message().contains("exist"));
    }
}
