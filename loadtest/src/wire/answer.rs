//! What becomes of a request.

use std::fmt;

use super::status;

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<'a> {
    /// `grpc-status: 0`, with one message.
    Message(&'a [u8]),
    /// Another status with what the server says of it, or an answer that is none of gRPC.
    Status(u32, &'a str),
    /// The server reset the stream, with this error code.
    Reset(u32),
    /// The server ended the connection before it looked at the request, which may be sent again.
    Refused,
}

/// What a server says of a single request is left away: what happens often is counted under one name.
impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(_) => f.write_str("answered"),
            Self::Status(code, _) => write!(f, "grpc-status {code} ({})", status::name(*code)),
            Self::Reset(code) => write!(f, "stream reset with {code}"),
            Self::Refused => f.write_str("refused"),
        }
    }
}

/// An answer, as far as it came.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) tag: u64,
    pub(super) body: Vec<u8>,
    pub(super) status: Option<u32>,
    /// What the server says of it, where that is not the good one.
    pub(super) message: String,
}

/// What is no gRPC answer counts as UNKNOWN.
const UNKNOWN: u32 = 2;

impl Stream {
    pub(super) fn new(tag: u64, body: Vec<u8>) -> Self {
        Self { tag, body, status: None, message: String::new() }
    }

    /// How it ended.
    pub(super) fn outcome(&self) -> Outcome<'_> {
        match (self.status, self.body.as_slice()) {
            (Some(0), [0, a, b, c, d, message @ ..])
                if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len() =>
            {
                Outcome::Message(message)
            }
            (Some(0), _) => Outcome::Status(UNKNOWN, "grpc-status 0 without one whole message"),
            (None, _) => Outcome::Status(UNKNOWN, "an answer without a status of gRPC"),
            (Some(code), _) => Outcome::Status(code, &self.message),
        }
    }
}
