//! The program against a broker, `jeton dev --mtls`, which must be built beside it (`cargo test --workspace` builds both).
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");

/// A broker that lets in whom a certificate names.
struct Broker {
    process: Child,
    folder: tempfile::TempDir,
}

impl Broker {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(Path::new(PROGRAM).with_file_name("jeton"));
        command.args(["dev", "--mtls", "--free-ports", "--data-dir"]).arg(folder.path().join("data"));
        command.env("OTEL_SDK_DISABLED", "true").stdout(log.try_clone().unwrap()).stderr(log);
        let mut broker = Self { process: command.spawn().unwrap(), folder };
        let start = Instant::now();
        while !broker.file("endpoints.json").exists() {
            let ended = broker.process.try_wait().unwrap();
            let log = || fs::read_to_string(broker.folder.path().join("log")).unwrap();
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "{ended:?} {}", log());
            thread::sleep(Duration::from_millis(20));
        }
        broker
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    /// Load of two connections that show these certificates.
    fn load(&self, certificates: &[&[PathBuf; 2]]) -> (Output, Option<Value>) {
        let json = self.folder.path().join("r.json");
        let mut command = Command::new(PROGRAM);
        command.args([
            "run",
            "--connections",
            "2",
            "--rate",
            "100",
            "--warmup",
            "0.2",
            "--seconds",
            "1",
            "--quiet",
        ]);
        command.arg("--data-dir").arg(self.folder.path().join("data"));
        command.arg("--ca").arg(self.file("grpc-ca.pem")).arg("--json").arg(&json);
        for [cert, key] in certificates {
            command.arg("--cert").arg(cert).arg("--key").arg(key);
        }
        let output = command.output().unwrap();
        let report =
            fs::read(&json).ok().map(|text| serde_json::from_slice::<Vec<Value>>(&text).unwrap().remove(0));
        // The next run has none if it writes none.
        let _ = fs::remove_file(&json);
        (output, report)
    }

    /// The certificates that `dev` made, and their keys: of the demo workload, and of one that nobody gave anything.
    fn made(&self) -> [[PathBuf; 2]; 2] {
        let endpoints: Value =
            serde_json::from_slice(&fs::read(self.file("endpoints.json")).unwrap()).unwrap();
        [true, false].map(|allowed| {
            let clients = endpoints["grpc_tls"]["clients"].as_array().unwrap();
            let client = clients.iter().find(|client| client["allowed"] == allowed).unwrap();
            ["cert_file", "key_file"].map(|file| client[file].as_str().unwrap().into())
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
#[ignore = "needs jeton; .ci/run has it"]
fn each_connection_shows_its_client_certificate_and_has_what_its_caller_may_have() {
    let broker = Broker::start();
    let [demo, stranger] = broker.made();
    let (output, report) = broker.load(&[&demo]);
    let report = report.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert!(output.status.success() && report["errors"] == json!({}), "{report}");
    assert_eq!(report["answered"], 100, "{report}");
    // The broker knows the stranger's name, and that it may have nothing.
    let (output, report) = broker.load(&[&stranger]);
    let report = report.unwrap();
    let denied = "grpc-status 7 (PERMISSION_DENIED)";
    assert!(!output.status.success() && report["errors"] == json!({denied: 100}), "{report}");
    assert!(report["errors_said"][denied].as_str().unwrap().contains("access denied"), "{report}");
    let (_, report) = broker.load(&[&demo, &stranger]);
    let report = report.unwrap();
    assert_eq!((&report["answered"], &report["errors"]), (&50.into(), &json!({denied: 50})), "{report}");
}

#[test]
#[ignore = "needs jeton; .ci/run has it"]
fn who_shows_a_certificate_that_the_broker_does_not_trust_or_none_is_told_so() {
    let broker = Broker::start();
    let [cert, key] = ["own.pem", "own.key"].map(|name| broker.folder.path().join(name));
    let made = rcgen::generate_simple_self_signed(["demo".to_owned()]).unwrap();
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    for certificates in [&[&[cert, key]][..], &[]] {
        let (output, report) = broker.load(certificates);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && report.is_none(), "{said}");
        assert!(said.contains("give one that it trusts: --cert and --key"), "{certificates:?}: {said}");
    }
}
