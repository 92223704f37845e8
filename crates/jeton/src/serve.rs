//! `jeton serve` and `jeton check-config`.

use std::path::Path;

use jeton_core::Problem;
use jeton_store::SealingKey;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Doors, Places, Running},
    config::{Faults, Settings, Sources},
    data_dir::DataDir,
    endpoints::{DevEndpoints, Endpoints, GrpcTls},
    output, stop,
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
pub(crate) async fn run(arguments: ServeArguments) -> anyhow::Result<()> {
    let stop = stop::on_signal()?;
    let settings = load(&arguments.sources)?;
    settings.log.start();
    let data_dir = DataDir::open(Path::new(&settings.data_dir))?;
    let sealing = sealing_key(&settings).map_err(Faults::from)?;
    let mut running = Running::start(&settings, &data_dir, sealing).await?;
    let places = running.places(&data_dir);
    let mut opened = running.open(&places, Doors::default()).await;
    if opened.is_ok() {
        opened = announce(&data_dir, &places, None, None, None);
        tracing::info!(data = %places.data_socket.display(), admin = %places.admin_socket.display(), "serving");
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
        for (key, address) in
            [("data.listen", &settings.data.listen), ("data.tls_listen", &settings.data.tls_listen)]
        {
            if !address.is_empty() {
                let text = "`serve` opens no TCP listener without authentication: callers come by the unix socket (data.socket)";
                problems.push(Problem::new(key, text));
            }
        }
        problems.extend(sealing_key(settings).err());
        problems
    })
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
