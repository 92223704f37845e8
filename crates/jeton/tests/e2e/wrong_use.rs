//! What people get wrong on the command line is told in words, with an exit code, and never with a panic.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    os::unix::ffi::OsStrExt,
    process::{Command, Stdio},
};

use crate::support::{JETON, Process, VAULT, World, ends_in_time};

fn failure(output: &std::process::Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_work_says_why_and_ends() {
    let world = World::start().await;
    let broker = &world.broker;
    for (identity, scope, code) in [("nobody", VAULT, 4), ("billing", "bare", 2)] {
        let watched = broker.jeton(&["token", "watch", "--identity", identity, "--scope", scope]);
        assert_eq!(watched.status.code(), Some(code), "{watched:?}");
    }
    let socket = |name: &str| broker.endpoints[name].as_str().unwrap().to_owned();
    let (admin, data) = (socket("admin_socket"), socket("grpc_socket"));
    for arguments in [
        ["token", "get", "--scope", VAULT, "--socket", &admin].as_slice(),
        ["identity", "list", "--admin-socket", &data].as_slice(),
    ] {
        let (code, error) = failure(&broker.jeton(arguments));
        assert!(code == Some(2) && error.contains("the broker's other plane"), "{error}");
    }
    let (code, error) = failure(&broker.jeton(&[
        "authority",
        "create",
        "x",
        "--kind",
        "oidc",
        "--url",
        "https://x.example",
        "--ca-file",
        "/nonexistent.pem",
    ]));
    assert!(code == Some(2) && error.contains("/nonexistent.pem cannot be read"), "{error}");
    let file = world.folder().join("batch.json");
    fs::write(&file, "{").unwrap();
    let (code, error) = failure(&broker.jeton(&["token", "batch", "-f", file.to_str().unwrap()]));
    assert!(code == Some(2) && error.contains("no JSON list"), "{error}");
    let large = "x".repeat(8 * 1024 * 1024);
    fs::write(&file, format!("[{{\"claims\":\"{large}\"}}]")).unwrap();
    let (code, error) = failure(&broker.jeton(&["token", "batch", "-f", file.to_str().unwrap()]));
    assert!(code == Some(2) && error.contains("ask for less at once"), "{error}");
    let create = |name: &str, timeout: &str| {
        failure(&broker.jeton(&["identity", "create", name, "--authority", "entra", "--timeout", timeout]))
    };
    assert_eq!(create("patient", &u64::MAX.to_string()).0, Some(0));
    let (code, error) = create("impatient", "0");
    assert!(code == Some(7) && error.contains("still at work"), "{error}");
    let deleted = broker.jeton(&["identity", "delete", "patient"]);
    assert!(
        deleted.status.success() && deleted.stdout.is_empty(),
        "nothing is left to be shown: {deleted:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_its_reader_and_with_its_broker() {
    let mut world = World::start().await;
    let data_dir = world.broker.data_dir.to_str().unwrap().to_owned();
    let watch = ["token", "watch", "--identity", "billing", "--scope", VAULT, "--data-dir", &data_dir];
    let mut child = Command::new(JETON).args(watch).stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    drop(reader);
    assert!(ends_in_time(&mut child).success());
    let log = world.folder().join("watch.log");
    let mut watching = Process::start(&watch, &log);
    watching.says("access_token");
    world.broker.process.kill();
    assert_eq!(watching.ended().code(), Some(3), "{}", watching.log());
    assert!(watching.log().contains("the connection to the broker broke off"), "{}", watching.log());
}

#[test]
fn wrong_arguments_a_strange_environment_and_full_streams_are_no_reason_to_panic() {
    let folder = tempfile::tempdir().unwrap();
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let jeton = |arguments: &[&str]| {
        let mut command = Command::new(JETON);
        command.args(arguments).current_dir(folder.path());
        command
    };
    let strange = OsStr::from_bytes(b"\xff");
    let (code, error) = failure(&jeton(&["check-config"]).env("FOO", strange).output().unwrap());
    assert!(code == Some(2) && error.contains("sealing.key_file"), "{error}");
    let (code, error) = failure(&jeton(&["completions", "bash"]).stdout(full()).output().unwrap());
    assert!(code == Some(1) && error.contains("No space left"), "{error}");
    let attach = ["identity", "attach", "x", "--authority", "entra", "--client-id", "1"];
    let (code, error) = failure(&jeton(&attach).output().unwrap());
    assert!(code == Some(2) && error.contains("--certificate <FILE>|--secret-file <FILE>"), "{error}");
    assert_eq!(jeton(&["token", "list"]).stderr(full()).output().unwrap().status.code(), Some(3));
}
