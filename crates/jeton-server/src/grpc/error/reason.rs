//! What goes wrong, by name: the table that `docs/errors.md` shows.

use tonic::Code;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_documents_is_the_table_in_the_code() {
        let documented = include_str!("../../../../../docs/errors.md");
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
}
