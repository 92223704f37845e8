//! GetToken over a loopback connection, in one process.

use std::{net::SocketAddr, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use jeton_server::door::{
    Calls, Door, DoorSettings, Drain, Listen, Listener, LoopbackDev, Protocol, Tls, serve,
};
use tokio::net::TcpStream;
use tonic::service::Routes;

use crate::World;

const GET_TOKEN: &str = "http://localhost/jeton.v1.TokenService/GetToken";

/// Opens a door on a free port. What the shortcut does not answer, nobody does.
pub async fn open_door(world: &World) -> SocketAddr {
    open(world, None, None).await
}

/// The same with TLS. Whoever shows a certificate is its holder; the others are as without TLS.
pub async fn open_tls_door(world: &World, tls: Arc<Tls>) -> SocketAddr {
    open(world, Some(tls), None).await
}

/// The same as [`open_door`], where everything is counted that is in a broker.
pub async fn open_counting_door(world: &World, calls: Arc<Calls>) -> SocketAddr {
    open(world, None, Some(calls)).await
}

async fn open(world: &World, tls: Option<Arc<Tls>>, calls: Option<Arc<Calls>>) -> SocketAddr {
    let listen = Listen::Tcp(([127, 0, 0, 1], 0).into());
    let listener = Listener::bind(&listen).await.expect("a free port");
    let address = listener.tcp_address().expect("a TCP listener");
    let door = Door {
        protocol: Protocol::Http2,
        name: "bench",
        listener,
        settings: DoorSettings::default(),
        tls,
        authenticate: Some(Arc::new(LoopbackDev)),
        bearer: None,
        clock: Arc::new(jeton_core::SystemClock),
        routes: Routes::default(),
        shortcut: Some(Arc::clone(&world.shortcut) as _),
        calls,
        streaming: |_| false,
        finishes: false,
        complete: |response| response,
    };
    let _ = serve(door, Drain::default());
    address
}

/// A client's connection.
#[derive(Debug, Clone)]
pub struct Peer(SendRequest<Bytes>);

impl Peer {
    /// Connects; the connection lives on the current runtime.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let mut builder = h2::client::Builder::new();
        let windows = builder.initial_window_size(1 << 24).initial_connection_window_size(1 << 24);
        let (send, connection) = windows.handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self(send)
    }

    /// One GetToken; the answer's length.
    pub async fn ask(&self, request: &[u8]) -> usize {
        let mut send = self.0.clone().ready().await.expect("the connection is open");
        let head =
            Request::post(GET_TOKEN).header("content-type", "application/grpc").header("te", "trailers");
        let head = head.body(()).expect("a request");
        let (answer, mut body) = send.send_request(head, false).expect("sent");
        let mut message = BytesMut::with_capacity(5 + request.len());
        message.put_u8(0);
        message.put_u32(request.len() as u32);
        message.put_slice(request);
        body.send_data(message.freeze(), true).expect("sent");
        let mut answer = answer.await.expect("an answer").into_body();
        let mut length = 0;
        while let Some(data) = answer.data().await {
            let data = data.expect("data");
            answer.flow_control().release_capacity(data.len()).expect("it was taken");
            length += data.len();
        }
        let trailers = answer.trailers().await.expect("an end").expect("trailers");
        assert_eq!(trailers.get("grpc-status").map(|status| status.as_bytes()), Some(&b"0"[..]));
        length
    }
}
