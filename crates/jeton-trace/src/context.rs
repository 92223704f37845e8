//! Where a span stands (W3C Trace Context, level 1).

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Of version 00, and of what every later version begins with.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;
/// Of a `tracestate` that is kept. The specification asks for no less.
const MOST_STATE: usize = 512;

/// A span of some trace, ours or a caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Of the whole trace; never zero.
    pub trace_id: u128,
    /// Of the span; never zero.
    pub span_id: u64,
    /// Whether the trace is recorded.
    pub sampled: bool,
    /// What systems of tracing keep for themselves.
    pub state: Option<Arc<str>>,
}

impl Context {
    /// The caller's. None: there is none, or it means nothing; then a trace begins here. Nothing is allocated.
    pub(crate) fn of_caller(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(&TRACEPARENT).iter();
        let (Some(one), None) = (all.next(), all.next()) else { return None };
        Self::parse(one.as_bytes())
    }

    /// With the caller's `tracestate`; what is too long or no text is dropped.
    pub(crate) fn with_state_of(mut self, headers: &HeaderMap) -> Self {
        let texts: Option<Vec<_>> =
            headers.get_all(&TRACESTATE).iter().map(|value| value.to_str().ok()).collect();
        let state = texts.unwrap_or_default().join(",");
        self.state = (1..=MOST_STATE).contains(&state.len()).then(|| state.into());
        self
    }

    /// `version-trace_id-span_id-flags`, in lower-case hexadecimal digits.
    fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_at_checked(LENGTH)?;
        let version = hexadecimal(&known[..2])?;
        let fits = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => matches!(more, [] | [b'-', ..]),
        };
        if !fits || [2, 35, 52].into_iter().any(|at| known[at] != b'-') {
            return None;
        }
        let trace_id = hexadecimal(&known[3..35])?;
        let span_id = u64::try_from(hexadecimal(&known[36..52])?).ok()?;
        let flags = u8::try_from(hexadecimal(&known[53..])?).ok()?;
        let sampled = flags & SAMPLED != 0;
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, sampled, state: None })
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(values: &[&str]) -> Option<(u128, u64, bool)> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&TRACEPARENT, value.parse().unwrap());
        }
        Context::of_caller(&headers).map(|context| (context.trace_id, context.span_id, context.sampled))
    }

    #[test]
    fn a_callers_context_is_read_and_a_malformed_one_is_none() {
        let ids = (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7);
        assert_eq!(read(&[GOOD]), Some((ids.0, ids.1, true)));
        for (flags, sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            let text = format!("{}{flags}", &GOOD[..53]);
            assert_eq!(read(&[&text]), Some((ids.0, ids.1, sampled)), "{text}");
        }
        for later in [GOOD.replacen("00", "cc", 1), format!("{}-what-will-be", GOOD.replacen("00", "01", 1))]
        {
            assert!(read(&[&later]).is_some(), "{later}");
        }
        let wrong = [
            String::new(),
            GOOD[..54].into(),
            format!("{GOOD}-more"),
            format!("{GOOD}0"),
            format!("{}.", GOOD.replacen("00", "01", 1)),
            GOOD.replacen("00", "ff", 1),
            GOOD.to_uppercase(),
            GOOD.replace('-', "_"),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("00f067", "0xf067"),
        ];
        for text in wrong {
            assert_eq!(read(&[&text]), None, "{text}");
        }
        assert_eq!(read(&[GOOD, GOOD]), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn a_callers_state_is_kept_whole_or_not_at_all() {
        let state = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&TRACESTATE, value.parse().unwrap());
            }
            let context = Context::parse(GOOD.as_bytes()).unwrap().with_state_of(&headers);
            context.state.map(|state| state.to_string())
        };
        assert_eq!(state(&["a=1,b=2", "c=3"]).as_deref(), Some("a=1,b=2,c=3"));
        assert_eq!(state(&[]), None);
        assert_eq!(state(&[""]), None);
        assert!(state(&["x".repeat(MOST_STATE).as_str()]).is_some());
        assert_eq!(state(&["x".repeat(MOST_STATE + 1).as_str()]), None);
    }
}
