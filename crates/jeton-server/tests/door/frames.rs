//! A peer that writes HTTP/2 by hand (RFC 9113), so that it can do what no library lets one do. It blocks: one thread for each.
//!
//! The tests of the real binary use it too.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Long enough for a machine with much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Whether figures are judged that only hold on a machine with nothing else to do: `JETON_STRICT`, as `.ci/nightly` sets it. They are
/// printed in any case.
pub(crate) fn strict() -> bool {
    std::env::var_os("JETON_STRICT").is_some_and(|set| !set.is_empty())
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

/// More than any socket holds.
const WIDE: u32 = 1 << 30;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

pub(crate) fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let payload = entries.iter().flat_map(|(id, value)| {
        let (id, value) = (id.to_be_bytes(), value.to_be_bytes());
        id.into_iter().chain(value)
    });
    frame(SETTINGS, 0, 0, &payload.collect::<Vec<u8>>())
}

/// Odd numbers, as clients use them.
pub(crate) fn streams() -> impl Iterator<Item = u32> {
    (1..1 << 30).step_by(2)
}

/// The headers of a call, nothing of them kept in HPACK's table (RFC 7541, 6.2.2).
pub(crate) fn header_block(path: &str) -> Vec<u8> {
    // POST, http, and the indices of :path, :authority and content-type in the static table.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(&[0x04][..], path), (&[0x01], "localhost"), (&[0x0f, 0x10], "application/grpc")] {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// A message as gRPC frames it.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// A call with its message.
pub(crate) fn ask(stream: u32, path: &str, message: &[u8]) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, stream, &header_block(path));
    [head, frame(DATA, END_STREAM, stream, &framed(message))].concat()
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    frame(RST_STREAM, 0, stream, &CANCEL)
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Of a GOAWAY: the last stream that is answered.
    pub(crate) fn last_stream(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap()) & 0x7fff_ffff
    }
}

pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// Has sent its preface and these settings.
    pub(crate) fn connect(address: SocketAddr, entries: &[(u16, u32)]) -> Self {
        Self::try_connect(address, entries).unwrap()
    }

    /// The same where somebody may be there or not.
    pub(crate) fn try_connect(address: SocketAddr, entries: &[(u16, u32)]) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut raw = Self(stream);
        raw.send(&[PREFACE, &settings(entries)].concat())?;
        Ok(raw)
    }

    /// Has opened its windows for more than any socket holds.
    pub(crate) fn with_wide_windows(address: SocketAddr) -> io::Result<Self> {
        let mut raw = Self::try_connect(address, &[(INITIAL_WINDOW_SIZE, WIDE)])?;
        raw.widen(0, WIDE)?;
        Ok(raw)
    }

    /// Opens a stream's window, or the connection's (0), by so much.
    pub(crate) fn widen(&mut self, stream: u32, by: u32) -> io::Result<()> {
        self.send(&frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes()))
    }

    /// The same connection, for reading beside the writing.
    pub(crate) fn other_end(&self) -> Self {
        Self(self.0.try_clone().unwrap())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// The next frame; an error too when the connection has ended.
    pub(crate) fn next(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Sends what a frame asks for, as any orderly peer does.
    pub(crate) fn acknowledge(&mut self, of: &Frame) -> io::Result<()> {
        match of.kind {
            SETTINGS if of.flags & ACK == 0 => self.send(&frame(SETTINGS, ACK, 0, &[])),
            PING if of.flags & ACK == 0 => self.send(&frame(PING, ACK, 0, &of.payload)),
            _ => Ok(()),
        }
    }

    /// The next frame of a kind.
    pub(crate) fn until(&mut self, kind: u8) -> io::Result<Frame> {
        loop {
            let next = self.next()?;
            self.acknowledge(&next)?;
            if next.kind == kind {
                return Ok(next);
            }
        }
    }

    /// Reads until the connection ends; false: it did not.
    pub(crate) fn ends(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                }
            }
        }
    }
}

/// What a peer saw that asked without a pause until its connection ended.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) asked_to_end: Duration,
    pub(crate) ended: Duration,
    /// The last stream that the door said it would answer.
    pub(crate) last: u32,
    asked: u32,
    pub(crate) answered: Vec<u32>,
    pub(crate) failed: Vec<u32>,
}

impl Life {
    /// What was asked up to the last stream that the door said it would answer, and was not answered.
    pub(crate) fn lost(&self) -> Vec<u32> {
        let taken = streams().take_while(|stream| *stream <= self.last.min(self.asked));
        // In order, because one is asked after the other.
        taken.filter(|stream| self.answered.binary_search(stream).is_err()).collect()
    }
}

/// Asks, and asks again after each answer, until the connection ends. `start`: before it was opened.
pub(crate) fn lives(mut raw: Raw, start: Instant, ask: impl Fn(u32) -> Vec<u8>) -> Life {
    let mut headers = loona_hpack::Decoder::new();
    let (asked_to_end, ended) = (Duration::ZERO, Duration::ZERO);
    let mut life = Life { asked_to_end, ended, last: 0, asked: 1, answered: vec![], failed: vec![] };
    // One that has read no GOAWAY yet, or has not taken it in, goes on asking; an error shows again where it reads.
    let _ = raw.send(&ask(life.asked));
    while let Ok(frame) = raw.next() {
        raw.acknowledge(&frame).unwrap_or_default();
        match frame.kind {
            GOAWAY => {
                life.last = frame.last_stream();
                if life.asked_to_end.is_zero() {
                    life.asked_to_end = start.elapsed();
                }
            }
            HEADERS => {
                let fields = headers.decode(&frame.payload).unwrap();
                if frame.flags & END_STREAM == 0 {
                    continue;
                }
                let well =
                    fields.iter().any(|(name, value)| &name[..] == b"grpc-status" && &value[..] == b"0");
                if well {
                    life.answered.push(frame.stream)
                } else {
                    life.failed.push(frame.stream)
                }
                life.asked += 2;
                let _ = raw.send(&ask(life.asked));
            }
            RST_STREAM => life.failed.push(frame.stream),
            _ => {}
        }
    }
    life.ended = start.elapsed();
    life
}
