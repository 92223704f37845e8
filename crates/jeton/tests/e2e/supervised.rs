//! Under a supervisor: what it is told, sockets that it hands over, and the configuration that is read again.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener},
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use jeton_proto::v1::token_service_client::TokenServiceClient;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::{Code, transport::Endpoint};

use crate::support::{JETON, Process, request, sealing_key};

/// A folder with what `serve` needs.
struct Place {
    folder: TempDir,
    config: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        sealing_key(&folder.path().join("sealing.key"));
        let place = Self { config: folder.path().join("jeton.toml"), folder };
        place.configure("");
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, more: &str) {
        let (data_dir, key, socket) = (self.at("data"), self.at("sealing.key"), self.at("data.sock"));
        let text = format!(
            "data_dir = {data_dir:?}\nsealing.key_file = {key:?}\ndata.socket = {socket:?}\n{more}\n"
        );
        fs::write(&self.config, text).unwrap();
    }

    fn arguments(&self) -> [&str; 3] {
        ["serve", "--config", self.config.to_str().unwrap()]
    }

    /// `jeton status`: its exit code, and what is wrong.
    fn status(&self, more: &[&str]) -> (Option<i32>, String) {
        let data_dir = self.at("data");
        let arguments = ["status", "-o", "json", "--data-dir", data_dir.to_str().unwrap()];
        let output = Command::new(JETON).args(arguments).args(more).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), status.to_string())
    }

    fn supervisor(&self) -> UnixDatagram {
        let supervisor = UnixDatagram::bind(self.at("notify")).unwrap();
        supervisor.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        supervisor
    }

    /// Starts it with a socket at its third descriptor, under these names.
    fn hand_over(&self, socket: &UnixListener, names: &str) -> Process {
        let input = OwnedFd::from(socket.try_clone().unwrap()).into();
        let first = format!("export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={names}; exec 3<&0 </dev/null");
        Process::with_input(input, &first, &self.arguments(), &self.at("log"))
    }
}

fn heard(supervisor: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let length = supervisor.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

async fn asked(socket: &Path) -> Code {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
    let mut tokens = TokenServiceClient::new(channel);
    let answer = tokens.get_token(request("identities/a", "https://a.example/.default")).await;
    answer.unwrap_err().code()
}

#[test]
fn a_configuration_that_changes_counts_where_it_can_names_what_waits_and_changes_nothing_when_it_is_wrong() {
    let place = Place::new();
    let supervisor = place.supervisor();
    let first = format!("export NOTIFY_SOCKET={}", place.at("notify").display());
    let mut process = Process::after(&first, &place.arguments(), &place.at("log"));
    assert_eq!(heard(&supervisor), "READY=1\nSTATUS=Serving\n");
    let reloaded = |says: &str| {
        let reloading = heard(&supervisor);
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(heard(&supervisor), format!("READY=1\nSTATUS={says}\n"));
    };

    process.hang_up();
    reloaded("Serving");

    // A file that changes needs no signal.
    place.configure("log.filter = \"trace\"\ndoor.max_age_ms = 60000");
    reloaded("Serving; after a restart counts door.max_age_ms");
    process.says(r#""applied":"log.filter","waiting":"door.max_age_ms""#);
    assert_eq!(place.status(&[]).0, Some(0));
    process.says(r#""level":"TRACE""#);

    place.configure("door.max_age = 60000");
    reloaded("Serving; the configuration was changed and is not valid");
    process.says("unknown key door.max_age;");
    let (code, status) = place.status(&[]);
    assert!(code == Some(1) && status.contains("unknown key door.max_age;"), "{status}");
    assert_eq!(place.status(&["--alive"]).0, Some(0), "a probe does not end it for that");

    place.configure("");
    reloaded("Serving");
    assert_eq!(place.status(&[]).0, Some(0));
    process.terminate();
    assert_eq!(heard(&supervisor), "STOPPING=1\nSTATUS=Draining\n");
    assert!(process.ended().success());
}

#[test]
fn a_supervisor_that_wants_to_hear_of_life_does() {
    let place = Place::new();
    let supervisor = place.supervisor();
    let first = format!("export WATCHDOG_USEC=20000 NOTIFY_SOCKET={}", place.at("notify").display());
    let mut process = Process::after(&first, &place.arguments(), &place.at("log"));
    assert_eq!(heard(&supervisor), "READY=1\nSTATUS=Serving\n");
    for _ in 0..3 {
        assert_eq!(heard(&supervisor), "WATCHDOG=1\n");
    }
    process.terminate();
    while heard(&supervisor) != "STOPPING=1\nSTATUS=Draining\n" {}
    assert!(process.ended().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_handed_over_is_served_and_outlives_the_broker() {
    let place = Place::new();
    let path = place.at("data.sock");
    let socket = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        // Who comes before anybody serves waits.
        let early = tokio::spawn({
            let path = path.clone();
            async move { asked(&path).await }
        });
        let mut process = place.hand_over(&socket, "data");
        assert_eq!(early.await.unwrap(), Code::PermissionDenied);
        let endpoints = process.announces(&place.at("data/endpoints.json"));
        assert_eq!(endpoints["grpc_socket"], path.to_str().unwrap());
        assert!(process.stop().success());
        assert!(path.exists(), "its file belongs to whoever made it");
    }
}

#[test]
fn a_socket_that_no_door_takes_or_that_is_elsewhere_ends_the_start() {
    let place = Place::new();
    let socket = UnixListener::bind(place.at("other.sock")).unwrap();
    for (names, words) in [
        ("jeton.socket", "handed over as jeton.socket; known names are data, data-tls"),
        ("data-tls", "handed over as data-tls"),
        ("data", "make them the same"),
    ] {
        let mut process = place.hand_over(&socket, names);
        assert_eq!(process.ended().code(), Some(2));
        assert!(process.log().contains(words), "{}", process.log());
    }
}
