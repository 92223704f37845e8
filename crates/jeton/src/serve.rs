//! `jeton serve` and `jeton check-config`.

use std::{net::SocketAddr, path::Path};

use anyhow::Context;
use jeton_core::Problem;
use jeton_server::door::{Certificates, Listen, Listener, TlsSettings};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Doors, Places, Running, Secured},
    config::{Faults, Settings, Sources},
    data_dir::DataDir,
    endpoints::{DevEndpoints, Endpoints, GrpcTls},
    log,
    managed_identity::{self, AllFound, Opening},
    metrics, output,
    reload::{self, Reload},
    sealing, stop,
    supervisor::{self, HandedOver, State},
};

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
pub(crate) async fn run(arguments: ServeArguments, sockets: HandedOver) -> anyhow::Result<()> {
    let (stop, hangups) = (stop::on_signal()?, reload::hangups()?);
    let settings = load(&arguments.sources)?;
    let (filter, exporting) = settings.log.start(log::exports(&settings));
    close_memory();
    let data_dir = DataDir::open(Path::new(&settings.data_dir))?;
    let sealing = sealing::keys(&settings).map_err(Faults::from)?;
    let doors = doors(&settings, &Places::of(&settings, &data_dir), sockets).await?;
    let [tls, admin_tls] =
        [&doors.secured, &doors.admin].map(|door| door.as_ref().and_then(|door| door.listener.tcp_address()));
    let managed_identity = managed_identity::found(&doors.managed_identity, &settings.managed_identity, None);
    let metrics = doors.metrics.as_ref().and_then(Listener::tcp_address);
    let mut running = Running::start(&settings, &data_dir, sealing, exporting).await?;
    let places = running.places(&data_dir);
    let mut opened = running.open(&places, doors).await;
    if opened.is_ok() {
        let grpc_tls =
            tls.map(|address| GrpcTls { address: address.to_string(), ca_file: None, clients: vec![] });
        let network = Network { grpc: None, grpc_tls, admin_tls, metrics, managed_identity };
        opened = announce(&data_dir, &places, network, None);
        let [tls, admin_tls] = [tls, admin_tls].map(|address| address.map(tracing::field::display));
        tracing::info!(tls, admin_tls, data = %places.data_socket.display(), admin = %places.admin_socket.display(), "serving");
        // Not before: who is told that a configuration was read again takes it that everything listens.
        let alarms = running.broker.alarms.clone();
        let reload = Reload { sources: arguments.sources, load, filter, alarms, settings };
        running.own(reload.follow(hangups));
        running.own(supervisor::keep_telling());
    }
    until_stopped(running, &data_dir, opened, &stop).await
}

/// Private keys are in here: no core file has them, and no other process of this user reads them.
fn close_memory() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(error = %std::io::Error::from(error), "other processes of this user may read the memory");
    }
}

/// Says everything that is wrong with a configuration.
pub(crate) fn check(arguments: &CheckArguments) -> anyhow::Result<()> {
    let settings = load(&arguments.sources)?;
    output::text(&format!("the configuration is valid; data directory {}\n", settings.data_dir))
}

/// The settings of `serve`, with everything that is wrong with them.
pub(crate) fn load(sources: &Sources) -> Result<Settings, Faults> {
    sources.load(&Settings::default(), |settings| {
        let mut problems = settings.sockets_that_do_not_fit();
        problems.extend(network(settings));
        problems.extend(sealing::keys(settings).err().into_iter().flatten());
        problems
    })
}

/// Over the network comes only who says who it is.
fn network(settings: &Settings) -> Vec<Problem> {
    let (data, admin, mut problems) = (&settings.data, &settings.admin, vec![]);
    if !data.listen.is_empty() {
        let text = "`serve` opens no TCP listener without authentication: use data.tls_listen with [data.tls], or the unix socket (data.socket)";
        problems.push(Problem::new("data.listen", text));
    }
    if data.tls.bearer && settings.access.issuers.is_empty() {
        let text = "says that callers may show tokens: say whose in [[access.issuers]], or set it to false";
        problems.push(Problem::new("data.tls.bearer", text));
    }
    // Their shape is checked with the other settings.
    let issuers = settings.access.issuers.iter().filter(|_| settings.access.validate().is_empty());
    for (n, issuer) in issuers.enumerate() {
        let failed = jeton_issuers::ports(issuer).err().map(|error| error.to_string());
        problems
            .extend(failed.map(|text| Problem::new("access.issuers", format!("entry {}: {text}", n + 1))));
    }
    problems.extend(listener("data", &data.tls_listen, &data.tls));
    problems.extend(listener("admin", &admin.tls_listen, &admin.tls));
    problems.extend(managed_identity::problems(&settings.managed_identity));
    problems
}

/// What is wrong with one plane's listener, its files included.
fn listener(plane: &'static str, listen: &str, tls: &TlsSettings) -> Vec<Problem> {
    let one = |key: &str, text: String| vec![Problem::new(key, text).within(plane)];
    match (listen.is_empty(), tls.is_given()) {
        (false, false) => one(
            "tls_listen",
            format!(
                "`serve` opens no TCP listener without authentication: say in [{plane}.tls] which certificate to show and whose client certificates let in"
            ),
        ),
        (true, true) => {
            one("tls_listen", format!("[{plane}.tls] is of no use without an address such as 0.0.0.0:7412"))
        }
        // The shape is checked with the other settings; here it is what the files hold.
        (false, true) if tls.validate().is_empty() => {
            let text =
                "say whose client certificates let in: `serve` opens no TCP listener without authentication";
            let mut problems =
                if tls.authenticates() { vec![] } else { one("tls.client_trust", text.into()) };
            let section = section(plane);
            let read = Certificates::load(section, tls).err().into_iter().flatten();
            problems.extend(read.map(|problem| problem.within(section)));
            problems
        }
        _ => vec![],
    }
}

/// The section of a network listener.
fn section(plane: &'static str) -> &'static str {
    if plane == "admin" { "admin.tls" } else { "data.tls" }
}

/// The network listeners, before anything is started: a port that is taken is the first thing to hear of. And whatever was handed over.
async fn doors(settings: &Settings, places: &Places, mut sockets: HandedOver) -> anyhow::Result<Doors> {
    let (data, admin) = (&settings.data, &settings.admin);
    let mut network = async |plane, name, address: Option<SocketAddr>, tls| {
        let Some(address) = address else { return Ok(None) };
        secured(plane, address, sockets.tcp(name, address)?, tls).await.map(Some)
    };
    let data_tls = network("data", supervisor::DATA_TLS, data.tls_address(), &data.tls).await?;
    let admin_tls = network("admin", supervisor::ADMIN_TLS, admin.tls_address(), &admin.tls).await?;
    let doors = Doors {
        data_socket: sockets.unix(supervisor::DATA, &places.data_socket)?,
        admin_socket: sockets.unix(supervisor::ADMIN, &places.admin_socket)?,
        plain: None,
        secured: data_tls,
        admin: admin_tls,
        managed_identity: Opening::all(&settings.managed_identity, &mut sockets).await?,
        metrics: metrics::bind(&settings.telemetry).await?,
    };
    sockets.none_is_left()?;
    Ok(doors)
}

/// `handed`: the listener, if there is one already.
async fn secured(
    plane: &'static str,
    address: SocketAddr,
    handed: Option<Listener>,
    tls: &TlsSettings,
) -> anyhow::Result<Secured> {
    let listener = match handed {
        Some(listener) => listener,
        None => Listener::bind(&Listen::Tcp(address)).await.with_context(|| format!("{plane}.tls_listen"))?,
    };
    let certificates = Certificates::load(section(plane), tls)
        .map_err(|problems| anyhow::anyhow!("the files of [{plane}.tls] have changed: {problems:?}"))?;
    Ok(Secured { listener, certificates, authenticate: None, bearer: tls.bearer })
}

/// Where the TCP listeners are.
#[derive(Default)]
pub(crate) struct Network {
    pub(crate) grpc: Option<SocketAddr>,
    pub(crate) grpc_tls: Option<GrpcTls>,
    pub(crate) admin_tls: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) managed_identity: AllFound,
}

/// Writes `endpoints.json` and tells the supervisor: everything listens.
pub(crate) fn announce(
    data_dir: &DataDir,
    places: &Places,
    network: Network,
    dev: Option<DevEndpoints>,
) -> anyhow::Result<()> {
    let endpoints = Endpoints {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        grpc: network.grpc.map(|a| a.to_string()),
        grpc_tls: network.grpc_tls,
        admin_tls: network.admin_tls.map(|a| a.to_string()),
        grpc_socket: places.data_socket.clone(),
        admin_socket: places.admin_socket.clone(),
        metrics: network.metrics.map(metrics::url),
        managed_identity: network.managed_identity,
        dev,
    };
    endpoints.write(data_dir.path())?;
    supervisor::tell(&State::Ready("Serving"));
    Ok(())
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
    supervisor::tell(&State::Stopping);
    Endpoints::remove(data_dir.path());
    running.shutdown().await;
    outcome
}
