//! `hits N [plain|telemetry|tls|mtls] [ASSIGNMENTS]`: N tokens over one connection within one process, for tools that count instructions. A run with
//! more hits less a run with fewer leaves the hits alone: the start is the same. With mtls the caller is the holder of a certificate;
//! ASSIGNMENTS are role assignments of others. With telemetry everything is told that a broker tells: metrics, a hundredth of the traces, the
//! log.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark ends where it expected otherwise")]

use std::sync::Arc;

use benches::{
    AtOnce, Before, CLIENT, DAY, Size, TOKEN_BYTES, Telling, World, open_counting_door, open_door,
    open_tls_door, sides,
};
use jeton_core::SystemClock;
use jeton_engine::EngineSettings;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Requests under way.
const STREAMS: usize = 10;
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;

fn main() {
    let argument = |n| std::env::args().nth(n);
    let hits = argument(1).and_then(|n| n.parse().ok()).expect("the first argument: how many hits");
    let kind = argument(2).unwrap_or_else(|| "plain".into());
    let others = argument(3).map_or(0, |n| n.parse().expect("the third argument: how many assignments"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let size = Size { slots: 1, scopes: 1, token_bytes: TOKEN_BYTES, lifetime: DAY };
    let (source, clock) = (Arc::new(AtOnce::new(size)), Arc::new(SystemClock));
    let world = World::with(size, EngineSettings::default(), source, Before::default(), clock, &runtime);
    runtime.block_on(async {
        for n in 0..others {
            world.assign(format!("spiffe://bench.example/other-{n}"), false).await;
        }
        let answered = match kind.as_str() {
            "plain" => ask(connect(open_door(&world).await).await, &world, hits).await,
            "telemetry" => {
                let telling = Telling::start();
                let calls = &telling.calls;
                let address = open_counting_door(&world, Arc::clone(calls)).await;
                let answered = ask(connect(address).await, &world, hits).await;
                let counted = calls.calls().iter().flat_map(|ended| ended.took.counts.clone()).sum::<u64>();
                assert!(counted >= hits as u64, "{counted} of {hits} were counted");
                answered
            }
            kind @ ("tls" | "mtls") => {
                world.assign(CLIENT.into(), true).await;
                let (tls, client) = sides(kind == "mtls");
                let stream = connect(open_tls_door(&world, tls).await).await;
                let name = "localhost".try_into().expect("a name");
                let secured = TlsConnector::from(client).connect(name, stream).await.expect("TLS");
                ask(secured, &world, hits).await
            }
            other => panic!("{other:?}: plain, telemetry, tls or mtls"),
        };
        println!("{answered} hits");
    });
}

async fn connect(address: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("connected");
    stream.set_nodelay(true).expect("no delay");
    stream
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: S, world: &World, hits: usize) -> usize {
    let mut client = Client::begin(stream, &world.requests[0]).await;
    let mut answered = 0;
    while answered < hits {
        answered += client.turn(STREAMS).await;
    }
    answered
}

/// A client that costs next to nothing: requests are copied, and of answers only the ends are counted.
struct Client<S> {
    stream: S,
    /// Of the first request: its names and values go into the table of the connection (RFC 7541), from where later ones take them.
    first: Vec<u8>,
    later: Vec<u8>,
    data: Vec<u8>,
    next: u32,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn begin(mut stream: S, request: &[u8]) -> Self {
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut hello, SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        frame(&mut hello, WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
        stream.write_all(&hello).await.expect("sent");
        let path = b"/jeton.v1.TokenService/GetToken".as_slice();
        let mut first = vec![0x83, 0x86];
        for (name, value) in [
            ([0x44].as_slice(), path),
            (&[0x41], b"localhost"),
            (&[0x5f], b"application/grpc"),
            (b"\x40\x02te", b"trailers"),
        ] {
            first.extend_from_slice(name);
            first.push(value.len() as u8);
            first.extend_from_slice(value);
        }
        let mut data = vec![0];
        data.extend_from_slice(&(request.len() as u32).to_be_bytes());
        data.extend_from_slice(request);
        let later = vec![0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];
        Self { stream, first, later, data, next: 1, out: vec![], input: vec![] }
    }

    /// Asks for some tokens at once and waits for all; says how many.
    async fn turn(&mut self, streams: usize) -> usize {
        self.out.clear();
        for _ in 0..streams {
            let block = if self.next == 1 { &self.first } else { &self.later };
            frame(&mut self.out, HEADERS, 4, self.next, block);
            frame(&mut self.out, 0, END_STREAM, self.next, &self.data);
            self.next += 2;
        }
        self.stream.write_all(&self.out).await.expect("sent");
        self.stream.flush().await.expect("sent");
        let mut ended = 0;
        while ended < streams {
            self.input.reserve(64 * 1024);
            let count = self.stream.read_buf(&mut self.input).await.expect("received");
            assert!(count > 0, "the server closed the connection");
            let mut at = 0;
            while let Some(&[a, b, c, kind, flags]) = self.input.get(at..at + 5).and_then(|h| h.first_chunk())
            {
                let end = at + FRAME_HEADER + u32::from_be_bytes([0, a, b, c]) as usize;
                if end > self.input.len() {
                    break;
                }
                // An answer without a message is one header block, and ends with its first frame.
                assert!(
                    kind != HEADERS || flags & END_STREAM == 0 || end - at < 32,
                    "an error, and no token"
                );
                ended += usize::from(kind <= HEADERS && flags & END_STREAM != 0);
                at = end;
            }
            self.input.drain(..at);
        }
        ended
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}
