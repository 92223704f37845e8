//! What becomes of a request.

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<'a> {
    /// `grpc-status: 0`, with one message.
    Message(&'a [u8]),
    /// Another status, or an answer that is none of gRPC.
    Status(u32),
    /// The server reset the stream, with this error code.
    Reset(u32),
    /// The server ended the connection before it looked at the request, which may be sent again.
    Refused,
}

/// An answer, as far as it came.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) tag: u64,
    pub(super) body: Vec<u8>,
    pub(super) status: Option<u32>,
}

/// What is no gRPC answer counts as UNKNOWN.
const UNKNOWN: u32 = 2;

impl Stream {
    pub(super) fn new(tag: u64, body: Vec<u8>) -> Self {
        Self { tag, body, status: None }
    }

    /// How it ended.
    pub(super) fn outcome(&self) -> Outcome<'_> {
        match (self.status, self.body.as_slice()) {
            (Some(0), [0, a, b, c, d, message @ ..])
                if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len() =>
            {
                Outcome::Message(message)
            }
            (Some(0) | None, _) => Outcome::Status(UNKNOWN),
            (Some(code), _) => Outcome::Status(code),
        }
    }
}
