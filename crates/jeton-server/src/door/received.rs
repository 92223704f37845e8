//! What a peer has sent, told apart by frames (RFC 9113, section 4.1). The library says what a request's headers mean and not how long they
//! were on the wire, and with HPACK (RFC 7541) twenty bytes may mean sixteen thousand.

const PREFACE: usize = 24;
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// Bytes of a connection since its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// All of them.
    pub(crate) all: u64,
    /// Frames with headers.
    pub(crate) headers: u64,
}

/// Where in its frames a connection is.
pub(crate) struct Frames {
    received: Received,
    /// What is here of a head that came in parts, and how much that is.
    head: [u8; HEAD],
    known: usize,
    /// How much of the present frame's payload is not.
    left: usize,
    /// Whether that is headers.
    headers: bool,
}

impl Frames {
    pub(crate) fn new() -> Self {
        // What comes before the first frame is none.
        Self { received: Received::default(), head: [0; HEAD], known: 0, left: PREFACE, headers: false }
    }

    pub(crate) fn received(&self) -> Received {
        self.received
    }

    /// These bytes came.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        self.received.all += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.left > 0 {
                let part = self.left.min(bytes.len());
                self.left -= part;
                self.count(part);
                bytes = &bytes[part..];
            } else if let (0, Some((head, rest))) = (self.known, bytes.split_first_chunk()) {
                self.begin(*head);
                bytes = rest;
            } else {
                let part = (HEAD - self.known).min(bytes.len());
                self.head[self.known..][..part].copy_from_slice(&bytes[..part]);
                self.known += part;
                if self.known == HEAD {
                    self.known = 0;
                    self.begin(self.head);
                }
                bytes = &bytes[part..];
            }
        }
    }

    /// A head is whole: its payload begins.
    fn begin(&mut self, [a, b, c, kind, ..]: [u8; HEAD]) {
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.headers = matches!(kind, HEADERS | CONTINUATION);
        self.count(HEAD);
    }

    fn count(&mut self, bytes: usize) {
        if self.headers {
            self.received.headers += bytes as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_told_apart_however_the_bytes_come() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut headers = 0;
        for (kind, length) in [(4, 0), (HEADERS, 300), (CONTINUATION, 70_000), (0, 5), (6, 8), (HEADERS, 0)] {
            let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
            bytes.extend([a, b, c, kind, 4, 0, 0, 0, 1]);
            // Payload that looks like heads.
            bytes.extend(std::iter::repeat_n(HEADERS, length));
            headers += if matches!(kind, HEADERS | CONTINUATION) { (HEAD + length) as u64 } else { 0 };
        }
        for parts in [1, 2, 7, 8, 9, 10, 4_096, bytes.len()] {
            let mut frames = Frames::new();
            bytes.chunks(parts).for_each(|part| frames.read(part));
            let expected = Received { all: bytes.len() as u64, headers };
            assert_eq!(frames.received(), expected, "{parts} at a time");
        }
    }
}
