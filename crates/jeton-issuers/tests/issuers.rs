//! Issuers on loopback: right ones, and such that lie, redirect, flood or say nothing.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::sync::{Arc, Mutex};

use jeton_access::{IssuerPorts, IssuerSettings, Reviewed, testing::key_set_source_contract};
use jeton_issuers::ports;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// A server that answers each path with what it is told to.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    answers: Vec<(String, Vec<u8>)>,
    requests: Vec<String>,
}

impl Server {
    /// Its address.
    async fn start(&self, tls: Option<TlsAcceptor>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (server, tls) = (server.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => server.serve(stream).await,
                            Err(_) => {}
                        },
                        None => server.serve(stream).await,
                    }
                });
            }
        });
        address
    }

    fn answer(&self, path: &str, status: &str, headers: &str, body: &str) {
        let head = format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let mut state = self.0.lock().unwrap();
        state.answers.retain(|(known, _)| known != path);
        state.answers.push((path.into(), (head + body).into_bytes()));
    }

    fn publish(&self, path: &str, document: &Value) {
        self.answer(path, "200 OK", "", &document.to_string());
    }

    /// Every request so far, whole.
    fn requests(&self) -> Vec<String> {
        self.0.lock().unwrap().requests.clone()
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut request = vec![];
        let complete = |request: &[u8]| {
            let text = String::from_utf8_lossy(request).to_lowercase();
            let (head, body) = text.split_once("\r\n\r\n")?;
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            (body.len() >= length.map_or(0, |n| n.parse().unwrap())).then_some(())
        };
        while complete(&request).is_none() {
            let mut part = [0; 4096];
            match stream.read(&mut part).await {
                Ok(n) if n > 0 => request.extend_from_slice(&part[..n]),
                _ => return,
            }
        }
        let text = String::from_utf8(request).unwrap();
        let path = text.split(' ').nth(1).unwrap().to_owned();
        let answer = {
            let mut state = self.0.lock().unwrap();
            state.requests.push(text);
            state.answers.iter().find(|(known, _)| *known == path).map(|(_, answer)| answer.clone())
        };
        match answer {
            Some(answer) => drop(stream.write_all(&answer).await),
            // Nothing is said, and the connection stays.
            None => std::future::pending().await,
        }
    }
}

fn settings(changes: Value) -> IssuerSettings {
    let mut all =
        json!({"kind": "oidc", "name": "test", "audience": "jeton", "issuer": "https://issuer.example"});
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn asking(changes: Value) -> IssuerPorts {
    ports(&settings(changes)).unwrap()
}

async fn failure(changes: Value) -> String {
    asking(changes).keys.fetch().await.unwrap_err()
}

fn written(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn keys_at_a_url_where_a_document_says_and_in_a_file_keep_the_contract() {
    let server = Server::default();
    let address = server.start(None).await;
    let publish = async |set: Value| server.publish("/keys", &set);
    let url = asking(json!({"jwks_url": format!("http://{address}/keys")}));
    key_set_source_contract(&*url.keys, publish).await;

    let issuer = format!("http://{address}/realms/a");
    let document = json!({"issuer": issuer, "jwks_uri": format!("http://{address}/keys")});
    server.publish("/realms/a/.well-known/openid-configuration", &document);
    let discovered = asking(json!({ "issuer": issuer }));
    key_set_source_contract(&*discovered.keys, publish).await;

    let folder = tempfile::tempdir().unwrap();
    let path = written(&folder, "keys.json", "");
    let file = asking(json!({"jwks_file": path}));
    key_set_source_contract(&*file.keys, async |set: Value| {
        drop(written(&folder, "keys.json", &set.to_string()))
    })
    .await;
}

#[tokio::test]
async fn a_document_of_another_issuer_is_somebody_elses() {
    let server = Server::default();
    let address = server.start(None).await;
    let issuer = format!("http://{address}");
    for (document, reason) in [
        (json!({"issuer": format!("{issuer}/"), "jwks_uri": format!("{issuer}/keys")}), "is the document of"),
        (json!({"jwks_uri": format!("{issuer}/keys")}), "is the document of null"),
        (json!({ "issuer": issuer }), "has no jwks_uri"),
        (json!({"issuer": issuer, "jwks_uri": "http://keys.example/keys"}), "over TLS alone"),
        (json!({"issuer": issuer, "jwks_uri": "file:///etc/passwd"}), "over TLS alone"),
        (json!([]), "no JSON object"),
    ] {
        server.publish("/.well-known/openid-configuration", &document);
        let said = failure(json!({ "issuer": issuer })).await;
        assert!(said.contains(reason), "{document} {said}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = Server::default();
    let address = server.start(None).await;
    server.publish("/elsewhere", &json!({"keys": []}));
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        server.answer("/keys", status, &format!("location: http://{address}/elsewhere\r\n"), "{}");
        let said = failure(json!({"jwks_url": format!("http://{address}/keys")})).await;
        assert!(said.contains("redirects are not followed"), "{said}");
    }
    assert!(server.requests().iter().all(|request| request.starts_with("GET /keys ")));
}

#[tokio::test]
async fn an_answer_that_is_too_long_or_none_at_all_is_a_failure() {
    let server = Server::default();
    let address = server.start(None).await;
    let url = format!("http://{address}/keys");
    let filling = "x".repeat(256 << 10);
    server.answer("/keys", "200 OK", "", &json!({"keys": [], "filling": filling}).to_string());
    assert!(failure(json!({ "jwks_url": url })).await.contains("gave no complete answer"));
    for (status, body, reason) in [
        ("200 OK", "nonsense", "no JSON object"),
        ("404 Not Found", "{}", "answers with 404"),
        ("500 Internal", "{}", "answers with 500"),
        ("401 Unauthorized", "{}", "token_file"),
    ] {
        server.answer("/keys", status, "", body);
        let said = failure(json!({ "jwks_url": url })).await;
        assert!(said.contains(reason), "{said}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(
        failure(json!({"jwks_url": format!("http://{closed}/keys")})).await.contains("cannot be reached")
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up() {
    let address = Server::default().start(None).await;
    failure(json!({"jwks_url": format!("http://{address}/keys")})).await;
}

#[tokio::test]
async fn our_token_is_shown_to_the_configured_host_alone() {
    let (home, elsewhere) = (Server::default(), Server::default());
    let (at, other) = (home.start(None).await, elsewhere.start(None).await);
    let issuer = format!("http://{at}");
    let folder = tempfile::tempdir().unwrap();
    let token_file = written(&folder, "token", "our-token\n");
    elsewhere.publish("/keys", &json!({"keys": []}));
    home.publish(
        "/.well-known/openid-configuration",
        &json!({"issuer": issuer, "jwks_uri": format!("http://{other}/keys")}),
    );
    let ports = asking(json!({"issuer": issuer, "token_file": token_file}));
    assert_eq!(ports.keys.fetch().await, Ok(json!({"keys": []})));
    let (shown, kept) =
        (home.requests().concat().to_lowercase(), elsewhere.requests().concat().to_lowercase());
    assert!(shown.contains("authorization: bearer our-token\r\n"), "{shown}");
    assert!(kept.contains("get /keys") && !kept.contains("authorization"), "{kept}");
    written(&folder, "token", "two words");
    assert!(ports.keys.fetch().await.unwrap_err().contains("holds no bearer token"));
}

#[tokio::test]
async fn keys_in_a_file_that_is_none_are_a_failure_that_shows_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    for (text, reason) in
        [("SECRET", "is no JSON"), (&*"x".repeat((256 << 10) + 1), "more than 262144 bytes")]
    {
        let said = failure(json!({"jwks_file": written(&folder, "keys.json", text)})).await;
        assert!(said.contains(reason) && !said.contains("SECRET"), "{said}");
    }
    assert!(failure(json!({"jwks_file": "/nowhere/keys.json"})).await.contains("cannot be read"));
}

#[tokio::test]
async fn tls_trusts_the_configured_authority_alone() {
    let server = Server::default();
    let (tls, ca) = certified();
    let address = server.start(Some(tls)).await;
    server.publish("/keys", &json!({"keys": []}));
    let folder = tempfile::tempdir().unwrap();
    let url = format!("https://{address}/keys");
    let right = asking(json!({"jwks_url": url, "ca_file": written(&folder, "ca.pem", &ca)}));
    assert_eq!(right.keys.fetch().await, Ok(json!({"keys": []})));
    for ca_file in [String::new(), written(&folder, "other.pem", &certified().1)] {
        let said = failure(json!({"jwks_url": url, "ca_file": ca_file})).await;
        assert!(said.contains("cannot be reached"), "{said}");
    }
    for ca_file in ["/nowhere/ca.pem".to_owned(), written(&folder, "empty.pem", "")] {
        let said = ports(&settings(json!({"jwks_url": url, "ca_file": ca_file}))).unwrap_err().to_string();
        assert!(said.contains("https://issuer.example") && said.contains("CA file"), "{said}");
    }
}

fn certified() -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], made.signing_key.serialize_der().try_into().unwrap())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

#[tokio::test]
async fn a_token_is_reviewed_as_the_api_server_wants_it() {
    const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
    let server = Server::default();
    let address = server.start(None).await;
    let folder = tempfile::tempdir().unwrap();
    let ports = asking(json!({
        "kind": "kubernetes", "cluster": "east", "name": "", "jwks_file": "keys.json",
        "token_review": {"api_server": format!("http://{address}"), "token_file": written(&folder, "token", "our-token")},
    }));
    let review = ports.review.unwrap();
    let answer = |status: Value| {
        server.answer(PATH, "201 Created", "", &json!({"kind": "TokenReview", "status": status}).to_string())
    };

    answer(json!({
        "authenticated": true, "audiences": ["jeton"],
        "user": {"username": "system:serviceaccount:pay:api", "uid": "u1", "extra": {"authentication.kubernetes.io/pod-uid": ["p1"]}},
    }));
    let accepted = Reviewed {
        authenticated: true,
        error: String::new(),
        username: "system:serviceaccount:pay:api".into(),
        uid: "u1".into(),
        audiences: vec!["jeton".into()],
        pod_uid: Some("p1".into()),
    };
    assert_eq!(review.review("callers-token", "jeton").await, Ok(accepted));
    let request = server.requests().concat();
    assert!(
        request.starts_with(&format!("POST {PATH} ")) && request.contains("Bearer our-token"),
        "{request}"
    );
    let body: Value = serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["spec"], json!({"token": "callers-token", "audiences": ["jeton"]}));

    answer(json!({"error": "token was deleted"}));
    let refused = Reviewed { error: "token was deleted".into(), ..Reviewed::default() };
    assert_eq!(review.review("callers-token", "jeton").await, Ok(refused));

    for (status, body, reason) in [
        ("200 OK", "{}", "no TokenReview"),
        ("403 Forbidden", "{}", "system:auth-delegator"),
        ("401 Unauthorized", "{}", "does not know the token in"),
        ("503 Unavailable", "{}", "answers with 503"),
    ] {
        server.answer(PATH, status, "", body);
        let said = review.review("callers-token", "jeton").await.unwrap_err();
        assert!(
            said.contains(reason) && !said.contains("our-token") && !said.contains("callers-token"),
            "{said}"
        );
    }
}
