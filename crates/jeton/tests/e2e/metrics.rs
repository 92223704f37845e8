//! What a broker tells of itself, read as a Prometheus server reads it.

use std::collections::{BTreeMap, BTreeSet};

use jeton_telemetry::{Attribute, INSTRUMENTS, Kind, Values, prometheus_name};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Process, VAULT, World, sealing_key, token};

/// Series by name, each with its labels.
type Scraped = BTreeMap<String, Vec<(BTreeMap<String, String>, f64)>>;

/// Status, head and body.
pub(crate) async fn got(url: &str, path: &str) -> (u16, String, String) {
    let host = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

/// Strictly by the text format: each family with its HELP and TYPE before its samples, no series twice, histograms that add up.
fn parsed(text: &str) -> Scraped {
    let (mut scraped, mut kinds) = (Scraped::new(), BTreeMap::<String, String>::new());
    let mut family = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty() && !kinds.contains_key(name), "{line}");
            name.clone_into(&mut family);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(name == family && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            kinds.insert(name.to_owned(), kind.to_owned());
        } else {
            let (name, labels, value) = sample(line);
            let suffixes: &[&str] =
                if kinds[&family] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line} in {family}");
            let series = scraped.entry(name).or_default();
            assert!(series.iter().all(|(other, _)| *other != labels), "twice: {line}");
            series.push((labels, value));
        }
    }
    for (name, _) in kinds.iter().filter(|(_, kind)| *kind == "histogram") {
        adds_up(&scraped, name);
    }
    scraped
}

/// `name{key="value",...} number`
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
    let mut labels = BTreeMap::new();
    while let Some(label) = rest.strip_prefix(['{', ',']) {
        let (key, after) = label.split_once("=\"").unwrap();
        assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
        let end = after.find('"').unwrap();
        assert!(!after[..end].contains('\\'), "nothing here has to be escaped: {line}");
        assert!(labels.insert(key.to_owned(), after[..end].to_owned()).is_none(), "{line}");
        rest = &after[end + 1..];
    }
    let value = rest.trim_start_matches('}').strip_prefix(' ').unwrap();
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

fn adds_up(scraped: &Scraped, name: &str) {
    let empty = vec![];
    let all = |suffix| scraped.get(&format!("{name}{suffix}")).unwrap_or(&empty);
    for (labels, count) in all("_count") {
        let mut last = (f64::NEG_INFINITY, 0.0);
        let of = all("_bucket")
            .iter()
            .filter(|(bucket, _)| bucket.iter().filter(|(key, _)| *key != "le").eq(labels.iter()));
        for (bucket, value) in of {
            let bound: f64 = bucket["le"].parse().unwrap();
            assert!(bound > last.0 && *value >= last.1, "{name}: {bucket:?}");
            last = (bound, *value);
        }
        assert_eq!(last, (f64::INFINITY, *count), "{name}: {labels:?}");
    }
}

/// The sum of the series of a name that have these labels.
fn total(scraped: &Scraped, name: &str, with: &[(&str, &str)]) -> f64 {
    let series = scraped.get(name).unwrap_or_else(|| panic!("{name} is not there"));
    let fits = |labels: &BTreeMap<String, String>| {
        with.iter().all(|(key, value)| labels.get(*key).is_some_and(|label| label == value))
    };
    series.iter().filter(|(labels, _)| fits(labels)).map(|(_, value)| value).sum()
}

/// The documented labels, and no others, with values out of their sets.
fn within_bounds(scraped: &Scraped) {
    for instrument in INSTRUMENTS {
        let name = prometheus_name(instrument);
        let counted = if instrument.kind == Kind::Histogram { format!("{name}_count") } else { name };
        let series = scraped.get(&counted).unwrap_or_else(|| panic!("{counted} has no sample"));
        for (labels, _) in series {
            let mut left: BTreeSet<_> = labels.keys().cloned().collect();
            for Attribute { key, values, optional } in instrument.attributes {
                let label = key.replace('.', "_");
                let Some(value) = labels.get(&label) else {
                    assert!(*optional, "{counted} without {label}");
                    continue;
                };
                left.remove(&label);
                if let Values::Of(known) = values {
                    assert!(known.contains(&value.as_str()), "{counted}: {label}={value}");
                }
                assert!(value.len() < 100, "{counted}: {label}={value}");
            }
            assert!(left.is_empty(), "{counted} has more than is documented: {left:?}");
        }
    }
    let documented: BTreeSet<_> = INSTRUMENTS.iter().map(|instrument| prometheus_name(instrument)).collect();
    for name in scraped.keys().filter(|name| *name != "target_info") {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let known = documented.contains(name) || family.is_some_and(|family| documented.contains(family));
        assert!(known, "{name} is not documented");
    }
}

#[tokio::test]
async fn every_documented_metric_has_a_sample_after_a_mixed_load_and_no_secret_is_among_them() {
    // A refresh is due within seconds.
    let world = World::with(
        &[
            "--set",
            "telemetry.named_identities=[\"identities/orders\"]",
            "--set",
            "telemetry.worst_identities=1",
        ],
        json!({"token_lifetime_seconds": 20}),
    )
    .await;
    let url = world.broker.endpoints["metrics"].as_str().unwrap().to_owned();
    assert_eq!(got(&url, "/livez").await.0, 200);
    let mut tokens = world.broker.tokens().await;
    let identity = world.broker.endpoints["identities"][0]["name"].as_str().unwrap().to_owned();
    let first = token(&mut tokens, &identity, VAULT).await.unwrap();
    for _ in 0..200 {
        token(&mut tokens, &identity, VAULT).await.unwrap();
    }
    // Denied, wrong, and what is no method.
    assert!(token(&mut tokens, "identities/canary-of-a-caller", VAULT).await.is_err());
    assert!(token(&mut tokens, "no name", VAULT).await.is_err());
    let (status, ..) = got(&url, "/canary-path").await;
    assert_eq!(status, 404);
    // The authority fails from now on, so what is warm starves.
    let fault = json!({"rate": 1.0, "status": 500, "retry_after_seconds": 0});
    world.sandbox.settings(json!({"error": fault})).await;
    let failing = || async {
        let (status, head, text) = got(&url, "/metrics").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        text
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let text = loop {
        // Callers keep it wanted.
        let _ = token(&mut tokens, &identity, VAULT).await;
        let text = failing().await;
        if text.contains("\njeton_identity_time_to_starvation_seconds{") {
            break text;
        }
        assert!(std::time::Instant::now() < end, "nothing starves:\n{text}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    let scraped = parsed(&text);
    within_bounds(&scraped);
    let of = |name, with: &[(&str, &str)]| total(&scraped, name, with);
    assert!(of("jeton_token_lookups_total", &[("jeton_lookup_result", "fresh")]) >= 200.0);
    assert!(of("jeton_token_lookups_total", &[("jeton_lookup_result", "denied")]) >= 1.0);
    let get = [("rpc_method", "jeton.v1.TokenService/GetToken")];
    let ok = [get[0], ("rpc_response_status_code", "OK")];
    assert!(of("rpc_server_call_duration_seconds_count", &ok) >= 201.0);
    let denied = [get[0], ("rpc_response_status_code", "PERMISSION_DENIED")];
    assert_eq!(of("rpc_server_call_duration_seconds_count", &denied), 1.0);
    assert!(of("jeton_access_denials_total", &[("jeton_plane", "data")]) >= 1.0);
    assert!(of("jeton_slots_failing", &[("jeton_authority", "authorities/entra")]) >= 1.0);
    let plan = [("jeton_refresh_cause", "plan"), ("jeton_authority", "authorities/entra")];
    assert!(of("jeton_refreshes_total", &plan) >= 1.0);
    assert!(of("jeton_assertions_spent_total", &[]) >= 1.0);
    for canary in
        ["canary", first.access_token.as_str(), "eyJ", world.sandbox.text("/administrator/client_secret")]
    {
        assert!(!text.contains(canary), "{canary} in\n{text}");
    }
    // Of four identities, the named one and the worst.
    let single = &scraped["jeton_identity_credential_time_to_expiry_seconds"];
    let of_single: BTreeSet<_> = single.iter().map(|(labels, _)| labels["jeton_identity"].as_str()).collect();
    assert!(of_single.len() == 2 && of_single.contains("identities/orders"), "{of_single:?}");
    assert!(scraped["jeton_identity_time_to_starvation_seconds"].len() <= 2);
    // Failing authorities make it no less ready.
    let (status, _, body) = got(&url, "/readyz").await;
    assert_eq!((status, body.starts_with("ready, degraded")), (200, true), "{body}");
}

#[tokio::test]
async fn a_broker_that_is_about_to_stop_says_so_while_those_who_wait_are_still_served() {
    let world = World::start().await;
    let url = world.broker.endpoints["metrics"].as_str().unwrap().to_owned();
    let (status, _, body) = got(&url, "/readyz").await;
    assert_eq!((status, body.as_str()), (200, "ready\n"));
    world.sandbox.settings(json!({"hang_seconds": 60})).await;
    let mut tokens = world.broker.tokens().await;
    let [identity, cold] = ["/identities/0/name", "/scopes/1"]
        .map(|pointer| world.broker.endpoints.pointer(pointer).unwrap().as_str().unwrap().to_owned());
    let asking = tokio::spawn(async move { token(&mut tokens, &identity, &cold).await });
    comes(&url, "/metrics", |_, text| text.contains("\njeton_token_waiting_callers 1\n")).await;
    world.broker.process.terminate();
    comes(&url, "/readyz", |status, body| status == 503 && body.contains("about to stop")).await;
    comes(&url, "/metrics", |_, text| text.contains("\njeton_draining 1\n")).await;
    asking.abort();
}

/// Waits for an answer that must come.
async fn comes(url: &str, path: &str, is_it: impl Fn(u16, &str) -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(120);
    loop {
        let (status, _, body) = got(url, path).await;
        if is_it(status, &body) {
            return;
        }
        assert!(std::time::Instant::now() < end, "{path} {status}: {body}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn serve_listens_where_it_is_configured_or_where_the_environment_asks_for_prometheus() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("sealing.key");
    sealing_key(&key);
    let key = format!("sealing.key_file={}", key.display());
    let asked = "export OTEL_METRICS_EXPORTER=prometheus OTEL_EXPORTER_PROMETHEUS_PORT=0";
    for (n, first, set) in [(0, ":", &["--set", "telemetry.metrics_listen=127.0.0.1:0"][..]), (1, asked, &[])]
    {
        let data_dir = folder.path().join(format!("data{n}"));
        let usual = ["serve", "--data-dir", data_dir.to_str().unwrap(), "--set", &key];
        let mut process = Process::after(first, &[&usual, set].concat(), &folder.path().join("log"));
        let endpoints = process.announces(&data_dir.join("endpoints.json"));
        let (status, _, text) = got(endpoints["metrics"].as_str().unwrap(), "/metrics").await;
        assert_eq!(status, 200);
        parsed(&text);
        assert!(process.stop().success());
    }
}

#[tokio::test]
async fn what_is_counted_is_pushed_to_the_collector_that_the_environment_names() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let arguments = ["dev", "--free-ports", "--data-dir", data_dir.to_str().unwrap()];
    let set = format!("export OTEL_EXPORTER_OTLP_ENDPOINT={endpoint} OTEL_METRIC_EXPORT_INTERVAL=200");
    let mut process = Process::after(&set, &arguments, &folder.path().join("log"));
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = [0; 64];
    stream.read_exact(&mut head).await.unwrap();
    assert!(head.starts_with(b"POST /v1/metrics HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
    drop((stream, listener));
    process.announces(&data_dir.join("endpoints.json"));
    assert!(process.stop().success(), "{}", process.log());
}
