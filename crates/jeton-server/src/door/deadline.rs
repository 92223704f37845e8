//! The deadline of a request: the caller's `grpc-timeout`, and never longer than ours. Streams have their own rules.

use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tonic::{Status, body::Body};

/// How long a unary request may take.
pub(crate) fn of<B>(request: &Request<B>, longest: Duration) -> Duration {
    asked(request.headers()).map_or(longest, |asked| asked.min(longest))
}

/// `grpc-timeout`: at most eight digits and a unit.
pub(crate) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The answer when it has passed.
pub(crate) fn exceeded() -> Response<Body> {
    Status::deadline_exceeded(
        "the request's deadline passed; try again, with a longer one if the authority is slow",
    )
    .into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(text: &str) -> Duration {
        let request = Request::builder().header("grpc-timeout", text).body(()).unwrap();
        of(&request, Duration::from_secs(10))
    }

    #[test]
    fn the_callers_deadline_counts_up_to_ours() {
        assert_eq!(timeout("250m"), Duration::from_millis(250));
        assert_eq!(timeout("2S"), Duration::from_secs(2));
        assert_eq!(timeout("1H"), Duration::from_secs(10));
        for malformed in ["", "S", "1", "-1S", "999999999S", "1x", "~S"] {
            assert_eq!(timeout(malformed), Duration::from_secs(10), "{malformed}");
        }
    }
}
