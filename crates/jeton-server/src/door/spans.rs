//! Spans of requests, as OpenTelemetry's conventions for RPC and HTTP want them.
//!
//! Of a peer's words only its trace context gets into them, and over HTTP/1.1 the path: no header, no parameter, no message.

use http::{HeaderMap, Request};
use jeton_trace::Span;
use tonic::Code;

use super::calls::{Calls, code_name, method_name, scheme};

impl Calls {
    /// Of a call of gRPC. One that is not sampled costs its caller a look at one header.
    pub(crate) fn call(&self, path: &str, headers: &HeaderMap) -> Span {
        let span = self.tracer.request(headers, || self.of(path).name.clone().into());
        if span.is_recording() {
            span.text("rpc.system.name", "grpc");
            span.text("rpc.method", &self.of(path).name);
        }
        span
    }

    /// Of a request over HTTP/1.1.
    pub(crate) fn request<B>(&self, request: &Request<B>, tls: bool) -> Span {
        let method = method_name(request.method());
        let span = self.tracer.request(request.headers(), || {
            // The conventions' word for a method that nobody knows.
            if method == super::calls::OTHER { "HTTP".into() } else { method.into() }
        });
        if span.is_recording() {
            span.text("http.request.method", method);
            span.text("url.scheme", scheme(tls));
            span.text("url.path", request.uri().path());
        }
        span
    }
}

/// How a call of gRPC ended. What its caller did wrong is no failure of ours.
pub(crate) fn call_ended(span: &Span, code: Code) {
    if !span.is_recording() {
        return;
    }
    let name = code_name(code);
    span.text("rpc.response.status_code", name);
    let ours = [
        Code::Unknown,
        Code::DeadlineExceeded,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
    ];
    if ours.contains(&code) {
        span.fail(name);
    }
}

/// How a request over HTTP/1.1 ended.
pub(crate) fn request_ended(span: &Span, status: u16) {
    span.number("http.response.status_code", status);
    if status >= 500 {
        span.fail(status);
    }
}
