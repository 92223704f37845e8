//! `loadtest compare` in short: that it works, not how fast anything is.
//!
//! It needs the broker's program beside this one (`cargo test --workspace` builds both) and nghttp2's `nghttpd` and `h2load`.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{
    fs,
    net::TcpStream,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// Measurements share two processors, and each is one at a time.
static ALONE: Mutex<()> = Mutex::new(());
const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");

/// The measurements, and what was printed.
fn compare(more: &[&str]) -> (Vec<Value>, String) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.json");
    let mut command = Command::new(PROGRAM);
    command.args(["compare", "--rounds", "1", "--seconds", "1", "--json"]).arg(&file).args(more);
    let outcome = command.output().unwrap();
    let [said, meanwhile] =
        [outcome.stdout, outcome.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(outcome.status.success(), "{more:?}: {meanwhile}");
    let reports: Vec<Value> = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    // Figures of a debug build say nothing, which is said before, and wherever they are.
    let debug = cfg!(debug_assertions);
    assert!(reports.iter().all(|report| report["debug_build"] == debug), "{reports:?}");
    for said in [&meanwhile, &said] {
        assert_eq!(said.contains("this is a debug build"), debug, "{said}");
    }
    (reports, said)
}

fn of<'a>(reports: &'a [Value], name: &str) -> &'a Value {
    reports.iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("no {name} in {reports:?}"))
}

#[test]
#[ignore = "needs jeton, nghttpd and h2load; .ci/run has them"]
fn three_servers_answer_with_tokens_of_the_same_size_to_both_clients() {
    for more in [&[][..], &["--tls"], &["--client", "h2load"], &["--client", "h2load", "--tls"]] {
        let (reports, said) = compare(&[&["--shape", "10x10", "--floor"], more].concat());
        for name in ["stock tonic", "nghttpd", "jeton"] {
            let report = of(&reports, name);
            assert_eq!(report["errors"], json!({}), "{more:?} {report}");
            assert!(report["answered"].as_u64() > Some(0) && report["saturated"].is_string(), "{report}");
            assert!(report["server_cpu_per_request"].as_f64() > Some(0.0), "{report}");
            // A group's id makes a token 52 bytes longer.
            assert!((1_600..1_700).contains(&report["token_bytes"].as_u64().unwrap()), "{report}");
        }
        assert!(said.contains("stock tonic / jeton") && said.contains("nghttpd / jeton"), "{said}");
        assert!(said.contains("access tokens of 16") && said.contains("at the limit: nghttpd: "), "{said}");
    }
}

#[test]
#[ignore = "needs jeton; .ci/run has it"]
fn a_broker_that_sends_telemetry_is_compared_with_one_that_does_not_once_all_of_it_arrived() {
    let (reports, said) = compare(&["--shape", "10x10", "--telemetry"]);
    let report = of(&reports, "jeton with telemetry");
    assert_eq!(report["errors"], json!({}), "{report}");
    assert!(report["server_cpu_per_request"].as_f64() > Some(0.0), "{report}");
    assert!(said.contains("jeton with telemetry / jeton: "), "{said}");
}

#[test]
#[ignore = "needs jeton and nghttpd; .ci/run has them"]
fn half_of_the_saturation_is_half_of_what_so_many_callers_get_at_most() {
    let (reports, said) = compare(&["--at-half", "50"]);
    let most = of(&reports, "jeton, saturated")["throughput"].as_f64().unwrap();
    for name in ["stock tonic", "nghttpd", "jeton"] {
        let report = of(&reports, name);
        assert!((report["rate"].as_f64().unwrap() - most / 2.0).abs() <= 1.0, "{most} {report}");
        assert_eq!((&report["connections"], &report["errors"]), (&50.into(), &json!({})), "{report}");
    }
    assert!(
        said.contains("latency, jeton / nghttpd: p50") && said.contains("jeton / stock tonic: p50"),
        "{said}"
    );
}

#[test]
#[ignore = "needs jeton; .ci/run has it"]
fn a_signal_ends_the_servers_too_and_leaves_no_keys_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["compare", "--shape", "1x1", "--seconds", "600"]).env("TMPDIR", folder.path());
    let mut compare = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let inside = || fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let endpoints = || fs::read(inside().next()?.join("jeton/endpoints.json")).ok();
    let start = Instant::now();
    let broker = loop {
        let said = endpoints().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        if let Some(said) = said {
            break said["grpc"].as_str().unwrap().to_owned();
        }
        assert!(start.elapsed() < PATIENCE && compare.try_wait().unwrap().is_none(), "the broker starts");
        thread::sleep(Duration::from_millis(20));
    };
    let pid = rustix::process::Pid::from_child(&compare);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(compare.wait().unwrap().code(), Some(128 + 15));
    assert_eq!(inside().count(), 0, "what was there when it ended");
    while TcpStream::connect(&broker).is_ok() {
        assert!(start.elapsed() < PATIENCE, "the broker ends");
        thread::sleep(Duration::from_millis(20));
    }
}
