//! Starts that are called off, and starts that fail late: nothing stays behind.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use jeton_proto::v1::{self, watch_tokens_request::Action};

use crate::support::{
    Broker, JETON, Process, Sandbox, VAULT, World, ends_in_time, request, terminate, until,
};

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_start_that_is_called_off_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(JETON)
        .args(["dev", "--ephemeral", "--free-ports"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("it makes its directory", || entries(folder.path()) == 1);
    terminate(&child);
    assert!(ends_in_time(&mut child).success());
    assert_eq!(entries(folder.path()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_drain_at_once() {
    let mut world = World::with(&["--set", "door.drain_deadline_ms=60000"], serde_json::json!({})).await;
    let request = v1::WatchTokensAdd { id: "a".into(), request: Some(request("identities/billing", VAULT)) };
    let first = v1::WatchTokensRequest { action: Some(Action::Add(request)) };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::once(first), tokio_stream::pending());
    let mut events = world.broker.tokens().await.watch_tokens(requests).await.unwrap().into_inner();
    events.message().await.unwrap().unwrap();
    world.broker.process.terminate();
    until("the drain begins", || !world.broker.data_dir.join("endpoints.json").exists());
    let start = Instant::now();
    world.broker.process.terminate();
    assert_eq!(world.broker.process.ended().code(), Some(128 + 15));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn a_start_whose_output_cannot_be_written_stops_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (command, file) in [("dev", "endpoints.json"), ("sandbox", "sandbox.json")] {
        let data_dir = folder.path().join(command);
        let arguments = [command, "--free-ports", "--data-dir", data_dir.to_str().unwrap()];
        let output = Command::new(JETON).args(arguments).stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(data_dir.exists() && !data_dir.join(file).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_without_tcp_and_without_its_workload_is_described_as_it_is() {
    let mut world = World::start().await;
    assert!(world.broker.jeton(&["workload", "delete", "demo"]).status.success());
    assert!(world.broker.process.stop().success());
    world.restart(&["--set", "data.listen="]);
    assert_eq!(world.broker.endpoints["workloads"], serde_json::json!([]));
    assert!(world.broker.endpoints["grpc"].is_null());
    world.broker.process.says("ready: gRPC on /");
}

#[test]
fn a_listener_that_cannot_be_is_a_wrong_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("d".repeat(100));
    for (data_dir, set, words) in [
        (long.as_path(), "data.listen=127.0.0.1:0", "a socket's path at most 107"),
        (folder.path(), "data.listen=0.0.0.0:0", "not a loopback address"),
    ] {
        for free in [&["--free-ports"][..], &[]] {
            let arguments = ["dev", "--data-dir", data_dir.to_str().unwrap(), "--set", set];
            let output = Command::new(JETON).args(arguments).args(free).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(2) && error.contains(words), "{error}");
        }
    }
    assert_eq!(entries(folder.path()), 0);
}

#[test]
fn a_port_that_was_drawn_is_kept_whatever_other_starts_want() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sandbox");
    let mut first = Sandbox::start(&path);
    let url = first.text("/url").to_owned();
    assert!(first.process.stop().success());
    let spare = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let set = format!("sandbox.authority_listen={spare}");
    let arguments = [
        "sandbox",
        "--data-dir",
        path.to_str().unwrap(),
        "--set",
        &set,
        "--set",
        "sandbox.vault_listen=127.0.0.1:0",
    ];
    let mut other = Process::start(&arguments, &folder.path().join("other.log"));
    assert_eq!(
        other.announces(&path.join("sandbox.json"))["url"],
        format!("https://localhost:{}", spare.port())
    );
    assert!(other.stop().success());
    assert_eq!(Sandbox::start(&path).text("/url"), url);
}

#[test]
fn a_sandbox_that_is_gone_is_named_with_its_port() {
    let folder = tempfile::tempdir().unwrap();
    let mut sandbox = Sandbox::start(&folder.path().join("sandbox"));
    let port = sandbox.text("/url").rsplit(':').next().unwrap().to_owned();
    let description = fs::read(sandbox.folder.join("sandbox.json")).unwrap();
    assert!(sandbox.process.stop().success());
    // As one leaves it behind that was killed, under a number that another process has by now.
    let own = String::from_utf8(description).unwrap();
    let pid = sandbox.info["pid"].to_string();
    fs::write(sandbox.folder.join("sandbox.json"), own.replace(&pid, &std::process::id().to_string()))
        .unwrap();
    let mut broker = Broker::spawn(&folder.path().join("data"), Some(&sandbox), &[]);
    assert_eq!(broker.ended().code(), Some(1));
    let said = broker.log();
    assert!(
        said.contains(&format!("localhost:{port} cannot be reached")) && said.contains("does not answer"),
        "{said}"
    );
}
