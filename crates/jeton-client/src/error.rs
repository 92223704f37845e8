//! Why there is no token: whose fault it is, and whether a retry helps.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use jeton_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A broker that asks for more is asked again before.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// When to come again, where nothing says it better.
const SOON: Duration = Duration::from_millis(50);

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The broker said no, in its own words.
    #[error("{0}")]
    Refused(Refusal),
    /// No broker answers, or the connection broke.
    #[error("no broker answers at {place} ({cause}): is it running, and is this its address?")]
    #[non_exhaustive]
    Unreachable {
        /// The address.
        place: Arc<str>,
        /// What was seen.
        cause: Arc<str>,
    },
    /// No answer came in time.
    #[error("no answer from the broker at {place} within {} ms: try again, or allow more with Builder::timeout", after.as_millis())]
    #[non_exhaustive]
    TimedOut {
        /// The address.
        place: Arc<str>,
        /// What was allowed.
        after: Duration,
    },
    /// As many callers as are allowed wait for tokens already.
    #[error(
        "{most} callers wait for tokens already: the broker is slow or away; allow more with Builder::max_waiting"
    )]
    #[non_exhaustive]
    TooManyWaiting {
        /// What is allowed.
        most: usize,
    },
    /// The broker handed out a token that is over by this machine's clock.
    #[error("the broker's token is over by this machine's clock (it ends at {at:?}): set the clock")]
    #[non_exhaustive]
    ExpiredOnArrival {
        /// When the token ends.
        at: SystemTime,
    },
    /// The answer is no token.
    #[error("the broker's answer is no token: {0}")]
    Malformed(&'static str),
    /// A file with what this program authenticates by cannot be used.
    #[error("{} cannot be used: {problem}", file.display())]
    #[non_exhaustive]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: Arc<str>,
    },
    /// A setting of the [`Builder`](crate::Builder) is wrong.
    #[error("{setting}: {problem}")]
    #[non_exhaustive]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong, and what to do.
        problem: Arc<str>,
    },
}

/// Whose fault an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// This program's: what it asks for, how it is set up, or what it was allowed.
    Caller,
    /// The broker's.
    Broker,
    /// The authority's, behind the broker.
    Authority,
    /// Of what is between this program and the broker.
    Connection,
}

impl Error {
    /// Whether the same call may work later. Calls have tried again within their own deadline before they say so.
    pub fn is_transient(&self) -> bool {
        self.retry_after().is_some()
    }

    /// Not worth trying again before; `None` where a retry does not help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.0.retry,
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::TooManyWaiting { .. } => Some(SOON),
            // It may be replaced at any time.
            Self::File { .. } => Some(Duration::from_secs(1)),
            Self::ExpiredOnArrival { .. } | Self::Malformed(_) | Self::Setting { .. } => None,
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Refused(refusal) => refusal.fault(),
            Self::Unreachable { .. } | Self::TimedOut { .. } => Fault::Connection,
            Self::Malformed(_) => Fault::Broker,
            Self::TooManyWaiting { .. }
            | Self::ExpiredOnArrival { .. }
            | Self::File { .. }
            | Self::Setting { .. } => Fault::Caller,
        }
    }

    /// The broker's own words, if it said no.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// A failed call. What the peer did not say itself comes from the connection: nothing was said, and the call may be repeated.
    pub(crate) fn of_call(status: &Status, place: &Arc<str>) -> Self {
        let details = status.get_error_details();
        match details.error_info() {
            None if std::error::Error::source(status).is_some() || is_of_transport(status) => {
                Self::Unreachable { place: Arc::clone(place), cause: root(status).into() }
            }
            info => Self::Refused(Refusal(Arc::new(Said {
                code: status.code(),
                reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
                message: status.message().to_owned(),
                correlation_id: info.and_then(|info| info.metadata.get("correlation_id").cloned()),
                retry: details
                    .retry_info()
                    .and_then(|retry| retry.retry_delay)
                    .map(|delay| delay.min(LONGEST_PAUSE))
                    .or_else(|| unsaid(status.code())),
            }))),
        }
    }

    /// A failure inside of an answer.
    pub(crate) fn of_watch(failure: v1::Failure) -> Self {
        let bounded = |delay| Duration::try_from(delay).unwrap_or_default().min(LONGEST_PAUSE);
        Self::Refused(Refusal(Arc::new(Said {
            code: Code::from(failure.code),
            correlation_id: failure.metadata.get("correlation_id").cloned(),
            reason: failure.reason,
            message: failure.message,
            retry: failure.retry_delay.map(bounded),
        })))
    }

    pub(crate) fn setting(setting: &'static str, problem: impl Into<Arc<str>>) -> Self {
        Self::Setting { setting, problem: problem.into() }
    }

    pub(crate) fn file(file: impl Into<PathBuf>, problem: impl fmt::Display) -> Self {
        Self::File { file: file.into(), problem: problem.to_string().into() }
    }

    pub(crate) fn code(&self) -> Option<Code> {
        self.refusal().map(|refusal| refusal.0.code)
    }

    pub(crate) fn reason(&self) -> &str {
        self.refusal().map_or("", Refusal::reason)
    }
}

/// A peer that says UNAVAILABLE without a word on when to come again.
fn unsaid(code: Code) -> Option<Duration> {
    (code == Code::Unavailable).then_some(SOON)
}

/// Statuses that the HTTP/2 library makes of a connection's end have no details and these codes.
fn is_of_transport(status: &Status) -> bool {
    status.details().is_empty() && matches!(status.code(), Code::Cancelled | Code::Unknown | Code::Internal)
}

fn root(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if std::ptr::addr_eq(cause, status) { status.message().to_owned() } else { cause.to_string() }
}

/// What the broker said. Its reasons are listed in the project's `docs/errors.md`.
#[derive(Debug, Clone)]
pub struct Refusal(Arc<Said>);

#[derive(Debug)]
struct Said {
    code: Code,
    reason: String,
    message: String,
    correlation_id: Option<String>,
    retry: Option<Duration>,
}

impl Refusal {
    /// Why, for programs: `google.rpc.ErrorInfo.reason`, such as `ACCESS_DENIED`. Empty if the peer gave none, as no broker does.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// What was wrong and what to do, for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// By what the broker's operator finds this refusal: `jeton access explain --correlation ID`.
    pub fn correlation_id(&self) -> Option<&str> {
        self.0.correlation_id.as_deref()
    }

    fn fault(&self) -> Fault {
        match (self.0.code, self.reason()) {
            (_, reason) if reason.starts_with("AUTHORITY_") => Fault::Authority,
            (
                Code::InvalidArgument
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::FailedPrecondition
                | Code::NotFound
                | Code::Unimplemented,
                _,
            )
            | (_, "CALLER_OVER_LIMIT") => Fault::Caller,
            _ => Fault::Broker,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            "" => write!(f, "{:?}: {}", self.0.code, self.0.message)?,
            reason => write!(f, "{reason}: {}", self.0.message)?,
        }
        match &self.0.correlation_id {
            Some(id) if !self.0.message.contains(id) => write!(f, " (correlation id {id})"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn refused(code: Code, reason: &str, retry: Option<Duration>) -> Error {
        let mut details = ErrorDetails::new();
        let metadata = HashMap::from([("correlation_id".to_owned(), "c-1".to_owned())]);
        details.set_error_info(reason, "jeton", metadata);
        if let Some(delay) = retry {
            details.set_retry_info(Some(delay));
        }
        Error::of_call(&Status::with_error_details(code, "words", details), &"here".into())
    }

    #[test]
    fn a_refusal_tells_its_reason_its_correlation_id_and_when_to_come_again() {
        let error = refused(Code::Unavailable, "AUTHORITY_THROTTLED", Some(Duration::from_secs(7)));
        let refusal = error.refusal().unwrap();
        assert_eq!((refusal.reason(), refusal.correlation_id()), ("AUTHORITY_THROTTLED", Some("c-1")));
        assert_eq!((error.retry_after(), error.fault()), (Some(Duration::from_secs(7)), Fault::Authority));
        assert_eq!(error.to_string(), "AUTHORITY_THROTTLED: words (correlation id c-1)");
        let error = refused(Code::PermissionDenied, "ACCESS_DENIED", None);
        assert!(!error.is_transient() && error.fault() == Fault::Caller);
    }

    #[test]
    fn a_broken_connection_is_nobodys_no() {
        for code in [Code::Cancelled, Code::Unknown, Code::Internal] {
            let error = Error::of_call(&Status::new(code, "h2 protocol error"), &"here".into());
            assert!(matches!(error, Error::Unreachable { .. }) && error.is_transient(), "{error}");
        }
        assert!(matches!(refused(Code::Internal, "INTERNAL", None), Error::Refused(_)));
        let plain = Error::of_call(&Status::unimplemented(""), &"here".into());
        assert!(matches!(plain, Error::Refused(_)) && !plain.is_transient());
    }
}
