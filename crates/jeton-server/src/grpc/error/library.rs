//! The errors of the layers around the services: what they say is told apart by their words.

use http::Response;
use tonic::{Code, Status, body::Body};

use super::{Failure, Reason};

/// What a server takes, in its refusal of what it does not take.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// The library's own words for what is not framed as it has to be. Those for a stream that broke off have "protocol error" too.
const NOT_FRAMED: [&str; 3] =
    ["protocol error: received message", "Missing request message", "Unexpected EOF"];

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

impl Failure {
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
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

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
}
