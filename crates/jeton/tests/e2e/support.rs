//! Processes, and what is asked of them.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use http::Method;
use hyper_util::rt::TokioIo;
use jeton_authority::{Http, bounds, trust};
use jeton_core::profile::AuthorityLimits;
use jeton_proto::v1::{
    self, access_service_client::AccessServiceClient, identity_service_client::IdentityServiceClient,
    token_service_client::TokenServiceClient,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

pub(crate) const JETON: &str = env!("CARGO_BIN_EXE_jeton");
pub(crate) const VAULT: &str = "https://vault.example/.default";
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that is killed when the test is over, however it ends.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(arguments: &[&str], log: &Path) -> Self {
        Self::after(":", arguments, log)
    }

    /// After something that a shell does.
    pub(crate) fn after(first: &str, arguments: &[&str], log: &Path) -> Self {
        Self::with_input(Stdio::null(), first, arguments, log)
    }

    /// With something open as its standard input, which the shell may put elsewhere.
    pub(crate) fn with_input(input: Stdio, first: &str, arguments: &[&str], log: &Path) -> Self {
        let file = File::create(log).unwrap();
        // With the signal ignored, a file that may not grow is an error, as on a full disk.
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' XFSZ; {first}; exec \"$0\" \"$@\""), JETON]);
        command.args(arguments).stdin(input).stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log: log.to_owned() }
    }

    /// Of a command that is ready but for its output.
    pub(crate) fn of(command: &mut Command, log: &Path) -> Self {
        let file = File::create(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn();
        Self { child: child.unwrap(), log: log.to_owned() }
    }

    /// Waits for the JSON file by which a process says that it is there.
    pub(crate) fn announces(&mut self, file: &Path) -> Value {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(value) =
                fs::read(file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok())
                && value["pid"] == self.child.id()
            {
                return value;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "it ended:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{} did not appear:\n{}", file.display(), self.log());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it may write to files; if not, its disk is as good as full.
    pub(crate) fn may_write(&self, may: bool) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        let (current, maximum) = (if may { None } else { Some(0) }, None);
        prlimit(Some(pid), Resource::Fsize, Rlimit { current, maximum }).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop, as a supervisor does; how it ended.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        self.terminate();
        self.ended()
    }

    pub(crate) fn terminate(&self) {
        terminate(&self.child);
    }

    pub(crate) fn hang_up(&self) {
        kill_process(Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap(), Signal::HUP).unwrap();
    }

    /// Lets it do nothing until it is told to go on.
    pub(crate) fn pause(&self, paused: bool) {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap(), signal).unwrap();
    }

    pub(crate) fn ended(&mut self) -> std::process::ExitStatus {
        ends_in_time(&mut self.child)
    }

    /// Waits for words that it prints.
    pub(crate) fn says(&mut self, words: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.log().contains(words) {
            assert!(Instant::now() < end, "{words} in {}", self.log());
            assert!(self.child.try_wait().unwrap().is_none(), "it ended:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) fn sealing_key(path: &Path) {
    fs::write(path, [7_u8; 32]).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn terminate(child: &Child) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
}

/// Waits for what must come to hold.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How a process ends that must.
pub(crate) fn ends_in_time(child: &mut Child) -> std::process::ExitStatus {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    panic!("process {} does not end", child.id());
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The sandbox as a process of its own.
pub(crate) struct Sandbox {
    pub(crate) process: Process,
    pub(crate) info: Value,
    pub(crate) folder: PathBuf,
    http: Http,
}

impl Sandbox {
    pub(crate) fn start(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let path = folder.to_str().unwrap();
        let mut process =
            Process::start(&["sandbox", "--free-ports", "--data-dir", path], &folder.join("log.txt"));
        let info = process.announces(&folder.join("sandbox.json"));
        let http = client(&info["ca_file"]);
        Self { process, info, folder: folder.to_owned(), http }
    }

    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.info.pointer(pointer).and_then(Value::as_str).unwrap()
    }

    pub(crate) async fn settings(&self, settings: Value) {
        let url = format!("{}/sandbox/settings", self.text("/url"));
        let answer = self.http.json(Method::PUT, &url, &[], &settings).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.json);
    }

    pub(crate) async fn stats(&self) -> Value {
        self.http.read(&format!("{}/sandbox/stats", self.text("/url")), None).await.unwrap().json.clone()
    }

    /// The counts in all, without the clients.
    pub(crate) async fn totals(&self) -> Value {
        self.http.read(&format!("{}/sandbox/totals", self.text("/url")), None).await.unwrap().json.clone()
    }

    /// Requests of one client for one scope.
    pub(crate) async fn requests(&self, client_id: &str, scope: &str) -> u64 {
        self.stats().await["by_client"][client_id]["by_scope"][scope].as_u64().unwrap_or(0)
    }

    /// The directory, as its administrator.
    pub(crate) async fn graph(&self, method: Method, path: &str, body: Value) -> Value {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", self.text("/administrator/client_id")),
            ("client_secret", self.text("/administrator/client_secret")),
            ("scope", self.text("/entra/graph_scope")),
        ];
        let token = self.http.form(self.text("/entra/token_endpoint"), &[], &form).await.unwrap();
        let headers = [("authorization", format!("Bearer {}", token.text("access_token")))];
        let url = format!("{}{path}", self.text("/entra/graph"));
        let answer = self.http.json(method, &url, &headers, &body).await.unwrap();
        assert!(answer.is_success(), "{path}: {} {}", answer.status, answer.json);
        answer.json.clone()
    }

    /// Registers a client at the OIDC-shaped tenant.
    pub(crate) async fn register(&self, metadata: Value) -> Value {
        let headers = [("authorization", format!("Bearer {}", self.text("/initial_access_token")))];
        let url = self.text("/oidc/registration_endpoint").to_owned();
        let answer = self.http.json(Method::POST, &url, &headers, &metadata).await.unwrap();
        assert!(answer.is_success(), "{}", answer.json);
        answer.json.clone()
    }

    /// Reads the demo secret: the vault's status.
    pub(crate) async fn vault(&self, token: Option<&str>) -> u16 {
        let url =
            format!("{}/secrets/{}?api-version=7.4", self.text("/vault/url"), self.text("/vault/secret"));
        self.http.read(&url, token).await.unwrap().status
    }
}

pub(crate) fn client(ca_file: &Value) -> Http {
    Http::new(trust(ca_file.as_str()).unwrap(), bounds(&AuthorityLimits::default()))
}

/// `jeton dev` with a sandbox that outlives it.
pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) sandbox: Sandbox,
    folder: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(&[], json!({})).await
    }

    /// With more arguments, and the sandbox told something beforehand.
    pub(crate) async fn with(arguments: &[&str], settings: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::start(&folder.path().join("sandbox"));
        if settings != json!({}) {
            sandbox.settings(settings).await;
        }
        let broker = Broker::start(&folder.path().join("data"), Some(&sandbox), arguments);
        Self { broker, sandbox, folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn restart(&mut self, arguments: &[&str]) {
        self.broker = Broker::start(&self.folder.path().join("data"), Some(&self.sandbox), arguments);
    }
}

/// `jeton dev`
pub(crate) struct Broker {
    pub(crate) process: Process,
    pub(crate) endpoints: Value,
    pub(crate) data_dir: PathBuf,
}

impl Broker {
    pub(crate) fn start(data_dir: &Path, sandbox: Option<&Sandbox>, arguments: &[&str]) -> Self {
        Self::announced(Self::spawn(data_dir, sandbox, arguments), data_dir)
    }

    /// One that was started already.
    pub(crate) fn announced(mut process: Process, data_dir: &Path) -> Self {
        let endpoints = process.announces(&data_dir.join("endpoints.json"));
        Self { process, endpoints, data_dir: data_dir.to_owned() }
    }

    pub(crate) fn spawn(data_dir: &Path, sandbox: Option<&Sandbox>, arguments: &[&str]) -> Process {
        let mut all = vec!["dev", "--free-ports", "--data-dir", data_dir.to_str().unwrap()];
        if let Some(sandbox) = sandbox {
            all.extend(["--sandbox", sandbox.folder.to_str().unwrap()]);
        }
        all.extend(arguments);
        let log = data_dir.with_extension("log");
        Process::start(&all, &log)
    }

    pub(crate) fn client_id(&self, identity: &str) -> String {
        let all = self.endpoints["identities"].as_array().unwrap();
        all.iter().find(|i| i["name"] == identity).unwrap()["client_id"].as_str().unwrap().to_owned()
    }

    /// The command line, told where the broker is.
    pub(crate) fn jeton(&self, arguments: &[&str]) -> Output {
        let data_dir = self.data_dir.to_str().unwrap();
        Command::new(JETON).args(arguments).args(["--data-dir", data_dir]).output().unwrap()
    }

    /// What a command printed, as JSON; it must have worked.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.jeton(&[arguments, &["-o", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) async fn tcp(&self) -> Channel {
        let address = self.endpoints["grpc"].as_str().unwrap();
        Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn unix(&self, member: &str) -> Channel {
        let path = self.endpoints[member].as_str().unwrap().to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
    }

    /// The data plane by TCP: `loopback://dev`.
    pub(crate) async fn tokens(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.tcp().await)
    }

    /// The data plane by the unix socket: the local user.
    pub(crate) async fn local_tokens(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.unix("grpc_socket").await)
    }

    pub(crate) async fn identities(&self) -> IdentityServiceClient<Channel> {
        IdentityServiceClient::new(self.unix("admin_socket").await)
    }

    pub(crate) async fn access(&self) -> AccessServiceClient<Channel> {
        AccessServiceClient::new(self.unix("admin_socket").await)
    }
}

pub(crate) fn request(identity: &str, scope: &str) -> v1::GetTokenRequest {
    v1::GetTokenRequest { identity: identity.into(), scopes: vec![scope.into()], ..Default::default() }
}

pub(crate) async fn token(
    client: &mut TokenServiceClient<Channel>,
    identity: &str,
    scope: &str,
) -> Result<v1::Token, Status> {
    let response = client.get_token(request(identity, scope)).await?.into_inner();
    Ok(response.token.unwrap())
}

/// The claims of a JWT; nothing is verified.
pub(crate) fn claims(token: &str) -> Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let body = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// Seconds of life that a token has left.
pub(crate) fn left(token: &v1::Token) -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let at = token.expires_at.unwrap();
    at.seconds as f64 + f64::from(at.nanos) / 1e9 - now
}

/// What a refusal carries: reason and metadata.
pub(crate) fn reason(status: &Status) -> String {
    use tonic_types::StatusExt;
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
