//! Requests that are no calls of gRPC (its PROTOCOL-HTTP2, "Requests"). They are answered in HTTP's own words: to whoever does not speak
//! gRPC the 200 of its refusals is a success.

use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
    request::Parts,
};
use http_body_util::Full;
use tonic::body::Body;

const GRPC: &[u8] = b"application/grpc";
/// For people; programs have status and header.
const TEXT: &str = "This listener speaks gRPC: a call is a POST with the content type application/grpc.\n";

/// Why a request is no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotGrpc {
    Method,
    ContentType,
}

impl NotGrpc {
    /// None: it is one.
    pub(crate) fn of(head: &Parts) -> Option<Self> {
        if head.method != Method::POST {
            return Some(Self::Method);
        }
        let grpc = head.headers.get(CONTENT_TYPE).is_some_and(|kind| is_grpc(kind.as_bytes()));
        (!grpc).then_some(Self::ContentType)
    }

    /// RFC 9110, sections 15.5.6 and 15.5.16.
    pub(crate) fn answer(self, method: &Method) -> Response<Body> {
        let (status, name, value): (_, HeaderName, _) = match self {
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, ALLOW, "POST"),
            Self::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, ACCEPT, "application/grpc"),
        };
        // No answer to HEAD has a body.
        let body = if method == Method::HEAD { Body::empty() } else { Body::new(Full::from(TEXT)) };
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        answer
    }
}

/// With whatever format and parameters; `application/grpc-web` is another protocol.
fn is_grpc(kind: &[u8]) -> bool {
    kind.split_at_checked(GRPC.len()).is_some_and(|(name, rest)| {
        name.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
    })
}
