//! Bytes of an answer on their way out, shared with everybody else who gets them.

use std::{fmt, slice};

use bytes::{Buf, Bytes};

/// An answer's bytes, nowhere copied. The last one may be another than the others get.
#[derive(Clone)]
pub struct Answer {
    shared: Bytes,
    last: Option<u8>,
}

impl Answer {
    /// These bytes with another last one.
    pub fn ending(shared: Bytes, last: u8) -> Self {
        Self { shared, last: Some(last) }
    }
}

impl From<Bytes> for Answer {
    fn from(shared: Bytes) -> Self {
        Self { shared, last: None }
    }
}

/// Nothing of what it holds.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("bytes", &self.shared.len()).finish_non_exhaustive()
    }
}

impl Buf for Answer {
    fn remaining(&self) -> usize {
        self.shared.len()
    }

    fn chunk(&self) -> &[u8] {
        match (&self.last, &*self.shared) {
            (None, shared) => shared,
            (Some(_), [before @ .., _]) if !before.is_empty() => before,
            (Some(last), [_]) => slice::from_ref(last),
            (Some(_), _) => &[],
        }
    }

    fn advance(&mut self, count: usize) {
        self.shared.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_bytes_in_whatever_parts_it_is_taken() {
        let shared = Bytes::from_static(b"fresh1");
        for (answer, expected) in
            [(Answer::from(shared.clone()), b"fresh1"), (Answer::ending(shared.clone(), b'2'), b"fresh2")]
        {
            for first in 0..=expected.len() {
                let mut answer = answer.clone();
                let parts = [answer.copy_to_bytes(first), answer.copy_to_bytes(expected.len() - first)];
                assert_eq!(parts.concat(), expected, "{first} bytes first");
                assert!(!answer.has_remaining() && answer.chunk().is_empty());
            }
        }
        assert_eq!(Answer::ending(shared.slice(..1), 0).chunk(), [0]);
        assert!(!Answer::ending(Bytes::new(), 0).has_remaining());
    }

    #[test]
    fn an_answer_shows_nothing_of_its_bytes() {
        let shown = format!("{:?}", Answer::ending(Bytes::from_static(b"secret"), b'!'));
        assert_eq!(shown, "Answer { bytes: 6, .. }");
    }
}
