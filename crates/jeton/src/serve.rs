//! `jeton serve` and `jeton check-config`.

use std::path::Path;

use anyhow::Context;
use jeton_core::Problem;
use jeton_server::door::{Certificates, Listen, Listener};
use jeton_store::SealingKey;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Doors, Places, Running, Secured},
    config::{Faults, Settings, Sources},
    data_dir::DataDir,
    endpoints::{DevEndpoints, Endpoints, GrpcTls},
    output, stop,
};

/// The section of the network listener.
const TLS: &str = "data.tls";

/// `jeton serve`
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    sources: Sources,
}

/// `jeton check-config`
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    sources: Sources,
}

/// Runs the broker until it is told to stop.
pub(crate) async fn run(arguments: ServeArguments) -> anyhow::Result<()> {
    let stop = stop::on_signal()?;
    let settings = load(&arguments.sources)?;
    settings.log.start();
    let data_dir = DataDir::open(Path::new(&settings.data_dir))?;
    let sealing = sealing_key(&settings).map_err(Faults::from)?;
    let doors = doors(&settings).await?;
    let tls = doors.secured.as_ref().and_then(|secured| secured.listener.tcp_address());
    let mut running = Running::start(&settings, &data_dir, sealing).await?;
    let places = running.places(&data_dir);
    let mut opened = running.open(&places, doors).await;
    if opened.is_ok() {
        let grpc_tls =
            tls.map(|address| GrpcTls { address: address.to_string(), ca_file: None, clients: vec![] });
        opened = announce(&data_dir, &places, None, grpc_tls, None);
        let tls = tls.map(tracing::field::display);
        tracing::info!(tls, data = %places.data_socket.display(), admin = %places.admin_socket.display(), "serving");
    }
    until_stopped(running, &data_dir, opened, &stop).await
}

/// Says everything that is wrong with a configuration.
pub(crate) fn check(arguments: &CheckArguments) -> anyhow::Result<()> {
    let settings = load(&arguments.sources)?;
    output::text(&format!("the configuration is valid; data directory {}\n", settings.data_dir))
}

fn load(sources: &Sources) -> Result<Settings, Faults> {
    sources.load(&Settings::default(), |settings| {
        let mut problems = settings.sockets_that_do_not_fit();
        problems.extend(network(settings));
        problems.extend(sealing_key(settings).err());
        problems
    })
}

/// Over the network comes only who says who it is.
fn network(settings: &Settings) -> Vec<Problem> {
    let (data, mut problems) = (&settings.data, vec![]);
    if !data.listen.is_empty() {
        let text = "`serve` opens no TCP listener without authentication: use data.tls_listen with [data.tls], or the unix socket (data.socket)";
        problems.push(Problem::new("data.listen", text));
    }
    match (data.tls_listen.is_empty(), data.tls.is_given()) {
        (false, false) => {
            let text = "`serve` opens no TCP listener without authentication: say in [data.tls] which certificate to show and whose client certificates let in";
            problems.push(Problem::new("data.tls_listen", text));
        }
        (true, true) => {
            let text = "[data.tls] is of no use without an address such as 0.0.0.0:7412";
            problems.push(Problem::new("data.tls_listen", text));
        }
        // The shape is checked with the other settings; here it is what the files hold.
        (false, true) if data.tls.validate().is_empty() => {
            problems.extend(authenticated(settings));
            let read = Certificates::load(TLS, &data.tls).err().into_iter().flatten();
            problems.extend(read.map(|problem| problem.within(TLS)));
        }
        _ => {}
    }
    problems
}

fn authenticated(settings: &Settings) -> Option<Problem> {
    let tls = &settings.data.tls;
    if tls.bearer && settings.access.issuers.is_empty() {
        let text = "says that callers may show tokens: say whose in [[access.issuers]], or set it to false";
        return Some(Problem::new("data.tls.bearer", text));
    }
    let text = "say whose client certificates let in: `serve` opens no TCP listener without authentication";
    (!tls.authenticates()).then(|| Problem::new("data.tls.client_trust", text))
}

/// The network listener, before anything is started: a port that is taken is the first thing to hear of.
async fn doors(settings: &Settings) -> anyhow::Result<Doors> {
    let Some(address) = settings.data.tls_address() else { return Ok(Doors::default()) };
    let listener = Listener::bind(&Listen::Tcp(address)).await.context("data.tls_listen")?;
    let certificates = Certificates::load(TLS, &settings.data.tls)
        .map_err(|problems| anyhow::anyhow!("the files of [data.tls] have changed: {problems:?}"))?;
    Ok(Doors { plain: None, secured: Some(Secured { listener, certificates, authenticate: None, bearer: settings.data.tls.bearer }) })
}

fn sealing_key(settings: &Settings) -> Result<SealingKey, Problem> {
    let wrong = |text: String| Problem::new("sealing.key_file", text);
    if settings.sealing.key_file.is_empty() {
        return Err(wrong("name the file of the sealing key, outside of the data directory; `(umask 077; head -c 32 /dev/urandom > FILE)` makes one".into()));
    }
    let path = Path::new(&settings.sealing.key_file);
    let real = path.canonicalize().map_err(|e| wrong(format!("{} cannot be read: {e}", path.display())))?;
    // In there it would be in every copy of what it seals.
    let inside = Path::new(&settings.data_dir).canonicalize().is_ok_and(|folder| real.starts_with(folder));
    if inside {
        return Err(wrong(format!(
            "{} is inside of the data directory, where every backup of the data would hold its key: move it out",
            path.display()
        )));
    }
    SealingKey::load(&real).map_err(|e| wrong(e.to_string()))
}

/// Writes `endpoints.json`: everything listens.
pub(crate) fn announce(
    data_dir: &DataDir,
    places: &Places,
    tcp: Option<std::net::SocketAddr>,
    grpc_tls: Option<GrpcTls>,
    dev: Option<DevEndpoints>,
) -> anyhow::Result<()> {
    let endpoints = Endpoints {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        grpc: tcp.map(|a| a.to_string()),
        grpc_tls,
        grpc_socket: places.data_socket.clone(),
        admin_socket: places.admin_socket.clone(),
        dev,
    };
    endpoints.write(data_dir.path())
}

/// Waits until it is told to stop or a task dies, unless opening failed already; then stops in order.
pub(crate) async fn until_stopped(
    mut running: Running,
    data_dir: &DataDir,
    opened: anyhow::Result<()>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let outcome = match opened {
        Err(error) => Err(error),
        Ok(()) => tokio::select! {
            // First: where it is cancelled before anything was opened, there is nothing else to wait for.
            biased;
            () = stop.cancelled() => Ok(()),
            what = running.ended() => {
                Err(anyhow::anyhow!("{what} ended on its own; this is a defect: please report it with the log"))
            }
        },
    };
    tracing::info!("stopping");
    Endpoints::remove(data_dir.path());
    running.shutdown().await;
    outcome
}
