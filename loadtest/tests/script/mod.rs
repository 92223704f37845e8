//! Servers that do what a test tells them to.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use jeton_proto::v1;
use prost::Message;

const PREFACE_BYTES: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// A gRPC message has its length in front, and a byte that says that it is not compressed.
const MESSAGE_PREFIX: usize = 5;

/// What becomes of a request.
pub(crate) enum Reply {
    Token(v1::Token),
    /// The connection ends in order; the request was not looked at.
    GoAway,
    Silence,
}

/// Listens as long as the test's process runs. `script` makes what decides on the requests of a connection, one after the other; it
/// gets the connection's number, then the request's, both from 0, and may take its time.
pub(crate) fn start<F>(script: impl Fn(usize) -> F + Send + 'static) -> String
where
    F: FnMut(usize, v1::GetTokenRequest) -> Reply + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let script = script(n);
            // The client ends a connection when it is done with it.
            thread::spawn(move || serve(stream, script));
        }
    });
    address
}

/// The right token for what is asked.
pub(crate) fn right(request: v1::GetTokenRequest) -> Reply {
    Reply::Token(token(&request.identity, &format!("token of {}", request.identity)))
}

pub(crate) fn token(identity: &str, access_token: &str) -> v1::Token {
    v1::Token { access_token: access_token.into(), identity: identity.into(), ..Default::default() }
}

fn serve(mut stream: TcpStream, mut script: impl FnMut(usize, v1::GetTokenRequest) -> Reply) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.read_exact(&mut [0; PREFACE_BYTES]).ok()?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).ok()?;
    let mut seen = 0;
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
        stream.read_exact(&mut payload).ok()?;
        if header[3] != DATA {
            continue;
        }
        let id = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        let request = v1::GetTokenRequest::decode(payload.get(MESSAGE_PREFIX..)?).ok()?;
        match script(seen, request) {
            Reply::Token(token) => stream.write_all(&answer(id, token)).ok()?,
            Reply::GoAway => {
                let last = id.saturating_sub(2);
                stream.write_all(&frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())).ok()?;
            }
            Reply::Silence => {}
        }
        seen += 1;
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn answer(stream: u32, token: v1::Token) -> Vec<u8> {
    let message = v1::GetTokenResponse { token: Some(token), state: 1 }.encode_to_vec();
    let body = [&[0], (message.len() as u32).to_be_bytes().as_slice(), &message].concat();
    // A field without indexing (RFC 7541 section 6.2.2): the length of the name, the name, the length of the value, the value.
    let trailers = [&[0x00, 11][..], b"grpc-status", &[1], b"0"].concat();
    [
        // :status 200 is number 8 of the static table.
        frame(HEADERS, END_HEADERS, stream, &[0x88]),
        frame(DATA, 0, stream, &body),
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &trailers),
    ]
    .concat()
}
