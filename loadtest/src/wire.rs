//! The client's side of HTTP/2 for one gRPC call, without I/O.
//!
//! A general client costs more for each request than the server that it is to measure. This one knows one call: requests are encoded once
//! and copied, answers are looked at by their frames. It keeps to RFC 9113 (windows, settings, pings, GOAWAY) and asks the server
//! for an empty compression table (RFC 7541), so that every header block can be read by itself.

mod answer;
mod frames;
mod request;
mod status;

use std::collections::HashMap;

pub(crate) use answer::Outcome;
use answer::Stream;
use frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_HEADER, Frame, GOAWAY, HEADERS, PING, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, next_frame, number, unpadded,
};
use loona_hpack::Decoder;
pub(crate) use request::Request;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LARGEST_WINDOW: u32 = 0x7fff_ffff;
const FIRST_WINDOW: i64 = 65_535;
/// The last stream of a connection; stream ids are never used twice.
const LAST_STREAM: u32 = 0x7fff_fffe;
/// RFC 9113 section 7.
const NO_ERROR: u32 = 0;

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// What it sent is not HTTP/2 as this client asked for it.
    #[error("the server breaks the protocol: {0}")]
    Protocol(&'static str),
    /// It ended the connection for a reason (RFC 9113 section 7).
    #[error("the server ended the connection with error {0} (GOAWAY)")]
    GoAway(u32),
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
        self.streams.insert(self.next_stream, Stream::new(tag, body));
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
            GOAWAY => self.go_away(payload, ended)?,
            // A stream's own window is never used up: a request is shorter than the first one.
            WINDOW_UPDATE if incoming.stream == 0 => self.window += i64::from(number(payload)?),
            _ => {}
        }
        if incoming.flags & END_STREAM != 0
            && matches!(incoming.kind, DATA | HEADERS)
            && let Some(stream) = self.streams.remove(&incoming.stream)
        {
            ended(stream.tag, stream.outcome());
            let mut body = stream.body;
            body.clear();
            self.spare.push(body);
        }
        Ok(())
    }

    /// RFC 9113 section 6.8: streams up to the last one that it names are still answered, the others were not looked at.
    fn go_away(&mut self, payload: &[u8], ended: &mut impl FnMut(u64, Outcome<'_>)) -> Result<(), WireError> {
        self.going_away = true;
        let last = number(payload)? & 0x7fff_ffff;
        match number(payload.get(4..).unwrap_or_default())? {
            NO_ERROR => {}
            code => return Err(WireError::GoAway(code)),
        }
        let mut refused: Vec<_> = self.streams.keys().copied().filter(|stream| *stream > last).collect();
        // From the latest on: whoever puts each before the others has them in their order.
        refused.sort_unstable_by(|a, b| b.cmp(a));
        for stream in refused.iter().filter_map(|stream| self.streams.remove(stream)) {
            ended(stream.tag, Outcome::Refused);
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
        let field = |wanted: &[u8]| {
            fields.iter().find(|(name, _)| name == wanted).map_or(&[][..], |(_, value)| value)
        };
        stream.status = status::code(field(b"grpc-status"));
        if stream.status == Some(0) {
            self.good = block.to_vec();
        } else {
            stream.message = status::message(field(b"grpc-message"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{request::text, *};

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

    fn goaway(last: u32, code: u32) -> Vec<u8> {
        let mut out = vec![];
        frame(&mut out, GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat());
        out
    }

    fn status(code: &[u8]) -> Vec<u8> {
        let mut block = vec![0x00];
        text(&mut block, b"grpc-status");
        text(&mut block, code);
        block
    }

    /// Stands for [`Outcome::Refused`]; no code has this value.
    const REFUSED: u32 = u32::MAX;

    fn told(client: &mut Client, bytes: &[u8], part: usize) -> Vec<(u64, Result<Vec<u8>, u32>)> {
        let mut told = vec![];
        for chunk in bytes.chunks(part) {
            let heard = |tag, outcome: Outcome<'_>| {
                told.push((
                    tag,
                    match outcome {
                        Outcome::Message(m) => Ok(m.to_vec()),
                        Outcome::Status(code, _) | Outcome::Reset(code) => Err(code),
                        Outcome::Refused => Err(REFUSED),
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
    fn a_status_has_its_name_and_what_the_server_says_of_it() {
        let mut client = Client::default();
        client.send(&Request::new(false, "localhost", "/a.B/C", b"hello"), 7);
        let mut trailers = status(b"7");
        trailers.push(0x00);
        text(&mut trailers, b"grpc-message");
        text(&mut trailers, b"not%20you");
        let mut told = vec![];
        let heard = |_, outcome: Outcome<'_>| {
            let Outcome::Status(7, said) = outcome else { panic!("{outcome:?}") };
            told.push((outcome.to_string(), said.to_owned()));
        };
        client.receive(&answer(1, b"", &trailers), heard).unwrap();
        assert_eq!(told, [("grpc-status 7 (PERMISSION_DENIED)".to_owned(), "not you".to_owned())]);
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
        told(&mut client, &goaway(3, NO_ERROR), 100);
        assert!(!client.ready(&request) && client.ended());
    }

    #[test]
    fn a_connection_that_goes_away_answers_up_to_its_last_stream_and_gives_the_others_back() {
        let request = Request::new(false, "localhost", "/a.B/C", b"hello");
        let mut client = Client::default();
        (1..=4).for_each(|tag| client.send(&request, tag));
        // First it says that it will go (RFC 9113 section 6.8), and then where it stopped.
        assert_eq!(told(&mut client, &goaway(0x7fff_ffff, NO_ERROR), 100), []);
        assert_eq!((client.in_flight(), client.ended()), (4, true));
        let told = told(&mut client, &[goaway(3, NO_ERROR), answer(1, b"one", &status(b"0"))].concat(), 5);
        assert_eq!(told, [(4, Err(REFUSED)), (3, Err(REFUSED)), (1, Ok(b"one".to_vec()))]);
        assert_eq!(client.in_flight(), 1);
    }

    #[test]
    fn a_connection_that_is_ended_for_a_reason_is_an_error() {
        let mut client = Client::default();
        let ended = client.receive(&goaway(0, 11), |_, _| {});
        assert_eq!(ended, Err(WireError::GoAway(11)));
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
