//! The endpoints that SDKs know, byte by byte, and the commands that point programs at them.

use std::{
    fs,
    process::{Command, Output},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::support::{Broker, JETON, World, claims};

const RESOURCE: &str = "resource=https://vault.example";
const METADATA: &str = "Metadata: true\r\n";

/// An answer over HTTP/1.1.
struct Answer {
    status: u16,
    head: String,
    json: Value,
}

async fn asked(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: String) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), json: serde_json::from_str(body).unwrap_or_default() }
}

/// Asks a URL of the form `http://HOST/PATH`.
async fn get(url: &str, headers: &str) -> Answer {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let stream = TcpStream::connect(host).await.unwrap();
    asked(stream, format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")).await
}

impl Broker {
    fn env(&self, flavour: &str) -> Value {
        self.json(&["env", "--workload", "demo", "--flavour", flavour])
    }

    async fn app_service(&self, query: &str) -> Answer {
        let env = self.env("app-service");
        let text = |name: &str| env[name].as_str().unwrap().to_owned();
        let header = format!("X-IDENTITY-HEADER: {}\r\n", text("IDENTITY_HEADER"));
        get(&format!("{}?{query}", text("IDENTITY_ENDPOINT")), &header).await
    }

    async fn imds(&self, query: &str) -> Answer {
        let base = self.env("imds")["AZURE_POD_IDENTITY_AUTHORITY_HOST"].as_str().unwrap().to_owned();
        get(&format!("{base}/metadata/identity/oauth2/token?{query}"), METADATA).await
    }
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn env_says_one_thing_in_every_form_and_run_starts_a_program_with_it() {
    let world = World::start().await;
    let broker = &world.broker;
    let env = broker.env("app-service");
    let secret = env["IDENTITY_HEADER"].as_str().unwrap();
    assert!(secret.starts_with("jws_") && env["NO_PROXY"] == "127.0.0.1,localhost", "{env}");
    assert_eq!(broker.env("azure-ml")["MSI_SECRET"], secret, "a workload has one secret for all of them");
    let shell = text(&broker.jeton(&["env", "--workload", "workloads/demo"]));
    let told =
        Command::new("sh").args(["-c", &format!("{shell}\necho $IDENTITY_HEADER $SSL_CERT_FILE")]).output();
    let told = text(&told.unwrap());
    let (shown, file) = told.trim().split_once(' ').unwrap();
    assert_eq!((shown, file), (secret, env["SSL_CERT_FILE"].as_str().unwrap()));
    assert!(fs::read_to_string(file).unwrap().contains("BEGIN CERTIFICATE"));
    for form in ["--systemd", "--kubernetes"] {
        let shown = text(&broker.jeton(&["env", "--workload", "demo", form]));
        assert!(shown.contains(&format!("{secret}\"")), "{form}: {shown}");
    }
    let run = |program: &[&str]| {
        let own = ["run", "--workload", "demo", "--data-dir", broker.data_dir.to_str().unwrap(), "--"];
        Command::new(JETON).args(own).args(program).env("MSI_ENDPOINT", "http://other").output().unwrap()
    };
    let ran = run(&["sh", "-c", "echo $IDENTITY_HEADER,$MSI_ENDPOINT; exit 7"]);
    assert_eq!(ran.status.code(), Some(7), "{ran:?}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout), format!("{secret},\n"), "no other endpoint wins");
    let missing = run(&["/nonexistent/program"]);
    assert!(missing.status.code() == Some(127), "{missing:?}");
    assert_eq!(run(&["/"]).status.code(), Some(126), "as a shell says it");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nonexistent/program"), "{missing:?}");
    assert_eq!(broker.json(&["workload", "get", "demo"])["secrets"].as_array().unwrap().len(), 1);
    broker.json(&["workload", "create", "other"]);
    let at_once: Vec<_> = std::thread::scope(|scope| {
        let each = || scope.spawn(|| broker.json(&["env", "--workload", "other"])["IDENTITY_HEADER"].clone());
        let asking: Vec<_> = (0..8).map(|_| each()).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(at_once.iter().all(|one| *one == at_once[0]), "eight that begin together share one secret");
    broker.json(&["workload", "revoke-secret", "demo", "--all"]);
    assert_ne!(broker.env("app-service")["IDENTITY_HEADER"], secret, "a new one takes its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_replaced_once_whoever_reports_it() {
    let world = World::start().await;
    let broker = &world.broker;
    let answer = broker.app_service(RESOURCE).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    let first = answer.json["access_token"].as_str().unwrap().to_owned();
    let hash = digest(&SHA256, first.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let client = broker.client_id("identities/demo-system");
    let before = world.sandbox.requests(&client, "https://vault.example/.default").await;
    let refused = format!("{RESOURCE}&token_sha256_to_refresh={hash}");
    let answers = futures_util::future::join_all((0..8).map(|_| broker.app_service(&refused))).await;
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert_ne!(answer.json["access_token"], first.as_str());
    }
    assert_eq!(world.sandbox.requests(&client, "https://vault.example/.default").await, before + 1);
    let capable = broker.app_service(&format!("{RESOURCE}&xms_cc=CP1%2CCP2")).await;
    let told = claims(capable.json["access_token"].as_str().unwrap());
    assert_eq!(told["azp"], client.as_str());
    assert_ne!(capable.json["access_token"], answers[0].json["access_token"], "another claims request");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_stops_the_next_request_at_every_endpoint() {
    let world = World::start().await;
    let broker = &world.broker;
    let env = broker.env("app-service");
    let url = format!("{}?{RESOURCE}", env["IDENTITY_ENDPOINT"].as_str().unwrap());
    let header = format!("X-IDENTITY-HEADER: {}\r\n", env["IDENTITY_HEADER"].as_str().unwrap());
    assert_eq!(get(&url, &header).await.status, 200);
    broker.json(&["workload", "revoke-secret", "demo", "--all"]);
    assert_eq!(get(&url, &header).await.status, 401);
    let guid = broker.client_id("identities/billing").to_uppercase();
    let billing = format!("{RESOURCE}&client_id={guid}");
    assert_eq!(broker.imds(&billing).await.status, 200, "a GUID is the same in capitals");
    for assignment in broker.json(&["access", "list"]).as_array().unwrap() {
        let name = assignment["name"].as_str().unwrap();
        assert!(broker.jeton(&["access", "remove", name]).status.success());
    }
    let refused = broker.imds(&billing).await;
    assert_eq!((refused.status, &refused.json["error"]), (400, &json!("invalid_request")));
    let words = refused.json["error_description"].as_str().unwrap();
    assert!(words.starts_with("Identity not found"), "{words}");
    let id = words.rsplit(' ').next().unwrap().trim_matches('`');
    let explained = text(&broker.jeton(&["access", "explain", "--correlation", id]));
    assert!(
        explained.contains("no role assignment") && explained.contains("identities/billing"),
        "{explained}"
    );
    let gce = broker.env("gce")["GCE_METADATA_HOST"].as_str().unwrap().to_owned();
    let account = format!("http://{gce}/computeMetadata/v1/instance/service-accounts/Not.A!Name/token");
    let nobody = get(&account, "Metadata-Flavor: Google\r\n").await;
    let shown = nobody.json["error_description"].as_str().unwrap();
    let id = shown.rsplit(' ').next().unwrap().trim_matches('`');
    let explained = text(&broker.jeton(&["access", "explain", "--correlation", id]));
    assert!(nobody.status == 400 && explained.contains("Not.A!Name does not exist"), "{explained}");
    let unknown = broker.imds(&format!("{RESOURCE}&client_id=nobody")).await;
    let shown = unknown.json["error_description"].as_str().unwrap();
    let id = shown.rsplit(' ').next().unwrap().trim_matches('`');
    let explained = text(&broker.jeton(&["access", "explain", "--correlation", id]));
    assert!(explained.contains("client_id nobody does not exist"), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_unix_socket_the_peers_credentials_say_who_asks() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("imds.sock");
    let listen = format!("managed_identity.imds.listen=unix:{}", socket.display());
    let elsewhere = "managed_identity.app_service.listen=127.0.0.2:7421";
    let arguments = ["--set", &listen, "--set", "managed_identity.imds.principal=", "--set", elsewhere];
    let world = World::with(&arguments, json!({})).await;
    assert_eq!(world.broker.endpoints["managed_identity"]["imds"]["socket"], socket.to_str().unwrap());
    let request =
        format!("GET /metadata/identity/oauth2/token?{RESOURCE} HTTP/1.1\r\nHost: any\r\n{METADATA}\r\n");
    let answer = asked(UnixStream::connect(&socket).await.unwrap(), request).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    let own = world.broker.client_id("identities/demo-system");
    assert_eq!(answer.json["client_id"], own.as_str());
    let direct = world.broker.env("app-service");
    assert_eq!(direct["NO_PROXY"], "127.0.0.1,localhost,127.0.0.2", "no proxy gets the secret");
    let shell = Command::new(JETON)
        .args(["env", "--workload", "demo", "--data-dir", world.broker.data_dir.to_str().unwrap()])
        .env("NO_PROXY", ".corp.example")
        .output()
        .unwrap();
    for name in ["NO_PROXY", "no_proxy"] {
        let line = format!("export {name}='.corp.example,127.0.0.1,localhost,127.0.0.2'\n");
        assert!(text(&shell).contains(&line), "what was there stays, in either spelling");
    }
    let env = world.broker.jeton(&["env", "--workload", "demo", "--flavour", "imds"]);
    let error = String::from_utf8_lossy(&env.stderr).into_owned();
    assert!(env.status.code() == Some(2) && error.contains("unix socket"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_hangs_costs_a_caller_a_503_in_time_and_one_with_a_token_nothing() {
    let world = World::start().await;
    let broker = &world.broker;
    world.sandbox.settings(json!({"client_id": null, "hang_seconds": 60})).await;
    let gce = broker.env("gce")["GCE_METADATA_HOST"].as_str().unwrap().to_owned();
    let path = "computeMetadata/v1/instance/service-accounts/default/token";
    let cold = format!("http://{gce}/{path}?scopes=https://orders.example/.default");
    let flavor = "Metadata-Flavor: Google\r\n";
    let begun = Instant::now();
    let answer = get(&cold, flavor).await;
    assert_eq!(answer.status, 503, "{}", answer.head);
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    assert!(begun.elapsed() < Duration::from_secs(9), "its clients have gone after three seconds");
    let warm = get(&format!("http://{gce}/{path}"), flavor).await;
    assert_eq!(warm.status, 200, "{}", warm.head);
    assert!(
        warm.json["expires_in"].is_number() && warm.head.contains("metadata-flavor: google"),
        "{}",
        warm.head
    );
    let imds = broker.imds(RESOURCE).await;
    assert!(imds.json["expires_in"].is_string(), "{}", imds.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_token_of_these_endpoints_reaches_the_log() {
    let world = World::with(&["--set", "log.filter=trace"], json!({})).await;
    let broker = &world.broker;
    let secret = broker.env("app-service")["IDENTITY_HEADER"].as_str().unwrap().to_owned();
    let mut canaries = vec![secret];
    let token = broker.app_service(RESOURCE).await.json["access_token"].as_str().unwrap().to_owned();
    canaries.push(token.rsplit('.').next().unwrap().to_owned());
    let url = broker.env("app-service")["IDENTITY_ENDPOINT"].as_str().unwrap().to_owned();
    let wrong = "jws_wrong-canary-5b2d4860";
    let refused = get(&format!("{url}?{RESOURCE}"), &format!("X-IDENTITY-HEADER: {wrong}\r\n")).await;
    assert!(refused.status == 401 && !refused.json.to_string().contains(wrong), "{}", refused.json);
    canaries.push(wrong.to_owned());
    let arc = broker.env("arc")["IDENTITY_ENDPOINT"].as_str().unwrap().to_owned();
    let key = "canary-of-a-key-3f9a1c7e";
    let refused =
        get(&format!("{arc}?{RESOURCE}"), &format!("{METADATA}Authorization: Basic {key}\r\n")).await;
    assert_eq!(refused.status, 401);
    canaries.push(key.to_owned());
    let log = broker.process.log();
    assert!(log.contains("TRACE") && log.contains("a request for a token is refused"), "the log says much");
    for canary in canaries {
        assert!(!log.contains(&canary), "a secret is in the log");
    }
}
