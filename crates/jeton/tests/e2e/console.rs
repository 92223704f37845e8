//! The operator's page of a real broker, as its scripts ask for it: what it shows, who may press what, and what never gets there.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    administration::Other,
    support::{Broker, Process, VAULT, World, token},
};

/// Of anything that a page waits for.
const PATIENCE: Duration = Duration::from_secs(60);
const BILLING: &str = "/api/identities/billing";

/// A browser with an open page.
struct Page {
    address: SocketAddr,
    cookie: String,
    /// Everything that it was answered.
    answers: std::sync::Mutex<String>,
    _process: Process,
}

impl Page {
    async fn of(broker: &Broker) -> Self {
        let log = broker.data_dir.with_extension("console");
        let data_dir = broker.data_dir.to_str().unwrap();
        Self::opened(Process::start(&["console", "--data-dir", data_dir, "-o", "json"], &log)).await
    }

    async fn opened(mut process: Process) -> Self {
        process.says("}");
        let link = serde_json::from_str::<Value>(&process.log()).unwrap()["url"].as_str().unwrap().to_owned();
        let (address, path) = link.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut page = Self {
            address: address.parse().unwrap(),
            cookie: String::new(),
            answers: <_>::default(),
            _process: process,
        };
        let (status, answer) = page.send("GET", &format!("/{path}"), "").await;
        assert_eq!(status, 303, "{answer}");
        let cookie = answer.split("set-cookie: ").nth(1).unwrap();
        page.cookie = cookie.split(';').next().unwrap().to_owned();
        page.answers.lock().unwrap().clear();
        page
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncookie: {}\r\nx-jeton-console: 1\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            self.cookie,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        self.answers.lock().unwrap().push_str(&answer);
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    async fn json(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (status, answer) = self.send(method, path, &body.to_string()).await;
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}")))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, told) = self.json("GET", path, json!({})).await;
        assert_eq!(status, 200, "{path}: {told}");
        told
    }

    async fn press(&self, path: &str, button: &str) -> (u16, Value) {
        self.json("POST", &format!("{path}/{button}"), json!({})).await
    }

    /// Asks until it is so.
    async fn until(&self, path: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let told = self.get(path).await;
            if holds(&told) {
                return told;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {told}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The beginning of the stream of events, until something is in it.
    async fn events_until(&self, words: &str) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request =
            format!("GET /api/events HTTP/1.1\r\nhost: {}\r\ncookie: {}\r\n\r\n", self.address, self.cookie);
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut all, mut part) = (String::new(), [0; 4096]);
        while !all.contains(words) {
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut part)).await.unwrap().unwrap();
            assert!(read > 0, "it ended: {all}");
            all += &String::from_utf8_lossy(&part[..read]);
        }
        self.answers.lock().unwrap().push_str(&all);
    }
}

fn kinds(told: &Value) -> Vec<String> {
    let all = told["timeline"].as_array().unwrap();
    all.iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
}

fn names(told: &Value) -> Vec<&str> {
    told["identities"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_fails_is_first_with_its_reason_and_its_life_is_told() {
    let world = World::start().await;
    let served = token(&mut world.broker.tokens().await, "identities/billing", VAULT).await.unwrap();
    let page = Page::of(&world.broker).await;
    let me = page.get("/api/me").await;
    assert_eq!((&me["may"]["rotate"], &me["everything"]), (&json!(true), &json!(true)), "{me}");
    let healthy = page.get("/api/identities?sort=worst").await;
    assert!(
        healthy["identities"].as_array().unwrap().iter().all(|row| row["last_error"].is_null()),
        "{healthy}"
    );

    world.sandbox.settings(json!({"error": {"rate": 1.0, "status": 503}})).await;
    let (status, told) = page.press(BILLING, "refresh").await;
    assert_eq!((status, &told["name"]), (200, &json!("identities/billing")), "{told}");
    let fails = |told: &Value| told["identities"][0]["last_error"].is_string();
    let told = page.until("/api/identities?sort=worst&page_size=1", "the worst is first", fails).await;
    let first = &told["identities"][0];
    assert_eq!(first["name"], "identities/billing");
    assert!(first["last_error"].as_str().unwrap().contains("503"), "{first}");
    assert!(first["starves_in_seconds"].as_f64().unwrap() > 0.0, "{first}");
    assert_eq!(token(&mut world.broker.tokens().await, "identities/billing", VAULT).await.unwrap(), served);

    world.sandbox.settings(json!({"error": {"rate": 0.0}})).await;
    // What the authority asked for with Retry-After holds for administrators too.
    let began = Instant::now();
    while page.press(BILLING, "refresh").await.1["left"] != 0 {
        assert!(began.elapsed() < PATIENCE, "a Retry-After of two seconds does not end");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let well = |told: &Value| told["identities"][0]["last_error"].is_null();
    page.until("/api/identities?q=BILLING", "it is well again", well).await;
    assert_eq!(page.press(BILLING, "rotate").await.0, 200);
    let rotated = |told: &Value| kinds(told).iter().any(|kind| kind == "rotated");
    let told = page.until(BILLING, "it is rotated", rotated).await;
    let life = kinds(&told);
    for kind in [
        "created",
        "registered",
        "verified",
        "switched",
        "refreshed",
        "refresh_failed",
        "refresh_asked",
        "rotation_asked",
    ] {
        assert!(life.iter().any(|it| it == kind), "{kind} in {life:?}");
    }
    assert_eq!(told["credentials"].as_array().unwrap().len(), 2, "the old one overlaps: {told}");
    assert!(!told["role_assignments"].as_array().unwrap().is_empty());
    page.events_until("\"kind\":\"rotated\"").await;
    for path in ["/api/overview", "/api/authorities", "/api/history"] {
        page.get(path).await;
    }
    let question = json!({"principal": "loopback://dev", "identity": "billing", "target": VAULT});
    let (status, why) = page.json("POST", "/api/explain", question).await;
    assert_eq!((status, &why["allowed"]), (200, &json!(true)), "{why}");

    let audited =
        world.broker.json(&["audit", "list", "--kind", "admin.change", "--identity", "identities/billing"]);
    for method in ["RefreshTokens", "RotateCredential"] {
        let by_me = |record: &&Value| {
            record["method"].as_str().unwrap_or_default().ends_with(method)
                && record["principal"] == me["principal"]
        };
        assert!(audited.as_array().unwrap().iter().any(|record| by_me(&record)), "{method}: {audited}");
    }
    let answers = page.answers.lock().unwrap();
    for secret in [served.access_token.as_str(), "PRIVATE KEY", "BEGIN", "client_assertion", &page.cookie] {
        assert!(!answers.contains(secret), "{secret} was told");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_of_a_part_sees_it_and_presses_there_and_nowhere_else() {
    let Some(other) = Other::new() else { return };
    let socket = format!("admin.socket={}", other.socket().display());
    let world = World::with(&["--set", &socket, "--set", "admin.socket_mode=0666"], json!({})).await;
    let member = format!(
        "unix://{}/uid/{}",
        world.broker.json(&["status"])["node"].as_str().unwrap(),
        crate::administration::UID
    );
    let role = [
        "access",
        "assign",
        "--member",
        &member,
        "--role",
        "identity-operator",
        "--identity",
        "identities/billing",
    ];
    assert!(world.broker.jeton(&role).status.success());
    for identity in ["identities/billing", "identities/reports"] {
        token(&mut world.broker.tokens().await, identity, VAULT).await.unwrap();
    }
    let page =
        Page::opened(other.process(&["console", "-o", "json"], &world.folder().join("other.log"))).await;
    assert_eq!(page.get("/api/me").await["principal"], json!(member));
    let all = page.get("/api/identities").await;
    assert_eq!((names(&all), &all["total"]), (vec!["identities/billing"], &json!(1)));
    let overview = page.get("/api/overview").await;
    assert_eq!((&overview["rates"], &overview["identities"]), (&Value::Null, &json!({"active": 1})));
    assert_eq!(page.get("/api/history").await["points"], json!([]));
    let told = page.get(BILLING).await;
    assert_eq!((&told["role_assignments"], &told["may_change"]), (&Value::Null, &json!(true)));
    for (path, button) in [("/api/identities/reports", "disable"), ("/api/identities/nothing", "refresh")] {
        let (status, told) = page.press(path, button).await;
        assert_eq!((status, &told["error"]["reason"]), (403, &json!("NOT_PERMITTED")), "{told}");
        assert!(told["error"]["remedy"].as_str().unwrap().contains("jeton access explain"), "{told}");
    }
    assert_eq!(page.press(BILLING, "refresh").await.0, 200);
    page.events_until("\"kind\":\"refresh_asked\"").await;
    assert!(
        !page.answers.lock().unwrap().contains("identities/reports\""),
        "something of another's was told"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_shows_the_command_line_shows_too() {
    let world = World::start().await;
    let broker = &world.broker;
    token(&mut broker.tokens().await, "identities/billing", VAULT).await.unwrap();
    let refreshed = broker.json(&["identity", "refresh", "billing"]);
    assert_eq!(refreshed["left"], 0, "{refreshed}");
    assert!(refreshed["under_way"].as_u64().unwrap() >= 1, "{refreshed}");
    let worst = broker.json(&["identity", "worst", "--search", "bill"]);
    assert_eq!(worst[0]["name"], "identities/billing", "{worst}");
    let events = broker.json(&["events", "--identity", "billing"]);
    let kinds: Vec<_> =
        events.as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"registered") && kinds.contains(&"refresh_asked"), "{kinds:?}");
    let data_dir = broker.data_dir.to_str().unwrap();
    let mut watch = Process::start(
        &["events", "--watch", "--data-dir", data_dir],
        &broker.data_dir.with_extension("watch"),
    );
    broker.json(&["identity", "disable", "billing"]);
    watch.says("disabled by unix://");
    let began = Instant::now();
    while broker.json(&["status"])["rates"].is_null() {
        assert!(began.elapsed() < PATIENCE, "rates are told after the first seconds");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let screen = String::from_utf8(broker.jeton(&["status"]).stdout).unwrap();
    assert!(screen.contains("requests for tokens"), "{screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_outlives_its_broker_and_says_meanwhile_that_it_is_gone() {
    let mut world = World::start().await;
    let page = Page::of(&world.broker).await;
    let before = page.get("/api/identities").await["total"].clone();
    world.broker.process.kill();
    let (status, told) = page.json("GET", "/api/identities", json!({})).await;
    assert_eq!((status, &told["error"]["reason"]), (502, &json!("UNREACHABLE")), "{told}");
    world.restart(&[]);
    assert_eq!(page.get("/api/identities").await["total"], before);
    let told = page.get(BILLING).await;
    assert!(kinds(&told).contains(&"created".to_owned()), "what the registry knows is told: {told}");
}
