//! What the page is told when the broker refuses or does not answer.

use std::error::Error;

use axum::{
    Json,
    extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::json;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt;

/// An error of a call, or of the page's own request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    status: StatusCode,
    reason: String,
    message: String,
    remedy: String,
    correlation_id: Option<String>,
}

impl Failure {
    pub(crate) fn late() -> Self {
        let (message, remedy) =
            ("the broker gave no answer in time", "try again; `jeton status` says whether it is down");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED", message, remedy)
    }

    pub(crate) fn nothing_there() -> Self {
        let remedy = "reload the page: it may be of another version than this command";
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "the console has no such path", remedy)
    }

    /// Not there, or not for this caller's eyes.
    pub(crate) fn not_found(name: &str) -> Self {
        let message = format!("{name} is not there, or not in your scope");
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message, "look for it in the list")
    }

    pub(crate) fn wrong(field: &str, given: &str) -> Self {
        let message = format!("{field}: {given:?} is none that the console knows");
        Self::new(StatusCode::BAD_REQUEST, "INVALID_FIELD", message, "choose one that the page offers")
    }

    pub(crate) fn too_many() -> Self {
        let message = "as many tabs of the console follow events as may";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "OVERLOADED", message, "close another tab")
    }

    pub(crate) fn body_late() -> Self {
        let message = "the body of the request did not come in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "DEADLINE_EXCEEDED", message, "send it again, whole")
    }

    /// No request as the page makes them.
    fn unreadable(status: StatusCode, message: String) -> Self {
        let remedy = "reload the page: it may be of another version than this command";
        let reason =
            if status == StatusCode::PAYLOAD_TOO_LARGE { "REQUEST_TOO_LARGE" } else { "MALFORMED_REQUEST" };
        Self::new(status, reason, message, remedy)
    }

    fn new(status: StatusCode, reason: &str, message: impl Into<String>, remedy: &str) -> Self {
        let (reason, message, remedy) = (reason.into(), message.into(), remedy.into());
        Self { status, reason, message, remedy, correlation_id: None }
    }
}

macro_rules! from_rejections {
    ($($rejection:ty),*) => { $(impl From<$rejection> for Failure {
        fn from(rejection: $rejection) -> Self {
            Self::unreadable(rejection.status(), rejection.body_text())
        }
    })* };
}
from_rejections!(BytesRejection, JsonRejection, PathRejection, QueryRejection);

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let causes = || std::iter::successors(status.source(), |&cause| cause.source());
        if causes().any(|cause| cause.is::<TimeoutExpired>()) {
            return Self::late();
        }
        // The broker's own words have no cause on this side.
        if let Some(cause) = causes().last() {
            let message = format!("the broker cannot be reached ({cause}): it stopped or was killed");
            let remedy = "start it again; this page goes on by itself";
            return Self::new(StatusCode::BAD_GATEWAY, "UNREACHABLE", message, remedy);
        }
        let details = status.get_error_details();
        let info = details.error_info();
        let correlation_id = info.and_then(|info| info.metadata.get("correlation_id").cloned());
        let reason = info.map_or_else(|| format!("{:?}", status.code()), |info| info.reason.clone());
        Self {
            status: code(status.code()),
            remedy: remedy(status.code(), &reason, correlation_id.as_deref()),
            reason,
            message: status.message().to_owned(),
            correlation_id,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { status, reason, message, remedy, correlation_id } = self;
        let error =
            json!({"reason": reason, "message": message, "remedy": remedy, "correlation_id": correlation_id});
        (status, Json(json!({"error": error}))).into_response()
    }
}

const fn code(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::PermissionDenied | Code::Unauthenticated => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::BAD_GATEWAY
        }
    }
}

/// What helps, where the message does not say it itself.
fn remedy(code: Code, reason: &str, correlation_id: Option<&str>) -> String {
    match (code, correlation_id) {
        (Code::PermissionDenied, Some(id)) => {
            format!("an access administrator learns what is missing: jeton access explain --correlation {id}")
        }
        (Code::Unimplemented, _) => "the broker is older than this command: update it".into(),
        (Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded, _) => {
            "try again in a moment".into()
        }
        _ => format!("docs/errors.md says what {reason} asks for"),
    }
}
