//! An authority whose answers a test writes.

use std::sync::{Arc, PoisonError};

use jeton_core::{
    Authority, Clock, Credential, CredentialKind, CredentialState, Registrar, SharedDirectory, Uid,
};
use jeton_http::Bounds;
use jeton_keys::{Keys, KeysSettings};
use jeton_lifecycle::{
    IdentityStore, SecretId, SecretKind, Write,
    testing::{MemoryIdentityStore, authority},
};
use jeton_testkit::ManualClock;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{AuthorityClient, Http, Ports, bounds, trust};

/// What the registrar proves itself with.
pub(crate) const SECRET: &str = "s3cr3t/+x";

/// A refusal with these words.
pub(crate) fn answer(status: u16, told: &str) -> (u16, String) {
    (status, json!({"error": "invalid_request", "error_description": told}).to_string())
}

/// An authority with Graph that answers so, until the test's runtime ends, and a client of it.
pub(crate) async fn scripted(
    script: impl Fn(&str) -> (u16, String) + Send + Sync + 'static,
) -> (AuthorityClient, Authority) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            serve(listener.accept().await.unwrap().0, &script).await;
        }
    });
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let now = clock.now().wall;
    let (uid, secret) = (Uid::new(now, [1; 10]), Uid::new(now, [2; 10]));
    let store = Arc::new(MemoryIdentityStore::default());
    let id = SecretId { owner: uid, subject: secret, kind: SecretKind::ClientSecret };
    store.commit(vec![Write::Secret(id, SECRET.as_bytes().to_vec().into())]).await.unwrap();
    let (kind, state) = (CredentialKind::Secret { expires_at: None }, CredentialState::Current);
    let credential = Box::new(Credential { uid: secret, kind, state, remote_id: None, created_at: now });
    let registrar = Registrar::Certificate { client_id: "registrar".into(), credential };
    let mut authority = Authority { registrar, ..authority("tenant", uid, true) };
    Arc::make_mut(&mut authority.profile).token_endpoint = format!("http://{address}/token");
    let client = AuthorityClient::new(Ports {
        directory: SharedDirectory::default(),
        assertions: Arc::new(
            Keys::start(KeysSettings::default(), store.clone(), Arc::clone(&clock)).unwrap(),
        ),
        store,
        clock,
    });
    let bounds = Bounds { plain_loopback: true, ..bounds(&authority.profile.limits) };
    let http = Http::new(trust(None).unwrap(), bounds);
    let mut clients = client.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
    clients.insert(uid, (authority.version, http));
    drop(clients);
    (client, authority)
}

/// One request, one answer.
async fn serve(mut stream: TcpStream, script: impl Fn(&str) -> (u16, String)) {
    let mut request = String::new();
    while !is_whole(&request) {
        let mut part = [0; 4_096];
        let read = stream.read(&mut part).await.unwrap();
        assert!(read > 0, "the request ended early: {request}");
        request.push_str(std::str::from_utf8(&part[..read]).unwrap());
    }
    let (status, body) = script(&request);
    let head = format!(
        "HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}
