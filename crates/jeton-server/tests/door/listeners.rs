//! Addresses that are taken, and sockets that were left.

use jeton_server::door::{DoorError, Listen, Listener};
use tokio::net::UnixStream;

#[tokio::test]
async fn a_socket_that_is_served_is_not_taken_over_and_a_stale_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let listen = Listen::Unix { path: path.clone(), mode: 0o600 };
    let first = Listener::bind(&listen).await.unwrap();
    assert!(matches!(Listener::bind(&listen).await, Err(DoorError::Served(_))));
    drop(first);
    assert!(!path.exists(), "the file goes with its listener");
    // Left by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists() && UnixStream::connect(&path).await.is_err());
    Listener::bind(&listen).await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Listener::bind(&Listen::Tcp(taken.local_addr().unwrap())).await.unwrap_err().to_string();
    assert!(
        error.contains(&taken.local_addr().unwrap().to_string()) && error.contains("another address"),
        "{error}"
    );
}
