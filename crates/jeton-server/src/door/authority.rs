//! `:authority` on unix sockets.
//!
//! gRPC's C core (Python, C++, Ruby, PHP), Java and others name the socket's path there: `tmp%2Fdata.sock`, `/tmp/data.sock`. That is
//! no host, so the HTTP/2 library refuses the request with PROTOCOL_ERROR before anybody can look at it (hyperium/h2#487,
//! grpc/grpc#38142). Nobody needs the name on a unix socket, so bytes that no host can have are replaced on their way in, each by
//! one other byte: all lengths stay, and with them the peer's idea of the compression table (RFC 7541).
//!
//! What is read here is only the frames' and the fields' lengths. Whatever does not fit is left as it is: the library behind
//! is the one that judges.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Longer header blocks are not looked into; a first request is a few hundred bytes.
const MAX_BLOCK: usize = 16 * 1024;

/// A stream whose incoming `:authority` is made a host.
pub(crate) struct Hosted<S> {
    inner: S,
    reader: Reader,
}

/// Where in the frames the next byte is.
#[derive(Default)]
struct Reader {
    preface: usize,
    header: Vec<u8>,
    /// Bytes of the present frame that are still to come.
    left: usize,
    /// A HEADERS frame's payload, while it is not complete.
    block: Option<Vec<u8>>,
    flags: u8,
    /// Read and looked at, not yet taken.
    ready: Vec<u8>,
    taken: usize,
}

impl<S> Hosted<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, reader: Reader::default() }
    }
}

impl Reader {
    /// Takes in what arrived. HEADERS frames are held back until they are complete.
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.preface < PREFACE {
                let part = bytes.len().min(PREFACE - self.preface);
                self.preface += part;
                self.pass(&mut bytes, part);
            } else if self.left == 0 {
                self.begin(&mut bytes);
            } else {
                let part = bytes.len().min(self.left);
                self.left -= part;
                match &mut self.block {
                    None => self.pass(&mut bytes, part),
                    Some(block) => {
                        block.extend_from_slice(&bytes[..part]);
                        bytes = &bytes[part..];
                        if self.left == 0 {
                            self.end_block();
                        }
                    }
                }
            }
        }
    }

    fn pass(&mut self, bytes: &mut &[u8], count: usize) {
        self.ready.extend_from_slice(&bytes[..count]);
        *bytes = &bytes[count..];
    }

    fn begin(&mut self, bytes: &mut &[u8]) {
        let part = bytes.len().min(FRAME_HEADER - self.header.len());
        self.header.extend_from_slice(&bytes[..part]);
        *bytes = &bytes[part..];
        if let &[a, b, c, kind, flags, ..] = self.header.as_slice()
            && self.header.len() == FRAME_HEADER
        {
            self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            self.flags = flags;
            self.block = (kind == HEADERS && self.left <= MAX_BLOCK).then(|| Vec::with_capacity(self.left));
            self.ready.append(&mut self.header);
            if self.left == 0 {
                self.block = None;
            }
        }
    }

    fn end_block(&mut self) {
        let Some(mut block) = self.block.take() else { return };
        let skip = usize::from(self.flags & PADDED != 0) + if self.flags & PRIORITY != 0 { 5 } else { 0 };
        if let Some(fields) = block.get_mut(skip..) {
            make_host(fields);
        }
        self.ready.append(&mut block);
    }

    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let part = (self.ready.len() - self.taken).min(buffer.remaining());
        buffer.put_slice(&self.ready[self.taken..self.taken + part]);
        self.taken += part;
        if self.taken == self.ready.len() {
            self.ready.clear();
            self.taken = 0;
        }
    }
}

/// Finds a literal `:authority` (by its name, or index 1 of the static table) and replaces what no host can have. Nothing: it is not there, is
/// Huffman-coded, or the block is not as it should be.
fn make_host(fields: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while at < fields.len() {
        let first = fields[at];
        let prefix = match first {
            // Indexed, and a change of the table's size: an integer and nothing more.
            0x80.. => 7,
            0x20..=0x3f => 5,
            // Literals: with indexing, without, never.
            0x40..=0x7f => 6,
            _ => 4,
        };
        let index = integer(fields, &mut at, prefix)?;
        if matches!(first, 0x80.. | 0x20..=0x3f) {
            continue;
        }
        let named = if index == 0 { fields[text(fields, &mut at)?.0] == *b":authority" } else { index == 1 };
        let (value, coded) = text(fields, &mut at)?;
        if named {
            let host =
                |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']');
            if !coded && fields[value.clone()].iter().any(|b| !host(b)) {
                let other = |b: &mut u8| {
                    if !b.is_ascii_alphanumeric() {
                        *b = b'-'
                    }
                };
                fields[value].iter_mut().for_each(other);
            }
            return Some(());
        }
    }
    None
}

/// RFC 7541 section 5.1.
fn integer(fields: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(*fields.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in (0..21).step_by(7) {
        let byte = usize::from(*fields.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// RFC 7541 section 5.2: where a text is, and whether it is Huffman-coded.
fn text(fields: &[u8], at: &mut usize) -> Option<(std::ops::Range<usize>, bool)> {
    let coded = fields.get(*at)? & 0x80 != 0;
    let length = integer(fields, at, 7)?;
    let end = at.checked_add(length).filter(|end| *end <= fields.len())?;
    let range = *at..end;
    *at = end;
    Some((range, coded))
}

impl<S: AsyncRead + Unpin> AsyncRead for Hosted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.reader.ready.is_empty() {
                this.reader.give(buffer);
                return Poll::Ready(Ok(()));
            }
            let mut space = [0; 8 * 1024];
            let mut arrived = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut arrived))?;
            if arrived.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.reader.feed(arrived.filled());
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Hosted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `:method: POST`, then a literal `:authority` with indexing, then a literal with a new name.
    fn fields(authority: &str) -> Vec<u8> {
        let mut fields = vec![0x83, 0x41, u8::try_from(authority.len()).unwrap()];
        fields.extend_from_slice(authority.as_bytes());
        fields.extend_from_slice(b"\x40\x05x-key\x03a%b");
        fields
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn through(bytes: &[u8], cut: usize) -> Vec<u8> {
        let mut reader = Reader::default();
        bytes.chunks(cut).for_each(|chunk| reader.feed(chunk));
        reader.ready
    }

    #[test]
    fn a_path_becomes_a_host_of_the_same_length_and_a_host_stays() {
        for (given, expected) in [
            ("tmp%2Fdata.sock", "tmp-2Fdata-sock"),
            ("/tmp/d.sock", "-tmp-d-sock"),
            ("localhost:7411", "localhost:7411"),
        ] {
            let stream = [[b'p'; PREFACE].as_slice(), &frame(HEADERS, 0x4, &fields(given))].concat();
            let wanted = [[b'p'; PREFACE].as_slice(), &frame(HEADERS, 0x4, &fields(expected))].concat();
            for cut in [1, 2, 7, 9, 100] {
                assert_eq!(through(&stream, cut), wanted, "{given} in parts of {cut}");
            }
        }
    }

    #[test]
    fn the_name_may_be_spelled_out() {
        let mut fields = b"\x40\x05:path\x02/a\x40\x0a:authority\x05a%2Fb".to_vec();
        make_host(&mut fields);
        assert!(fields.ends_with(b"\x05a-2Fb"));
    }

    #[test]
    fn padding_and_priority_are_stepped_over() {
        let payload = [&[2, 0, 0, 0, 0, 16][..], &fields("a/b"), &[0, 0]].concat();
        let wanted = [&[2, 0, 0, 0, 0, 16][..], &fields("a-b"), &[0, 0]].concat();
        let stream =
            [[b'p'; PREFACE].as_slice(), &frame(HEADERS, PADDED | PRIORITY | 0x4, &payload)].concat();
        assert!(through(&stream, 5).ends_with(&wanted));
    }

    #[test]
    fn other_frames_pass_untouched() {
        let stream = [
            [b'p'; PREFACE].as_slice(),
            &frame(0, 0, &fields("a/b")),
            &frame(4, 0, &[]),
            &frame(9, 4, b"x/y"),
        ]
        .concat();
        assert_eq!(through(&stream, 11), stream);
    }

    proptest! {
        #[test]
        fn whatever_comes_nothing_is_lost_and_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 1_usize..50) {
            let mut reader = Reader::default();
            bytes.chunks(cut).for_each(|chunk| reader.feed(chunk));
            let held = reader.header.len() + reader.block.as_ref().map_or(0, Vec::len);
            prop_assert_eq!(reader.ready.len() + held, bytes.len());
        }

        #[test]
        fn a_block_of_any_bytes_keeps_its_length(mut block in prop::collection::vec(any::<u8>(), 0..200)) {
            let before = block.len();
            make_host(&mut block);
            prop_assert_eq!(block.len(), before);
        }
    }
}
