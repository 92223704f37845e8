//! The Rust client: fifty callers of one, beside a broker that is killed, drained and given other certificates.
#![allow(clippy::print_stdout, reason = "figures, for whoever asks with --nocapture")]

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use jeton_client::Client;
use jeton_proto::v1;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{VAULT, World, request, token, until};

const BILLING: &str = "identities/billing";
const PATIENCE: Duration = Duration::from_secs(120);

/// Callers that ask again and again, and end with the first error.
struct Callers {
    tasks: JoinSet<Result<(), jeton_client::Error>>,
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    /// What each was handed last.
    seen: Arc<[Mutex<String>]>,
}

impl Callers {
    async fn start(client: Client) -> Self {
        let first = client.token(BILLING, VAULT).await.unwrap();
        let seen: Arc<[_]> = (0..50).map(|_| Mutex::new(first.secret().to_owned())).collect();
        let (stop, calls, mut tasks) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), JoinSet::new());
        for n in 0..seen.len() {
            let (client, stop, calls, seen) =
                (client.clone(), Arc::clone(&stop), Arc::clone(&calls), Arc::clone(&seen));
            tasks.spawn(async move {
                while !stop.load(SeqCst) {
                    let token = client.token(BILLING, VAULT).await?;
                    token.secret().clone_into(&mut seen[n].lock().unwrap());
                    calls.fetch_add(1, Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(())
            });
        }
        Self { tasks, stop, calls, seen }
    }

    /// All of them are still asking, each several times from now on.
    fn go_on(&self) {
        let before = self.calls.load(Relaxed);
        until("they go on", || self.calls.load(Relaxed) > before + 500);
        assert_eq!(self.tasks.len(), 50);
    }

    /// The broker gets another token, and then every caller has it: how long that took.
    async fn see_a_refresh(&self, world: &World) -> Duration {
        let mut stub = world.broker.tokens().await;
        let old = token(&mut stub, BILLING, VAULT).await.unwrap().access_token;
        let wanted = request(BILLING, VAULT);
        let report = v1::ReportRejectedTokenRequest {
            identity: wanted.identity,
            scopes: wanted.scopes,
            token_sha256: aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, old.as_bytes())
                .as_ref()
                .to_vec(),
            ..Default::default()
        };
        let outcome = stub.report_rejected_token(report).await.unwrap().into_inner().outcome();
        assert_eq!(outcome, v1::ReportOutcome::Refreshing);
        let (start, mut new) = (Instant::now(), old.clone());
        while new == old {
            assert!(start.elapsed() < PATIENCE, "it is not refreshed");
            new = token(&mut stub, BILLING, VAULT).await.unwrap().access_token;
        }
        let there = Instant::now();
        // Without the watch the token would be asked for again at half of its life, many minutes from here.
        until("every caller has it", || self.seen.iter().all(|seen| *seen.lock().unwrap() == new));
        there.elapsed()
    }

    async fn end(mut self) {
        self.stop.store(true, SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_the_broker_is_killed_and_drained_and_refreshes_are_seen_by_all() {
    let mut world = World::with(&[], json!({"token_lifetime_seconds": 3600})).await;
    let endpoint = format!("unix:{}", world.broker.endpoints["grpc_socket"].as_str().unwrap());
    let callers = Callers::start(Client::builder().endpoint(endpoint).build().unwrap()).await;
    let before = callers.see_a_refresh(&world).await;
    world.broker.process.kill();
    callers.go_on();
    world.restart(&[]);
    let killed = callers.see_a_refresh(&world).await;
    assert!(world.broker.process.stop().success());
    callers.go_on();
    world.restart(&[]);
    let drained = callers.see_a_refresh(&world).await;
    callers.end().await;
    println!("seen by all: {before:?} before, {killed:?} after a kill, {drained:?} after a drain");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_the_certificates_of_both_sides_are_replaced() {
    // Connections end every second, so that new certificates are met soon.
    let arguments = ["--mtls", "--set", "door.max_age_ms=1000", "--set", "door.age_grace_ms=500"];
    let mut world = World::with(&arguments, json!({"token_lifetime_seconds": 3600})).await;
    let grpc_tls = world.broker.endpoints["grpc_tls"].clone();
    let (address, shown) = (grpc_tls["address"].as_str().unwrap(), &grpc_tls["clients"][0]);
    let client = Client::builder()
        .endpoint(format!("https://{address}"))
        .ca_file(path(&grpc_tls["ca_file"]))
        .client_certificate(path(&shown["cert_file"]), path(&shown["key_file"]))
        .build()
        .unwrap();
    let callers = Callers::start(client).await;
    let data_dir = world.broker.data_dir.clone();
    let new = replace_server_certificate(&data_dir);
    let start = Instant::now();
    while served(address, path(&grpc_tls["ca_file"])).await != new {
        assert!(start.elapsed() < PATIENCE, "it is not served");
        callers.go_on();
    }
    let replaced = callers.see_a_refresh(&world).await;
    // A start makes the server's and the callers' certificates anew: nobody has the old ones any more.
    world.broker.process.kill();
    callers.go_on();
    world.restart(&arguments);
    assert_ne!(served(address, path(&grpc_tls["ca_file"])).await, new);
    let restarted = callers.see_a_refresh(&world).await;
    callers.end().await;
    println!("seen by all: {replaced:?} after a replacement, {restarted:?} after a start with others");
}

fn path(value: &Value) -> &Path {
    Path::new(value.as_str().unwrap())
}

/// Another certificate and key of the same authority, in DER.
fn replace_server_certificate(data_dir: &Path) -> Vec<u8> {
    let authority = KeyPair::from_pem(&fs::read_to_string(data_dir.join("grpc-ca.key")).unwrap()).unwrap();
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name.push(DnType::CommonName, "Jeton dev");
    let issuer = Issuer::new(issuer, authority);
    let mut params = CertificateParams::new(["localhost", "127.0.0.1"].map(str::to_owned)).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    fs::write(data_dir.join("grpc-server.key"), key.serialize_pem()).unwrap();
    fs::write(data_dir.join("grpc-server.pem"), certificate.pem()).unwrap();
    certificate.der().to_vec()
}

/// The certificate that a new connection is shown.
async fn served(address: &str, ca_file: &Path) -> Vec<u8> {
    let connector = crate::tls::connector(ca_file, None);
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}
