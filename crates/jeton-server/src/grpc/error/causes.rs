//! What the parts of the broker say, as failures.

use jeton_access::{AccessError, NotPermitted, Refused};
use jeton_core::{ClaimsError, NameError};
use jeton_engine::{IssueErrorClass, TokenError};
use jeton_lifecycle::{LifecycleError, StoreError};

use super::{Failure, Reason};
use crate::seldom::Seldom;

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
    use tonic::{Code, Status};

    use super::*;

    #[test]
    fn an_unknown_identity_and_a_forbidden_one_look_the_same() {
        let refused = Refused::Denied { correlation_id: "c".into() };
        let status: Status = Failure::from(refused).into();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(!status.message().contains("exist"));
    }
}
