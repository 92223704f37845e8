//! What a peer may have at once, and how it may come.

use std::{net::SocketAddr, sync::Arc};

use jeton_server::door::{ClientCertificates, DoorSettings, Tls};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::{ClientConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    alone::alone,
    support::{Open, PATIENCE, Peer, closes, open, open_that, peer, request, until},
};

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

/// A door with a certificate, and what its clients trust.
async fn secured(settings: DoorSettings) -> (Open, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = Tls::new(ClientCertificates::Ignored, 0);
    server.show(vec![made.cert.der().clone()], key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    (open_that(settings, false, Some(server)).await, client)
}

async fn secured_peer(address: SocketAddr, client: ClientConfig) -> Peer {
    let (stream, name) = (TcpStream::connect(address).await.unwrap(), "localhost".try_into().unwrap());
    let secured = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let (send, connection) = h2::client::handshake(secured).await.unwrap();
    Peer { send, connection: tokio::spawn(connection) }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_tls_stands_the_same_door_and_a_handshake_that_never_ends_is_closed() {
    let settings = DoorSettings { first_request_deadline_ms: 1_500, ..DoorSettings::default() };
    let (door, client) = secured(settings).await;
    let mut silent = TcpStream::connect(door.address).await.unwrap();
    let mut peer = secured_peer(door.address, client).await;
    for _ in 0..3 {
        assert_eq!(peer.call(request("0")).await.unwrap().headers()["grpc-status"], "0");
    }
    assert!(closes(&mut silent).await);
    until("it is counted", || (door.stats)().silent == 1).await;
}

#[test]
fn no_more_handshakes_are_under_way_than_there_may_be_and_a_place_comes_free_again() {
    const HANDSHAKES: usize = 256;
    alone(async {
        // Longer than the test.
        let settings = DoorSettings { first_request_deadline_ms: 170_000, ..DoorSettings::default() };
        let (door, client) = secured(settings).await;
        let mut silent = vec![];
        for _ in 0..HANDSHAKES {
            silent.push(TcpStream::connect(door.address).await.unwrap());
        }
        until("all of them are let in", || (door.stats)().open == HANDSHAKES as u64).await;
        assert!(closes(&mut TcpStream::connect(door.address).await.unwrap()).await);
        assert_eq!((door.stats)().full, 1);
        silent.pop();
        until("a place comes free", || (door.stats)().open < HANDSHAKES as u64).await;
        // Handshakes that are done take no place: as many callers as want to, one after the other.
        let mut served = vec![];
        for _ in 0..3 {
            let mut peer = secured_peer(door.address, client.clone()).await;
            assert_eq!(peer.call(request("0")).await.unwrap().headers()["grpc-status"], "0");
            served.push(peer);
        }
        assert_eq!((door.stats)().full, 1);
    });
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

/// Serves so many connections, closes one more, and takes another when one has gone.
async fn is_full_with(door: &Open, most: usize) {
    let mut peers = vec![];
    for _ in 0..most {
        let mut peer = peer(door.address).await;
        assert_eq!(peer.call(request("0")).await.unwrap().status(), 200);
        peers.push(peer);
    }
    assert_eq!((door.stats)().full, 0);
    assert!(closes(&mut TcpStream::connect(door.address).await.unwrap()).await);
    assert_eq!(((door.stats)().full, (door.stats)().accepted), (1, most as u64));
    peers.pop().unwrap().connection.abort();
    until("a place comes free", || (door.stats)().open < most as u64).await;
    assert_eq!(peer(door.address).await.call(request("0")).await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_cap_of_the_door_are_closed_whoever_comes() {
    is_full_with(&open(DoorSettings { max_connections: 3, ..DoorSettings::default() }).await, 3).await;
}

#[test]
fn without_a_cap_that_is_set_a_door_takes_four_fifths_of_the_descriptors() {
    alone(async {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit =
            |current| setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum }).unwrap();
        limit(100);
        let door = open(DoorSettings { max_connections: 0, ..DoorSettings::default() }).await;
        // It was read; and the peers are in this process too.
        limit(1_024);
        is_full_with(&door, 80).await;
    });
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
