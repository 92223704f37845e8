//! `jeton serve`, `jeton check-config`, and starts that must not be.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use crate::support::{JETON, Process, World, ends_in_time, sealing_key, terminate, until};

fn failure(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(JETON).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_runs_without_a_sandbox_and_stops_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, key, config) =
        (folder.path().join("data"), folder.path().join("sealing.key"), folder.path().join("jeton.toml"));
    sealing_key(&key);
    fs::write(&config, format!("data_dir = {data_dir:?}\n[sealing]\nkey_file = {key:?}\n")).unwrap();
    let mut process =
        Process::start(&["serve", "--config", config.to_str().unwrap()], &folder.path().join("log"));
    let endpoints = process.announces(&data_dir.join("endpoints.json"));
    assert!(endpoints["grpc"].is_null(), "no TCP without authentication");
    assert!(endpoints["metrics"].is_null(), "nobody asked for it");
    let status =
        Command::new(JETON).args(["status", "--data-dir", data_dir.to_str().unwrap()]).output().unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let mode = fs::metadata(data_dir.join("admin.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(process.stop().success());
    assert!(!data_dir.join("endpoints.json").exists() && !data_dir.join("admin.sock").exists());
}

#[test]
fn a_log_that_cannot_be_written_stops_nobody() {
    serves_with(fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into());
}

#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    // As much as a pipe holds (pipe(7)): each further write waits for a reader.
    const ROOM: usize = 64 * 1_024;
    let (unread, mut full) = std::io::pipe().unwrap();
    full.write_all(&[b'.'; ROOM]).unwrap();
    serves_with(full.into());
    drop(unread);
}

/// A broker with this as its standard error starts, answers, and ends when it is told to.
fn serves_with(stderr: Stdio) {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, key) = (folder.path().join("data"), folder.path().join("sealing.key"));
    sealing_key(&key);
    let set = format!("sealing.key_file={}", key.display());
    let mut child = Command::new(JETON)
        .args(["serve", "--data-dir", data_dir.to_str().unwrap(), "--set", &set])
        .args(["--set", "log.filter=debug"])
        .stderr(stderr)
        .spawn()
        .unwrap();
    until("it listens", || data_dir.join("endpoints.json").exists());
    let status = Command::new(JETON).args(["status", "--data-dir", data_dir.to_str().unwrap()]).output();
    assert!(status.unwrap().status.success());
    terminate(&child);
    assert!(ends_in_time(&mut child).success());
}

#[test]
fn serve_takes_no_sealing_key_inside_of_its_data_directory_and_no_tcp_listener() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    fs::create_dir(&data_dir).unwrap();
    sealing_key(&data_dir.join("sealing.key"));
    let (dir, key) =
        (data_dir.to_str().unwrap(), format!("sealing.key_file={}", data_dir.join("sealing.key").display()));
    let (code, error) = failure(&["serve", "--data-dir", dir, "--set", &key]);
    assert_eq!(code, Some(2));
    assert!(error.contains("inside of the data directory") && error.contains("move it out"), "{error}");
    let (code, error) =
        failure(&["serve", "--data-dir", dir, "--set", &key, "--set", "data.listen=127.0.0.1:0"]);
    assert!(code == Some(2) && error.contains("no TCP listener without authentication"), "{error}");
    let (code, error) = failure(&["serve", "--data-dir", dir]);
    assert!(code == Some(2) && error.contains("sealing.key_file"), "{error}");
}

#[test]
fn a_network_listener_that_would_authenticate_nobody_is_refused_with_all_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("sealing.key");
    sealing_key(&key);
    let set = format!("sealing.key_file={}", key.display());
    let with = |more: &[&str]| failure(&[&["check-config", "--set", &set], more].concat());
    let listen = ["--set", "data.tls_listen=0.0.0.0:7412"];
    let (code, error) = with(&listen);
    assert!(code == Some(2) && error.contains("whose client certificates let in"), "{error}");
    let files =
        ["--set", "data.tls.cert_file=/nonexistent.pem", "--set", "data.tls.key_file=/nonexistent.key"];
    let (_, error) = with(&files);
    assert!(error.contains("1 error(s)") && error.contains("without an address"), "{error}");
    let (_, error) = with(&[&listen[..], &files].concat());
    for part in ["2 error(s)", "data.tls.client_trust: say whose", "/nonexistent.pem cannot be read"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    let trust = "data.tls.client_trust=[{ name = \"a\", bundle_file = \"/nonexistent.pem\", trust_domain = \"Prod\" }]";
    let (_, error) = with(&[&listen[..], &files, &["--set", trust]].concat());
    assert!(error.contains("1 error(s)") && error.contains("\"Prod\" is not a trust domain"), "{error}");
}

#[test]
fn check_config_reports_every_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("jeton.toml");
    fs::write(&config, "[engine]\nmax_entrys = 5\ntick_ms = 1\n\n[door]\nmax_age_ms = \"soon\"\n").unwrap();
    let (code, error) =
        failure(&["check-config", "--config", config.to_str().unwrap(), "--set", "keys.max_queued=0"]);
    assert_eq!(code, Some(2));
    for part in [
        "5 error(s)",
        ":2: unknown key engine.max_entrys",
        ":3: engine.tick_ms",
        ":6: door.max_age_ms",
        "--set: keys.max_queued",
        "not given: sealing.key_file",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    // What only `serve` asks for comes together with the rest, and the sealing key is looked at.
    let key = folder.path().join("sealing.key");
    let set = format!("sealing.key_file={}", key.display());
    let check = ["check-config", "--set", &set];
    let with = |more: &[&str]| failure(&[&check, more].concat());
    let (code, error) = with(&["--set", "data.listen=127.0.0.1:0", "--set", "engine.tick_ms=1"]);
    assert_eq!(code, Some(2));
    for part in ["3 error(s)", "--set: engine.tick_ms", "--set: data.listen", "--set: sealing.key_file"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    fs::write(&key, [7_u8; 5]).unwrap();
    assert!(with(&[]).1.contains("sealing.key_file"), "it has another length");
    sealing_key(&key);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(with(&[]).1.contains("sealing.key_file"), "others may read it");
    sealing_key(&key);
    assert_eq!(with(&[]).0, Some(0));
    assert!(with(&["--data-dir", folder.path().to_str().unwrap()]).1.contains("move it out"));
    fs::write(&config, "[engine\n").unwrap();
    assert!(
        failure(&["check-config", "--config", config.to_str().unwrap()])
            .1
            .contains("jeton.toml:1: not valid TOML")
    );
    assert!(failure(&["check-config", "--config", "/nonexistent.toml"]).1.contains("cannot be read"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_dev_on_one_directory_a_taken_port_and_another_sealing_key_are_told_apart() {
    let mut world = World::start().await;
    let (dir, sandbox) = (world.broker.data_dir.clone(), world.sandbox.folder.clone());
    let (dir, sandbox) = (dir.to_str().unwrap(), sandbox.to_str().unwrap());
    let (_, error) = failure(&["dev", "--free-ports", "--data-dir", dir, "--sandbox", sandbox]);
    assert!(error.contains("is in use by process") && error.contains("--data-dir"), "{error}");
    let other = world.folder().join("other");
    let taken = format!("data.listen={}", world.broker.endpoints["grpc"].as_str().unwrap());
    let (_, error) =
        failure(&["dev", "--data-dir", other.to_str().unwrap(), "--sandbox", sandbox, "--set", &taken]);
    assert!(error.contains("cannot listen on 127.0.0.1:") && error.contains("stop the program"), "{error}");
    assert!(world.broker.process.stop().success());
    fs::write(world.broker.data_dir.join("sealing.key"), [9_u8; 32]).unwrap();
    let (_, error) = failure(&["dev", "--free-ports", "--data-dir", dir, "--sandbox", sandbox]);
    assert!(error.contains("sealing key does not fit"), "{error}");
    fs::remove_file(world.broker.data_dir.join("sealing.key")).unwrap();
    let (_, error) = failure(&["dev", "--free-ports", "--data-dir", dir, "--sandbox", sandbox]);
    assert!(error.contains("sealing.key"), "{error}");
}

#[test]
fn an_ephemeral_broker_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut child = Command::new(JETON)
        .args(["dev", "--ephemeral", "--free-ports"])
        .env("TMPDIR", &temporary)
        .stdout(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    until("it is ready", || fs::read_to_string(&log).unwrap().contains("ready: gRPC on"));
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 1);
    terminate(&child);
    assert!(ends_in_time(&mut child).success());
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}
