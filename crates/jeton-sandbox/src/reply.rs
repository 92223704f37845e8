//! Answers, and what all of them have in common.

use std::collections::BTreeSet;

use axum::{
    body::Body,
    http::{HeaderMap, Response, StatusCode, header},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

pub(crate) type Reply = Response<Body>;

/// JSON that no cache may keep.
pub(crate) fn json(status: u16, body: &Value) -> Reply {
    with_type(status, "application/json; charset=utf-8", body.to_string())
}

pub(crate) fn text(status: u16, body: &str) -> Reply {
    with_type(status, "text/plain; charset=utf-8", body.to_owned())
}

pub(crate) fn empty(status: u16) -> Reply {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = code(status);
    reply
}

fn with_type(status: u16, kind: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Body::from(body));
    *reply.status_mut() = code(status);
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, header::HeaderValue::from_static("no-cache"));
    reply
}

pub(crate) fn with_header(mut reply: Reply, name: &'static str, value: &str) -> Reply {
    if let Ok(value) = header::HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
    reply
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// HTTP Basic, with both parts form-encoded (RFC 6749 section 2.3.1).
pub(crate) fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let encoded = scheme.eq_ignore_ascii_case("basic").then_some(encoded.trim())?;
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let plain = |part: &str| form(format!("x={part}").as_bytes()).into_iter().next().map(|(_, value)| value);
    Some((plain(id)?, plain(secret)?))
}

/// Whether the body is of a type, whatever the type's parameters.
pub(crate) fn has_type(headers: &HeaderMap, kind: &str) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|h| h.to_str().ok()).unwrap_or_default();
    given.split(';').next().is_some_and(|given| given.trim().eq_ignore_ascii_case(kind))
}

pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// A form as a list, in its order; repeated names stay repeated.
pub(crate) fn form(body: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(body).into_owned().collect()
}

pub(crate) fn field<'a>(form: &'a [(String, String)], name: &str) -> Option<&'a str> {
    form.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
}

/// The name of a parameter that was sent more than once.
pub(crate) fn repeated(form: &[(String, String)]) -> Option<&str> {
    let mut seen = BTreeSet::new();
    form.iter().map(|(name, _)| name.as_str()).find(|name| !seen.insert(*name))
}
