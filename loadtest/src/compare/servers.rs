//! The servers that are compared, each a process of its own on the servers' processor.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rand::distr::weighted::WeightedIndex;

use super::{
    CompareArguments,
    collector::Collector,
    started::{begin, end},
};
use crate::{
    cpu,
    target::{Address, PATH, Target, TargetArguments},
};

/// What nghttpd is installed by.
const NGHTTPD_PACKAGE: &str = "nghttp2-server";
/// The data directory of the broker whose certificate all show.
const JETON: &str = "jeton";
/// How often a port is drawn for a server that cannot draw one itself.
const PORTS_TRIED: usize = 5;

/// A server that ends with this value.
pub(super) struct Server {
    /// For reports.
    pub(super) name: &'static str,
    pub(super) target: Target,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Starts a program on a processor.
pub(super) fn spawn(command: &mut Command, core: usize) -> anyhow::Result<Child> {
    // Children inherit the processors of the thread that starts them, and the limit of open files.
    cpu::pin(None, &[core])?;
    let child = begin(command.stdin(Stdio::null()));
    let all: Vec<_> =
        (0..std::thread::available_parallelism().map_or(1, usize::from).max(core + 1)).collect();
    cpu::pin(None, &all).or_else(|_| cpu::pin(None, &[core]))?;
    child
}

/// Where a program is that a package of the system brings along.
pub(super) fn installed(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers lie where not everybody looks.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is not installed; Debian's package is {package}"))
}

/// `jeton dev`, with tokens of the size that was asked for; its telemetry goes to the collector, or nowhere.
pub(super) fn broker(
    arguments: &CompareArguments,
    folder: &Path,
    collector: Option<&Collector>,
) -> anyhow::Result<Server> {
    let program = arguments.program()?;
    fs::create_dir_all(folder)?;
    let (name, data_dir) = match collector {
        None => ("jeton", folder.join(JETON)),
        Some(_) => ("jeton with telemetry", folder.join("jeton-told")),
    };
    let mut command = Command::new(program);
    match collector {
        None => command.env("OTEL_SDK_DISABLED", "true"),
        Some(collector) => command.env_remove("OTEL_SDK_DISABLED").envs(collector.variables()),
    };
    command.arg("dev").arg("--free-ports").arg("--data-dir").arg(&data_dir);
    command.arg("--set").arg(format!("sandbox.token_bytes={}", arguments.token_bytes));
    command.args(arguments.tls.then_some("--tls"));
    let log_file = data_dir.with_extension("log");
    let log = fs::File::create(&log_file)?;
    command.stdout(log.try_clone()?).stderr(log);
    let mut child = spawn(&mut command, arguments.server_core)?;
    let target = announced(&mut child, arguments, &data_dir, &log_file);
    match target {
        Ok(target) => Ok(Server { name, target, child }),
        Err(error) => {
            end(&mut child);
            Err(error)
        }
    }
}

fn announced(
    child: &mut Child,
    arguments: &CompareArguments,
    data_dir: &Path,
    log: &Path,
) -> anyhow::Result<Target> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !data_dir.join("endpoints.json").exists() {
        if let Some(status) = child.try_wait()? {
            bail!("jeton ended ({status}):\n{}", fs::read_to_string(log).unwrap_or_default());
        }
        ensure!(Instant::now() < deadline, "jeton does not start within 60 s");
        std::thread::sleep(Duration::from_millis(50));
    }
    let ca = arguments.tls.then(|| data_dir.join("grpc-ca.pem"));
    TargetArguments { ca, ..TargetArguments::of(data_dir.to_owned()) }.resolve()
}

/// Stock tonic, with tokens as large as jeton's.
pub(super) fn baseline(
    arguments: &CompareArguments,
    folder: &Path,
    jeton: &Target,
    token_bytes: usize,
) -> anyhow::Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["baseline", "--token-bytes"]).arg(token_bytes.to_string());
    for ask in &jeton.asks {
        command.args(["--identity", &ask.identity]);
    }
    command.args(["--scope", jeton.scopes.first().context("no scope")?]);
    if arguments.tls {
        let [cert, key] = certificate(folder);
        command.arg("--cert").arg(cert).arg("--key").arg(key);
    }
    command.stdout(Stdio::piped());
    let mut server = start("stock tonic", &mut command, arguments, jeton)?;
    let mut line = String::new();
    BufReader::new(server.child.stdout.take().context("its output")?).read_line(&mut line)?;
    ensure!(!line.is_empty(), "stock tonic does not start");
    server.target.address = Address::Tcp(line.trim().to_owned());
    // Its tokens are no JWTs; that each is of the identity asked for is checked all the same.
    server.target.asks.iter_mut().for_each(|ask| ask.client_id = None);
    Ok(server)
}

/// nghttpd, a server written in C++ over the C library nghttp2: one file with the bytes of jeton's answer, whatever is asked.
pub(super) fn floor(
    arguments: &CompareArguments,
    folder: &Path,
    jeton: &Target,
    answer: &[u8],
) -> anyhow::Result<Server> {
    let program = installed("nghttpd", NGHTTPD_PACKAGE)?;
    let root = folder.join("floor");
    let file = root.join(PATH.trim_start_matches('/'));
    fs::create_dir_all(file.parent().context("the call's path has a service")?)?;
    let length = u32::try_from(answer.len())?.to_be_bytes();
    fs::write(&file, [&[0], length.as_slice(), answer].concat())?;
    for _ in 0..PORTS_TRIED {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(&program);
        command.args(["--address", "127.0.0.1", "--trailer", "grpc-status: 0", "--workers", "1"]);
        command.args(["--max-concurrent-streams", "1000", "--htdocs"]).arg(&root);
        command.args((!arguments.tls).then_some("--no-tls")).arg(address.port().to_string());
        if arguments.tls {
            let [cert, key] = certificate(folder);
            command.arg(key).arg(cert);
        }
        let log = fs::File::create(folder.join("nghttpd.log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        let mut server = start("nghttpd", &mut command, arguments, jeton)?;
        if listens(&mut server.child, &address.to_string())? {
            server.target.address = Address::Tcp(address.to_string());
            // Its one file is the answer to the first question.
            server.target.asks.truncate(1);
            server.target.mix = WeightedIndex::new([1.0])?;
            return Ok(server);
        }
    }
    bail!("nghttpd does not start:\n{}", fs::read_to_string(folder.join("nghttpd.log")).unwrap_or_default())
}

/// Whether a server listens; false if it ended, or not within 10 s.
fn listens(child: &mut Child, address: &str) -> anyhow::Result<bool> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline && child.try_wait()?.is_none() {
        if TcpStream::connect(address).is_ok() {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

/// Another server for the same questions; where it listens is not yet known.
fn start(
    name: &'static str,
    command: &mut Command,
    arguments: &CompareArguments,
    jeton: &Target,
) -> anyhow::Result<Server> {
    let child = spawn(command, arguments.server_core)?;
    Ok(Server { name, target: Target { pid: Some(child.id()), ..jeton.clone() }, child })
}

/// The certificate and the key of jeton's listener, which all servers show.
fn certificate(folder: &Path) -> [PathBuf; 2] {
    ["grpc-server.pem", "grpc-server.key"].map(|name| folder.join(JETON).join(name))
}
