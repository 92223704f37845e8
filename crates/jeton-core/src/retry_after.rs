//! Retry-After (RFC 9110 section 10.2.3), in both of its forms.

use std::time::{Duration, UNIX_EPOCH};

use crate::Wall;

/// No authority holds us back for longer: a mistaken header must not stop an identity for days.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The delay that a header asks for, from `now` by the authority's clock; at most an hour. What cannot be read says nothing.
pub fn parse(value: &str, now: Wall) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // Digits beyond u64 are a very long delay, which the cap cuts.
        let seconds = value.parse::<u64>().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    let until = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let until = Wall::from_millis(i64::try_from(until.as_millis()).ok()?);
    Some(until.saturating_since(now).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Wall = Wall::from_secs(784_111_777);

    #[test]
    fn both_forms_are_read_and_capped() {
        assert_eq!(parse(" 120 ", NOW), Some(Duration::from_secs(120)));
        assert_eq!(parse("0", NOW), Some(Duration::ZERO));
        assert_eq!(parse("Sun, 06 Nov 1994 08:50:37 GMT", NOW), Some(Duration::from_secs(60)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:40:37 GMT", NOW), Some(Duration::ZERO));
        assert_eq!(parse("86400", NOW), Some(MAX_RETRY_AFTER));
        assert_eq!(parse("99999999999999999999999", NOW), Some(MAX_RETRY_AFTER));
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        for garbage in ["", "-1", "1.5", "soon", "Sun, 99 Nov 1994", "1 2", "\u{663}"] {
            assert_eq!(parse(garbage, NOW), None, "{garbage:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_or_exceeds_the_cap(text in ".{0,64}") {
            prop_assert!(parse(&text, NOW).is_none_or(|delay| delay <= MAX_RETRY_AFTER));
        }
    }
}
