//! The log as an operator and a collector get it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use tonic_types::StatusExt;

use crate::{
    frames::{ACK, DATA, END_HEADERS, HEADERS, PING, Raw, frame, header_block, reset, streams},
    support::{VAULT, World, token},
};

/// The path to which it came, and what came.
type Exported = (String, Vec<u8>);

/// Takes what is exported by HTTP, whatever signal it is.
pub(crate) struct Collector {
    url: String,
    bodies: Arc<Mutex<Vec<Exported>>>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bodies: Arc<Mutex<Vec<_>>> = Arc::default();
        let kept = Arc::clone(&bodies);
        // Its threads end with those who connect, and the last one with the tests.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream.unwrap());
                    while let Some(exported) = taken(&mut stream) {
                        kept.lock().unwrap().push(exported);
                    }
                });
            }
        });
        Self { url, bodies }
    }

    /// What has a broker export everything there as JSON.
    pub(crate) fn settings(&self) -> Vec<String> {
        let set = [format!("endpoint={}", self.url), "protocol=http/json".into(), "logs=true".into()];
        let set = set.into_iter().map(|set| format!("telemetry.otlp.{set}"));
        let all = set.chain(["telemetry.traces.sampler=always_on".to_owned()]);
        all.flat_map(|set| ["--set".to_owned(), set]).collect()
    }

    pub(crate) fn bodies(&self) -> Vec<Exported> {
        self.bodies.lock().unwrap().clone()
    }

    /// How often something came to a path.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.bodies.lock().unwrap().iter().filter(|(to, _)| to == path).count()
    }

    /// The log records, with the names of their scopes.
    fn records(&self) -> Vec<(String, Value)> {
        let bodies = self.bodies().into_iter().filter(|(path, _)| path == "/v1/logs");
        let mut all = vec![];
        for (_, body) in bodies {
            let message: Value = serde_json::from_slice(&body).unwrap();
            for scope in message["resourceLogs"][0]["scopeLogs"].as_array().unwrap() {
                let name = scope["scope"]["name"].as_str().unwrap();
                let records = scope["logRecords"].as_array().unwrap();
                all.extend(records.iter().map(|record| (name.to_owned(), record.clone())));
            }
        }
        all
    }
}

/// The path and the body of one request, which is answered.
fn taken(stream: &mut BufReader<TcpStream>) -> Option<Exported> {
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).ok().filter(|read| *read > 0)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    Some((first.split(' ').nth(1)?.to_owned(), body))
}

fn said<'a>(record: &'a Value, key: &str) -> &'a str {
    let attributes = record["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    found.and_then(|attribute| attribute["value"]["stringValue"].as_str()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_one_line_with_its_id_its_caller_and_its_trace_here_and_at_a_collector() {
    let collector = Collector::start();
    let settings = collector.settings();
    let mut arguments: Vec<_> = settings.iter().map(String::as_str).collect();
    arguments.extend(["--set", "log.filter=info", "--set", "log.format=json"]);
    let mut world = World::with(&arguments, json!({})).await;
    let mut client = world.broker.tokens().await;
    let refused = token(&mut client, "identities/nobody", VAULT).await.unwrap_err();
    let id = refused.get_details_error_info().unwrap().metadata["correlation_id"].clone();
    let explained = world.broker.json(&["access", "explain", "--correlation", &id]);
    assert!(explained.to_string().contains("nobody"), "{explained}");
    // Far more than a few a minute.
    for _ in 0..20 {
        token(&mut client, "identities/nobody", VAULT).await.unwrap_err();
    }
    assert!(world.broker.process.stop().success());

    let log = fs::read_to_string(world.broker.data_dir.with_extension("log")).unwrap();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let denials: Vec<_> = lines.iter().filter(|line| line["asked"] == "identities/nobody").collect();
    assert_eq!(denials.len(), 3, "{log}");
    let about: Vec<_> = lines.iter().filter(|line| line["correlation_id"] == *id).collect();
    let [line] = about[..] else { panic!("{about:?}") };
    assert_eq!((&line["level"], &line["target"]), (&json!("INFO"), &json!("jeton_server::grpc::token")));
    assert_eq!(line["principal"], "loopback://dev");
    assert_eq!(line["trace_id"].as_str().unwrap().len(), 32, "{line}");

    let records = collector.records();
    let of = |scope: &str| {
        let named =
            records.iter().filter(|(name, record)| name == scope && said(record, "correlation_id") == id);
        let found: Vec<_> = named.map(|(_, record)| record).collect();
        assert_eq!(found.len(), 1, "{scope}: {found:?}");
        found[0]
    };
    let exported = of("jeton");
    assert_eq!((&exported["traceId"], &exported["spanId"]), (&line["trace_id"], &line["span_id"]));
    assert_eq!(exported["body"]["stringValue"], line["message"]);
    assert_eq!(
        (said(exported, "principal"), &exported["severityText"]),
        (line["principal"].as_str().unwrap(), &json!("INFO"))
    );
    let audited = of("jeton.audit");
    assert_eq!((&audited["eventName"], said(audited, "kind")), (&json!("jeton.audit"), "access.denied"));
    let spans = collector.bodies().into_iter().filter(|(path, _)| path == "/v1/traces");
    let trace = line["trace_id"].as_str().unwrap().as_bytes().to_vec();
    assert!(
        spans.into_iter().any(|(_, body)| body.windows(32).any(|part| part == trace)),
        "the trace is there too"
    );
    assert!(records.iter().all(|(_, record)| !said(record, "target").starts_with("jeton_telemetry")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_the_audit_log_comes_to_a_collector_as_it_stands_there() {
    let collector = Collector::start();
    let settings = collector.settings();
    let arguments: Vec<_> = settings.iter().map(String::as_str).collect();
    let mut world = World::with(&arguments, json!({})).await;
    world.broker.json(&["identity", "rotate", "billing"]);
    let listed = world.broker.json(&["audit", "list"]);
    assert!(world.broker.process.stop().success());
    let exported: Vec<_> =
        collector.records().into_iter().filter(|(scope, _)| scope == "jeton.audit").map(|(_, r)| r).collect();
    let listed = listed.as_array().unwrap().iter().filter(|event| {
        // What the log says of itself is about its own files.
        !event["kind"].as_str().unwrap().starts_with("log.")
    });
    let mut compared = 0;
    for event in listed {
        let same = exported.iter().find(|record| {
            let seq = record["attributes"].as_array().unwrap().iter().find(|a| a["key"] == "seq").unwrap();
            seq["value"]["intValue"].as_str() == Some(&event["seq"].to_string())
        });
        let same = same.unwrap_or_else(|| panic!("{event} is not exported"));
        let keys: Vec<_> =
            same["attributes"].as_array().unwrap().iter().map(|a| a["key"].as_str().unwrap()).collect();
        let expected =
            event.as_object().unwrap().keys().filter(|key| !["prev", "at"].contains(&key.as_str()));
        for key in expected {
            assert!(keys.contains(&key.as_str()), "{key} of {event} in {same}");
        }
        assert_eq!(said(same, "outcome"), event["outcome"].as_str().unwrap());
        compared += 1;
    }
    assert!(compared > 4, "a rotation has several steps: {compared}");
}

const GET_TOKEN: &str = "/jeton.v1.TokenService/GetToken";

/// Everything for which the HTTP/2 library has a line of its own, some thousand times.
fn floods(address: SocketAddr) {
    for _ in 0..4 {
        let mut raw = Raw::connect(address, &[]);
        // Answers to pings that nobody sent: a line for each.
        raw.send(&frame(PING, ACK, 0, &[7; 8]).repeat(1_000)).unwrap();
        raw.send(&frame(PING, 0, 0, &[8; 8])).unwrap();
        while raw.until(PING).unwrap().flags & ACK == 0 {}
    }
    let cancelled = streams().take(300).flat_map(|stream| {
        [frame(HEADERS, END_HEADERS, stream, &header_block(GET_TOKEN)), reset(stream)].concat()
    });
    let (cancelled, of_no_stream) = (cancelled.collect::<Vec<_>>(), frame(DATA, 0, 0, b"of no stream"));
    for ends in [cancelled, of_no_stream] {
        for _ in 0..200 {
            let mut raw = Raw::connect(address, &[]);
            // It may be closed in the middle.
            let _ = raw.send(&ends);
            assert!(raw.ends());
        }
    }
}

/// Lines of the log from before a flood to a denial after it.
async fn lines_of_a_flood(world: &mut World) -> Vec<String> {
    let mut client = world.broker.tokens().await;
    token(&mut client, "identities/billing", VAULT).await.unwrap();
    let before = world.broker.process.log().lines().count();
    let address = world.broker.endpoints["grpc"].as_str().unwrap().parse().unwrap();
    tokio::task::spawn_blocking(move || floods(address)).await.unwrap();
    token(&mut client, "identities/nobody", VAULT).await.unwrap_err();
    world.broker.process.says("identities/nobody");
    world.broker.process.log().lines().skip(before).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_adds_a_handful_of_lines_to_the_log_whatever_frames_it_sends() {
    const HANDFUL: usize = 5;
    let filtered = |filter| ["--set", filter, "--set", "log.format=json"];
    let mut world = World::with(&filtered("log.filter=info"), json!({})).await;
    let lines = lines_of_a_flood(&mut world).await;
    assert!(lines.len() <= HANDFUL, "{} lines: {:?}", lines.len(), &lines[..HANDFUL]);
    // It is a flood: whoever names the library sees it.
    assert!(world.broker.process.stop().success());
    world.restart(&filtered("log.filter=info,h2=warn"));
    let lines = lines_of_a_flood(&mut world).await;
    assert!(lines.len() > 1_000, "{lines:?}");
}
