//! gRPC's status: the names of its codes, and what a server says beside one.

use std::fmt::Write;

use percent_encoding::percent_decode;

/// By their numbers.
const NAMES: [&str; 17] = [
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
/// Of a message more than this many bytes are left away.
const MOST_BYTES: usize = 300;

/// The code in a `grpc-status`, if it is one of gRPC's.
pub(super) fn code(value: &[u8]) -> Option<u32> {
    let code: u32 = std::str::from_utf8(value).ok()?.parse().ok()?;
    ((code as usize) < NAMES.len()).then_some(code)
}

/// What a code is called.
pub(super) fn name(code: u32) -> &'static str {
    NAMES.get(code as usize).copied().unwrap_or("UNKNOWN")
}

/// What a `grpc-message` says, on one line: what would move a terminal's cursor, or hide something, is escaped.
pub(super) fn message(value: &[u8]) -> String {
    let mut text = String::new();
    for character in percent_decode(value).decode_utf8_lossy().chars() {
        if text.len() >= MOST_BYTES {
            return text + "...";
        }
        // Writing to a text does not fail.
        let _ = match character {
            '\'' | '"' | '\\' => write!(text, "{character}"),
            other => write!(text, "{}", other.escape_debug()),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_grpc_has_its_name_and_nothing_else_is_a_code() {
        assert_eq!((code(b"7"), name(7)), (Some(7), "PERMISSION_DENIED"));
        assert_eq!((code(b"16"), name(16)), (Some(16), "UNAUTHENTICATED"));
        for wrong in [&b"17"[..], b"4294967296", b"-1", b"", b"x", b"\xff"] {
            assert_eq!(code(wrong), None);
        }
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length_that_does_nothing_to_a_terminal() {
        assert_eq!(message(b"no \"token\" of 100%25 %C3%A4"), "no \"token\" of 100% \u{e4}");
        assert_eq!(message(b"a%0Ab%1B[2Jc%E2%80%AEd%zz"), "a\\nb\\u{1b}[2Jc\\u{202e}d%zz");
        let long = message("%1B".repeat(100_000).as_bytes());
        assert!(long.len() < MOST_BYTES + 20 && long.ends_with("..."), "{long}");
    }
}
