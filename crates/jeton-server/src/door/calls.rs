//! How long calls took, by method and status, and the spans of those that are sampled. What can be told apart is known beforehand, or
//! bounded.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use jeton_core::metrics::{Buckets, CALL_MICROS, Histogram, PerKey};
use jeton_trace::{Span, Tracer};
use tonic::Code;

use super::spans;

/// For calls of methods that are none, requests that are no calls, and requests whose method is none.
pub(super) const OTHER: &str = "_OTHER";
/// Combinations of door, method, scheme and status over HTTP/1.1.
const MOST_KINDS: usize = 500;

const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The calls of all doors since the start.
#[derive(Debug)]
pub struct Calls {
    methods: HashMap<String, Arc<CallsOf>>,
    other: Arc<CallsOf>,
    requests: PerKey<RequestKind, Histogram>,
    pub(super) tracer: Tracer,
}

/// The calls of one method.
#[derive(Debug)]
pub(crate) struct CallsOf {
    pub(super) name: String,
    /// Most methods know a few.
    by_code: [OnceLock<Histogram>; CODES.len()],
}

/// What requests over HTTP/1.1 have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestKind {
    /// The door's name.
    pub door: &'static str,
    /// A method of HTTP; `_OTHER` for one that nobody expects.
    pub method: &'static str,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The answer's status.
    pub status: u16,
}

/// Calls of a method that ended alike.
#[derive(Debug, Clone)]
pub struct CallsEnded {
    /// Such as `jeton.v1.TokenService/GetToken`.
    pub method: String,
    /// Such as `OK`.
    pub code: &'static str,
    /// How long they took.
    pub took: Buckets,
}

impl Default for Calls {
    fn default() -> Self {
        Self::new([])
    }
}

impl Calls {
    /// With the methods that there are, such as `jeton.v1.TokenService/GetToken`.
    pub fn new(methods: impl IntoIterator<Item = String>) -> Self {
        let named = |name: String| (name.clone(), Arc::new(CallsOf::new(name)));
        Self {
            methods: methods.into_iter().map(named).collect(),
            other: Arc::new(CallsOf::new(OTHER.into())),
            requests: PerKey::new(MOST_KINDS, || Histogram::new(CALL_MICROS)),
            tracer: Tracer::default(),
        }
    }

    /// With spans of those that this takes.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// Those of gRPC.
    pub fn calls(&self) -> Vec<CallsEnded> {
        let all = self.methods.values().chain([&self.other]);
        all.flat_map(|of| {
            let ended = CODES.into_iter().zip(&of.by_code);
            let ended = ended.filter_map(|(code, took)| Some((code, took.get()?.read())));
            ended.map(|(code, took)| CallsEnded { method: of.name.clone(), code, took })
        })
        .collect()
    }

    /// Those of HTTP/1.1.
    pub fn requests(&self) -> Vec<(RequestKind, Buckets)> {
        let all = self.requests.all().into_iter();
        all.filter_map(|(kind, took)| Some((kind?, took.read()))).collect()
    }

    pub(crate) fn of(&self, path: &str) -> &Arc<CallsOf> {
        path.strip_prefix('/').and_then(|name| self.methods.get(name)).unwrap_or(&self.other)
    }

    /// Of requests that are no calls.
    pub(crate) fn of_none(&self) -> &Arc<CallsOf> {
        &self.other
    }

    pub(crate) fn requested(&self, kind: RequestKind, took: Duration) {
        self.requests.of(&kind).record(took);
    }
}

impl RequestKind {
    /// `method`: whatever the peer sent.
    pub(crate) fn new(door: &'static str, method: &http::Method, tls: bool, status: u16) -> Self {
        Self { door, method: method_name(method), scheme: scheme(tls), status }
    }
}

pub(super) fn method_name(method: &http::Method) -> &'static str {
    let known = ["GET", "POST", "PUT", "HEAD"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER)
}

pub(super) fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

/// As OpenTelemetry has it.
pub(super) fn code_name(code: Code) -> &'static str {
    // Numbered by gRPC from 0 to 16.
    usize::try_from(code as i32).ok().and_then(|code| CODES.get(code)).copied().unwrap_or(OTHER)
}

impl CallsOf {
    fn new(name: String) -> Self {
        Self { name, by_code: Default::default() }
    }

    pub(crate) fn ended(&self, code: Code, took: Duration, count: u64) {
        // Numbered by gRPC from 0 to 16.
        if let Some(by_code) = usize::try_from(code as i32).ok().and_then(|code| self.by_code.get(code)) {
            by_code.get_or_init(|| Histogram::new(CALL_MICROS)).record_many(took, count);
        }
    }
}

/// A call under way. It is counted when this is dropped; without a status by then, as cancelled.
pub(crate) struct Timed {
    of: Arc<CallsOf>,
    began: Instant,
    pub(crate) span: Span,
    pub(crate) code: Code,
}

impl Timed {
    pub(crate) fn new(of: &Arc<CallsOf>, began: Instant, span: Span) -> Self {
        Self { of: Arc::clone(of), began, span, code: Code::Cancelled }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.of.ended(self.code, self.began.elapsed(), 1);
        spans::call_ended(&self.span, self.code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(calls: &Calls) -> Vec<(String, &'static str, u64)> {
        let mut all: Vec<_> = (calls.calls().into_iter())
            .map(|ended| (ended.method, ended.code, ended.took.counts.iter().sum()))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_call_is_counted_by_its_method_and_status_and_one_of_none_under_other() {
        let calls = Calls::new(["a.B/C".to_owned()]);
        for (path, code) in
            [("/a.B/C", Some(Code::Ok)), ("/a.B/C", None), ("/nonsense", Some(Code::Unimplemented))]
        {
            let mut timed = Timed::new(calls.of(path), Instant::now(), Span::NONE);
            timed.code = code.unwrap_or(timed.code);
        }
        calls.of("/a.B/C").ended(Code::Ok, Duration::from_micros(20), 9);
        let expected = [("_OTHER", "UNIMPLEMENTED", 1), ("a.B/C", "CANCELLED", 1), ("a.B/C", "OK", 10)];
        assert_eq!(counted(&calls), expected.map(|(method, code, count)| (method.to_owned(), code, count)));
    }

    #[test]
    fn every_code_of_grpc_has_its_name() {
        let upper = |code: Code| {
            format!("{code:?}").chars().fold(String::new(), |mut name, c| {
                if c.is_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.push(c.to_ascii_uppercase());
                name
            })
        };
        for (n, name) in CODES.into_iter().enumerate() {
            assert_eq!(upper(Code::from(n as i32)), name);
        }
    }

    #[test]
    fn what_a_peer_invents_makes_no_series() {
        let calls = Calls::default();
        for n in 0..1_000 {
            let method = http::Method::from_bytes(format!("INVENTED{n}").as_bytes()).unwrap();
            calls.requested(RequestKind::new("door", &method, false, 405), Duration::from_millis(1));
            calls.of(&format!("/invented/{n}")).ended(Code::Unimplemented, Duration::from_millis(1), 1);
        }
        assert_eq!((calls.requests().len(), calls.calls().len()), (1, 1));
    }
}
