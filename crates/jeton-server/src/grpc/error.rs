//! The one place that speaks gRPC codes: a [`Failure`] has one of the [`REASONS`], and becomes a status.

mod causes;
mod library;
mod reason;

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub use self::{
    library::complete,
    reason::{REASONS, Reason},
};
use crate::correlation;

const DOMAIN: &str = "jeton";
/// When to come again, where nothing says it better.
const DEFAULT_DELAY: Duration = Duration::from_secs(1);

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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_failure_inside_an_answer_offers_a_retry_where_one_helps_and_nowhere_else() {
        let delay = |reason| {
            let failure = Failure::new(reason, "x").retry_in(Some(Duration::from_secs(9)));
            jeton_proto::v1::Failure::from(failure).retry_delay.map(|d| d.seconds)
        };
        assert_eq!(delay(Reason::AuthorityRefused), None);
        assert_eq!(delay(Reason::AuthorityThrottled), Some(9));
    }
}
