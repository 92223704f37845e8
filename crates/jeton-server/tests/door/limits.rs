//! What a peer may have at once, and how it may come.

use std::sync::Arc;

use jeton_server::door::{ClientCertificates, DoorSettings, Tls};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{PATIENCE, Peer, closes, open, open_that, peer, request, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_for_nothing_is_closed_and_one_that_asked_is_not() {
    let door = open(DoorSettings { first_request_deadline_ms: 300, ..DoorSettings::default() }).await;
    let mut silent = TcpStream::connect(door.address).await.unwrap();
    let mut good = peer(door.address).await;
    good.call(request("0")).await.unwrap();
    // The preface alone is no request either.
    let only_preface = peer(door.address).await;
    assert!(closes(&mut silent).await);
    assert!(timeout(PATIENCE, only_preface.connection).await.is_ok());
    assert_eq!(good.call(request("0")).await.unwrap().status(), 200);
    until("both are counted", || (door.stats)().silent == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_tls_stands_the_same_door_and_a_handshake_that_never_ends_is_closed() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = Tls::new(ClientCertificates::Ignored, 0);
    server.show(vec![made.cert.der().clone()], key).unwrap();
    let settings = DoorSettings { first_request_deadline_ms: 1_500, ..DoorSettings::default() };
    let door = open_that(settings, false, Some(server)).await;
    let mut silent = TcpStream::connect(door.address).await.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(door.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let secured = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let (send, connection) = h2::client::handshake(secured).await.unwrap();
    let mut peer = Peer { send, connection: tokio::spawn(connection) };
    for _ in 0..3 {
        assert_eq!(peer.call(request("0")).await.unwrap().headers()["grpc-status"], "0");
    }
    assert!(closes(&mut silent).await);
    until("it is counted", || (door.stats)().silent == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_a_cap_are_closed_and_a_place_comes_free_again() {
    let settings = DoorSettings { max_connections_per_principal: 2, ..DoorSettings::default() };
    let door = open(settings).await;
    let (mut first, mut second) = (peer(door.address).await, peer(door.address).await);
    first.call(request("0")).await.unwrap();
    second.call(request("0")).await.unwrap();
    let mut third = TcpStream::connect(door.address).await.unwrap();
    assert!(closes(&mut third).await);
    assert_eq!((door.stats)().full, 1);
    first.connection.abort();
    drop(first);
    until("a place comes free", || (door.stats)().open < 2).await;
    peer(door.address).await.call(request("0")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_over_their_limit_are_refused_and_the_connection_goes_on() {
    let door = open(DoorSettings::default()).await;
    let mut peer = peer(door.address).await;
    peer.call(request("0")).await.unwrap();
    let mut large = request("0");
    for n in 0..8 {
        let name: http::HeaderName = format!("x-filler-{n}").parse().unwrap();
        large.headers_mut().insert(name, "x".repeat(4_096).parse().unwrap());
    }
    let refused = peer.call(large).await;
    assert!(refused.is_err() || refused.is_ok_and(|r| r.status() == 431));
    assert_eq!(peer.call(request("0")).await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_sends_what_asks_for_nothing_is_closed() {
    let door = open(DoorSettings { max_idle_bytes_per_second: 65_536, ..DoorSettings::default() }).await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let ping = b"\0\0\x08\x06\0\0\0\0\0pingpong".repeat(1_000);
    let (mut reading, mut writing) = stream.split();
    let flood = async {
        // Ends when the door has closed.
        while writing.write_all(&ping).await.is_ok() {}
    };
    let answers = async {
        let mut buffer = vec![0; 65_536];
        while reading.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    };
    timeout(PATIENCE, async { tokio::join!(flood, answers) }).await.expect("the door closes");
    assert_eq!((door.stats)().misused, 1);
}
