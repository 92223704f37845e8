//! The client's side of HTTP/2 for one gRPC call, without I/O.
//!
//! A general client costs more for each request than the server that it is to measure. This one knows one call: requests are encoded once
//! and copied, answers are looked at by their frames. It keeps to RFC 9113 (windows, settings, pings, GOAWAY) and asks the server
//! for an empty compression table (RFC 7541), so that every header block can be read by itself.

use std::collections::HashMap;

use loona_hpack::Decoder;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
const LARGEST_WINDOW: u32 = 0x7fff_ffff;
const FIRST_WINDOW: i64 = 65_535;
/// The last stream of a connection; stream ids are never used twice.
const LAST_STREAM: u32 = 0x7fff_fffe;

/// A request, encoded once: both frames, with room for the stream's id.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    headers: Vec<u8>,
    data: Vec<u8>,
}

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<'a> {
    /// `grpc-status: 0`, with one message.
    Message(&'a [u8]),
    /// Another status, or an answer that is none of gRPC.
    Status(u32),
    /// The server reset the stream, with this error code.
    Reset(u32),
}

/// The server broke the protocol, or wants no more of this connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// What it sent is not HTTP/2 as this client asked for it.
    #[error("the server breaks the protocol: {0}")]
    Protocol(&'static str),
}

/// One connection.
pub(crate) struct Client {
    /// Bytes to send.
    pub(crate) out: Vec<u8>,
    input: Vec<u8>,
    next_stream: u32,
    streams: HashMap<u32, Stream>,
    spare: Vec<Vec<u8>>,
    window: i64,
    max_streams: u32,
    consumed: u32,
    going_away: bool,
    decoder: Decoder<'static>,
    /// The trailers of success, as this server writes them.
    good: Vec<u8>,
}

#[derive(Debug)]
struct Stream {
    tag: u64,
    body: Vec<u8>,
    status: Option<u32>,
}

/// A frame of the input.
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl Request {
    /// A unary call of `path` with one message.
    pub(crate) fn new(secure: bool, authority: &str, path: &str, message: &[u8]) -> Self {
        // :method POST and :scheme, from the static table.
        let mut block = vec![0x83, if secure { 0x87 } else { 0x86 }];
        literal(&mut block, &[0x04], path.as_bytes());
        literal(&mut block, &[0x01], authority.as_bytes());
        // content-type is number 31 of the static table.
        literal(&mut block, &[0x0f, 31 - 15], b"application/grpc");
        let mut te = vec![0x00];
        text(&mut te, b"te");
        literal(&mut block, &te, b"trailers");
        let mut data = vec![];
        frame(&mut data, DATA, END_STREAM, 0, &[]);
        let length = u32::try_from(message.len()).expect("a request has less than 4 GiB");
        data.push(0);
        data.extend_from_slice(&length.to_be_bytes());
        data.extend_from_slice(message);
        set_length(&mut data);
        let mut headers = vec![];
        frame(&mut headers, HEADERS, END_HEADERS, 0, &block);
        Self { headers, data }
    }

    fn body_bytes(&self) -> i64 {
        (self.data.len() - FRAME_HEADER) as i64
    }
}

fn literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.extend_from_slice(name);
    text(block, value);
}

/// RFC 7541 section 5.2, not Huffman-coded.
fn text(block: &mut Vec<u8>, value: &[u8]) {
    let mut length = value.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push((length % 128) as u8 | 0x80);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend_from_slice(value);
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn set_length(frame: &mut [u8]) {
    let length = u32::try_from(frame.len() - FRAME_HEADER).expect("a frame is short").to_be_bytes();
    frame[..3].copy_from_slice(&length[1..]);
}

impl Default for Client {
    fn default() -> Self {
        let mut out = PREFACE.to_vec();
        let mut settings = vec![];
        // HEADER_TABLE_SIZE 0, ENABLE_PUSH 0, INITIAL_WINDOW_SIZE as large as it goes.
        for (id, value) in [(1_u16, 0_u32), (2, 0), (4, LARGEST_WINDOW)] {
            settings.extend_from_slice(&id.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        frame(&mut out, SETTINGS, 0, 0, &settings);
        frame(&mut out, WINDOW_UPDATE, 0, 0, &(LARGEST_WINDOW - 65_535).to_be_bytes());
        Self {
            out,
            input: vec![],
            next_stream: 1,
            streams: HashMap::new(),
            spare: vec![],
            window: FIRST_WINDOW,
            max_streams: u32::MAX,
            consumed: 0,
            going_away: false,
            decoder: Decoder::new(),
            good: vec![],
        }
    }
}

impl Client {
    /// Whether another request may be sent now.
    pub(crate) fn ready(&self, request: &Request) -> bool {
        !self.ended() && self.window >= request.body_bytes() && self.streams.len() < self.max_streams as usize
    }

    /// Whether this connection takes no more requests.
    pub(crate) fn ended(&self) -> bool {
        self.going_away || self.next_stream >= LAST_STREAM
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.streams.len()
    }

    /// Puts a request into [`Client::out`].
    pub(crate) fn send(&mut self, request: &Request, tag: u64) {
        let id = self.next_stream.to_be_bytes();
        for part in [&request.headers, &request.data] {
            let at = self.out.len();
            self.out.extend_from_slice(part);
            self.out[at + 5..at + FRAME_HEADER].copy_from_slice(&id);
        }
        self.window -= request.body_bytes();
        let body = self.spare.pop().unwrap_or_default();
        self.streams.insert(self.next_stream, Stream { tag, body, status: None });
        self.next_stream += 2;
    }

    /// Takes in what came; each request that ended is told to `ended`.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        mut ended: impl FnMut(u64, Outcome<'_>),
    ) -> Result<(), WireError> {
        let whole = if self.input.is_empty() { None } else { Some(std::mem::take(&mut self.input)) };
        let mut joined = whole.unwrap_or_default();
        let bytes = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        let mut at = 0;
        while let Some((frame, length)) = next_frame(&bytes[at..]) {
            self.frame(&frame, &mut ended)?;
            at += length;
        }
        let rest = bytes[at..].to_vec();
        self.input = rest;
        // Windows are opened in large steps.
        if self.consumed > LARGEST_WINDOW / 4 {
            frame(&mut self.out, WINDOW_UPDATE, 0, 0, &self.consumed.to_be_bytes());
            self.consumed = 0;
        }
        Ok(())
    }

    fn frame(
        &mut self,
        incoming: &Frame<'_>,
        ended: &mut impl FnMut(u64, Outcome<'_>),
    ) -> Result<(), WireError> {
        let payload = incoming.payload;
        match incoming.kind {
            DATA => {
                self.consumed += payload.len() as u32;
                let payload = unpadded(incoming, 0)?;
                if let Some(stream) = self.streams.get_mut(&incoming.stream) {
                    stream.body.extend_from_slice(payload);
                }
            }
            HEADERS => {
                if incoming.flags & END_HEADERS == 0 {
                    return Err(WireError::Protocol("a header block in several frames"));
                }
                let skip = if incoming.flags & PRIORITY != 0 { 5 } else { 0 };
                let block = unpadded(incoming, skip)?;
                self.headers(incoming.stream, block, incoming.flags & END_STREAM != 0)?;
            }
            CONTINUATION => return Err(WireError::Protocol("a header block in several frames")),
            RST_STREAM => {
                if let Some(stream) = self.streams.remove(&incoming.stream) {
                    ended(stream.tag, Outcome::Reset(number(payload)?));
                }
                return Ok(());
            }
            SETTINGS if incoming.flags & ACK == 0 => {
                for pair in payload.chunks_exact(6) {
                    if pair[..2] == [0, 3] {
                        self.max_streams = number(&pair[2..])?;
                    }
                }
                frame(&mut self.out, SETTINGS, ACK, 0, &[]);
            }
            PING if incoming.flags & ACK == 0 => frame(&mut self.out, PING, ACK, 0, payload),
            GOAWAY => self.going_away = true,
            // A stream's own window is never used up: a request is shorter than the first one.
            WINDOW_UPDATE if incoming.stream == 0 => self.window += i64::from(number(payload)?),
            _ => {}
        }
        if incoming.flags & END_STREAM != 0
            && matches!(incoming.kind, DATA | HEADERS)
            && let Some(stream) = self.streams.remove(&incoming.stream)
        {
            ended(stream.tag, outcome(&stream));
            let mut body = stream.body;
            body.clear();
            self.spare.push(body);
        }
        Ok(())
    }

    fn headers(&mut self, stream: u32, block: &[u8], last: bool) -> Result<(), WireError> {
        let Some(stream) = self.streams.get_mut(&stream) else { return Ok(()) };
        if !last {
            return Ok(());
        }
        if !self.good.is_empty() && self.good == block {
            stream.status = Some(0);
            return Ok(());
        }
        let fields = self
            .decoder
            .decode(block)
            .map_err(|_| WireError::Protocol("a header block that does not decode"))?;
        let value = fields.iter().find(|(name, _)| name == b"grpc-status").map(|(_, value)| value);
        stream.status = value.and_then(|v| std::str::from_utf8(v).ok()).and_then(|v| v.parse().ok());
        if stream.status == Some(0) {
            self.good = block.to_vec();
        }
        Ok(())
    }
}

/// What is no gRPC answer counts as UNKNOWN.
const UNKNOWN: u32 = 2;

fn outcome(stream: &Stream) -> Outcome<'_> {
    match (stream.status, stream.body.as_slice()) {
        (Some(0), [0, a, b, c, d, message @ ..])
            if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len() =>
        {
            Outcome::Message(message)
        }
        (Some(0) | None, _) => Outcome::Status(UNKNOWN),
        (Some(code), _) => Outcome::Status(code),
    }
}

fn next_frame(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER>()?;
    let &[a, b, c, kind, flags, ref id @ ..] = header;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    let payload = rest.get(..length)?;
    let stream = u32::from_be_bytes(*id) & 0x7fff_ffff;
    Some((Frame { kind, flags, stream, payload }, FRAME_HEADER + length))
}

fn unpadded<'a>(frame: &Frame<'a>, skip: usize) -> Result<&'a [u8], WireError> {
    let (padding, payload) = match frame.payload {
        [padding, rest @ ..] if frame.flags & PADDED != 0 => (usize::from(*padding), rest),
        payload => (0, payload),
    };
    let end = payload.len().checked_sub(padding).ok_or(WireError::Protocol("more padding than payload"))?;
    payload.get(skip..end).ok_or(WireError::Protocol("a frame that is too short"))
}

fn number(bytes: &[u8]) -> Result<u32, WireError> {
    let four = bytes.first_chunk::<4>().ok_or(WireError::Protocol("a frame that is too short"))?;
    Ok(u32::from_be_bytes(*four))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(stream: u32, message: &[u8], trailers: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        // :status 200 from the static table.
        frame(&mut out, HEADERS, END_HEADERS, stream, &[0x88]);
        let mut body = vec![0];
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(message);
        frame(&mut out, DATA, 0, stream, &body);
        frame(&mut out, HEADERS, END_HEADERS | END_STREAM, stream, trailers);
        out
    }

    fn status(code: &[u8]) -> Vec<u8> {
        let mut block = vec![0x00];
        text(&mut block, b"grpc-status");
        text(&mut block, code);
        block
    }

    fn told(client: &mut Client, bytes: &[u8], part: usize) -> Vec<(u64, Result<Vec<u8>, u32>)> {
        let mut told = vec![];
        for chunk in bytes.chunks(part) {
            let heard = |tag, outcome: Outcome<'_>| {
                told.push((
                    tag,
                    match outcome {
                        Outcome::Message(m) => Ok(m.to_vec()),
                        Outcome::Status(code) | Outcome::Reset(code) => Err(code),
                    },
                ))
            };
            client.receive(chunk, heard).unwrap();
        }
        told
    }

    #[test]
    fn answers_are_told_once_however_they_are_cut() {
        let request = Request::new(false, "localhost", "/a.B/C", b"hello");
        for part in [1, 3, 10, 1_000] {
            let mut client = Client::default();
            client.send(&request, 7);
            client.send(&request, 8);
            client.send(&request, 9);
            let bytes = [
                answer(3, b"two", &status(b"0")),
                answer(1, b"one", &status(b"0")),
                answer(5, b"", &status(b"8")),
            ];
            let told = told(&mut client, &bytes.concat(), part);
            assert_eq!(told, [(8, Ok(b"two".to_vec())), (7, Ok(b"one".to_vec())), (9, Err(8))]);
            assert_eq!(client.in_flight(), 0);
        }
    }

    #[test]
    fn windows_stream_limits_and_goaway_hold_requests_back() {
        let request = Request::new(false, "localhost", "/a.B/C", &[7; 30_000]);
        let mut client = Client::default();
        client.send(&request, 1);
        client.send(&request, 2);
        assert!(!client.ready(&request), "the window is used up");
        let mut update = vec![];
        frame(&mut update, WINDOW_UPDATE, 0, 0, &60_000_u32.to_be_bytes());
        told(&mut client, &update, 4);
        assert!(client.ready(&request));
        let mut settings = vec![];
        frame(&mut settings, SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 2]);
        told(&mut client, &settings, 100);
        assert!(!client.ready(&request), "two streams are all");
        told(&mut client, &answer(1, b"", &status(b"0")), 100);
        assert!(client.ready(&request));
        let mut goaway = vec![];
        frame(&mut goaway, GOAWAY, 0, 0, &[0; 8]);
        told(&mut client, &goaway, 100);
        assert!(!client.ready(&request));
    }

    #[test]
    fn pings_and_settings_are_acknowledged() {
        let mut client = Client::default();
        client.out.clear();
        let mut bytes = vec![];
        frame(&mut bytes, SETTINGS, 0, 0, &[]);
        frame(&mut bytes, PING, 0, 0, b"12345678");
        told(&mut client, &bytes, 5);
        assert!(client.out.ends_with(b"12345678"));
        assert_eq!(client.out[3..5], [SETTINGS, ACK]);
    }
}
