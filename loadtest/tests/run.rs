//! The program against a server that runs: the baseline, which is part of it.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use support::{Baseline, PROGRAM, load};

fn reports(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_closed_loop_and_a_constant_rate_are_reported_in_a_table_as_json_and_as_a_page() {
    let (server, folder) = (Baseline::start(&[]), tempfile::tempdir().unwrap());
    let (json, html) = (folder.path().join("r.json"), folder.path().join("r.html"));
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let both = ["identities/a", "identities/b"];
    let closed =
        load("run", &server.address, &both, &[&["--connections", "3", "-m", "4"][..], &files].concat());
    assert!(closed.status.success(), "{}", String::from_utf8_lossy(&closed.stderr));
    let report = &reports(&json)[0];
    assert!(report["answered"].as_u64().unwrap() > 0 && report["errors"] == json!({}), "{report}");
    assert_eq!(report["token_bytes"], 1_600);
    assert!(fs::read_to_string(&html).unwrap().contains("<svg"));
    let paced =
        load("run", &server.address, &both, &[&["--connections", "2", "--rate", "200"][..], &files].concat());
    assert!(paced.status.success(), "{}", String::from_utf8_lossy(&paced.stderr));
    let report = &reports(&json)[0];
    let answered = report["answered"].as_u64().unwrap();
    assert!((150..=200).contains(&answered), "200 a second for a second: {report}");
    let said = String::from_utf8_lossy(&paced.stdout).into_owned();
    let limit = report["saturated"].as_str().unwrap();
    assert!(said.contains("at the limit") && said.lines().nth(1).unwrap().ends_with(limit), "{said}");
}

#[test]
fn what_the_server_refuses_is_counted_by_its_name_with_what_the_server_says_and_the_program_fails() {
    let (server, folder) = (Baseline::start(&[]), tempfile::tempdir().unwrap());
    let (json, html) = (folder.path().join("r.json"), folder.path().join("r.html"));
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let more = [&["--rate", "50"][..], &files].concat();
    let outcome = load("run", &server.address, &["identities/nobody"], &more);
    assert!(!outcome.status.success());
    let (report, name) = (&reports(&json)[0], "grpc-status 5 (NOT_FOUND)");
    assert_eq!(report["answered"], 0);
    assert_eq!(report["errors"].as_object().unwrap().len(), 1, "{report}");
    assert!(report["errors"][name].as_u64() > Some(0), "{report}");
    assert_eq!(report["errors_said"], json!({name: "no such token"}), "{report}");
    let line = format!("{} x {name}, the first: no such token", report["errors"][name]);
    let said = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert!(said.contains(&line) && fs::read_to_string(&html).unwrap().contains(&line), "{said}");
}

#[test]
fn a_page_plots_percentiles_and_over_time_rate_latency_and_errors_and_needs_nothing_from_elsewhere() {
    let (server, folder) = (Baseline::start(&[]), tempfile::tempdir().unwrap());
    let html = folder.path().join("r.html");
    let more = ["--rate", "100", "--skew", "0", "--seconds", "3", "--html", html.to_str().unwrap()];
    // One of them has no token.
    load("run", &server.address, &["identities/a", "identities/nobody"], &more);
    let page = fs::read_to_string(&html).unwrap();
    let plots: Vec<_> = page.split("<h2>").skip(1).collect();
    for (title, least) in [
        ("Latency percentiles (microseconds)", 5),
        ("Answers a second", 3),
        ("99th percentile, second by second (microseconds)", 3),
        ("Median, second by second (microseconds)", 3),
        ("Errors a second", 3),
    ] {
        let plot = plots.iter().find(|plot| plot.starts_with(&format!("{title}</h2><svg "))).unwrap();
        let lines: Vec<_> =
            plot.split("points=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let [line] = lines[..] else { panic!("one measurement: {plot}") };
        let heights: Vec<f64> =
            line.split(' ').map(|point| point.split_once(',').unwrap().1.parse().unwrap()).collect();
        assert!(heights.len() >= least && heights.iter().all(|height| height.is_finite()), "{plot}");
        let floor = plot.split(" y1=\"").nth(1).unwrap().split('"').next().unwrap().parse::<f64>().unwrap();
        assert!(heights.iter().any(|height| *height < floor - 1.0), "{title} is more than nothing: {plot}");
    }
    assert_eq!(plots.len(), 5);
    for elsewhere in ["://", "src=", "href=", "url(", "@import", "<script", "<link", "<iframe"] {
        assert!(!page.contains(elsewhere), "{elsewhere}: {page}");
    }
}

#[test]
fn a_server_is_found_by_its_address_and_said_to_be_at_its_limit() {
    let (server, folder) = (Baseline::start(&[]), tempfile::tempdir().unwrap());
    let json = folder.path().join("r.json");
    let run = |more: &[&str]| {
        let much = ["--connections", "10", "-m", "200", "--json", json.to_str().unwrap()];
        let outcome = load("run", &server.address, &["identities/a"], &[&much[..], more].concat());
        (outcome.status.success(), String::from_utf8_lossy(&outcome.stderr).into_owned())
    };
    let at_limit = |report: &Value| ["server", "both"].iter().any(|who| report["saturated"] == *who);
    // The server has one thread, which has 2,000 requests to answer at any time.
    assert!(run(&[]).0);
    let report = &reports(&json)[0];
    assert!(at_limit(report) && report["server_cpu_per_request"].as_f64() > Some(1.0), "{report}");
    // Of another process that is told to it, it says what that one did: this one waits.
    assert!(run(&["--server-pid", &std::process::id().to_string()]).0);
    let report = &reports(&json)[0];
    assert!(!at_limit(report) && report["server_busy"].as_f64() < Some(0.5), "{report}");
    let (good, said) = run(&["--server-pid", "4194305"]);
    assert!(!good && said.contains("--server-pid 4194305: there is no such process"), "{said}");
}

#[test]
fn a_generator_that_cannot_keep_a_rate_says_so_and_reads_answers_all_the_same() {
    let (server, folder) = (Baseline::start(&[]), tempfile::tempdir().unwrap());
    let json = folder.path().join("r.json");
    let more = ["--connections", "1", "--rate", "1e7", "--seconds", "0.3", "--json", json.to_str().unwrap()];
    assert!(!load("run", &server.address, &["identities/a"], &more).status.success());
    let report = &reports(&json)[0];
    assert!(["generator", "both"].iter().any(|who| report["saturated"] == *who), "{report}");
    assert!(report["throughput"].as_f64() > Some(0.0), "{report}");
}

#[test]
fn a_server_that_goes_away_is_charged_for_everything_that_was_due() {
    for rate in [Some("200"), None] {
        let (mut server, folder) = (Baseline::start(&[]), tempfile::tempdir().unwrap());
        let json = folder.path().join("r.json");
        let mut command = Command::new(PROGRAM);
        command.args([
            "run",
            "--endpoint",
            &server.address,
            "--scope",
            "s",
            "--identity",
            "identities/a",
            "--quiet",
        ]);
        command.args([
            "--warmup",
            "0.1",
            "--seconds",
            "3",
            "--connections",
            "4",
            "--json",
            json.to_str().unwrap(),
        ]);
        command.args(rate.iter().flat_map(|rate| ["--rate", rate]));
        let running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1_000));
        server.process.kill().unwrap();
        assert!(!running.wait_with_output().unwrap().status.success());
        let report = &reports(&json)[0];
        let failed: u64 = report["errors"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        let due = report["answered"].as_u64().unwrap() + failed;
        assert!(failed > 0 && (rate.is_none() || (500..=620).contains(&due)), "{report}");
    }
}

#[test]
fn a_server_that_speaks_tls_and_a_caller_that_does_not_are_told_of_the_option() {
    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = ["server.pem", "server.key"].map(|name| folder.path().join(name));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let secured = Baseline::start(&["--cert", cert, "--key", key]);
    let few = ["--connections", "1", "--rate", "10"];
    let said = |server: &Baseline, more: &[&str]| {
        let outcome = load("run", &server.address, &["identities/a"], &[&few[..], more].concat());
        (outcome.status.success(), String::from_utf8_lossy(&outcome.stderr).into_owned())
    };
    assert!(said(&secured, &["--ca", cert]).0);
    let (good, unsecured) = said(&secured, &[]);
    assert!(!good && unsecured.contains("give --ca"), "{unsecured}");
    let other = folder.path().join("other.pem");
    fs::write(&other, rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap().cert.pem()).unwrap();
    let (good, untrusted) = said(&secured, &["--ca", other.to_str().unwrap()]);
    assert!(!good && untrusted.contains("--ca must hold"), "{untrusted}");
    let (good, plain) = said(&Baseline::start(&[]), &["--ca", cert]);
    assert!(!good && plain.contains("leave --ca away"), "{plain}");
}
