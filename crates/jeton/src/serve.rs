//! `jeton serve` and `jeton check-config`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use jeton_store::SealingKey;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    broker::{Places, Running},
    config::{Faults, Settings, Sources},
    data_dir::DataDir,
    endpoints::{DevEndpoints, Endpoints},
    output,
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
    let settings = load(&arguments.sources)?;
    settings.log.start();
    let data_dir = DataDir::open(Path::new(&settings.data_dir))?;
    let sealing = sealing_key(&settings, data_dir.path())?;
    let mut running = Running::start(&settings, &data_dir, sealing).await?;
    let places = running.places(&data_dir);
    running.open(&places, None).await?;
    announce(&data_dir, &places, None, None)?;
    tracing::info!(data = %places.data_socket.display(), admin = %places.admin_socket.display(), "serving");
    until_stopped(running, &data_dir).await
}

/// Says everything that is wrong with a configuration.
pub(crate) fn check(arguments: &CheckArguments) -> anyhow::Result<()> {
    let settings = load(&arguments.sources)?;
    output::text(&format!("the configuration is valid; data directory {}\n", settings.data_dir))
}

fn load(sources: &Sources) -> Result<Settings, Faults> {
    let settings = sources.load(&Settings::default())?;
    if !settings.data.listen.is_empty() {
        let text = "`serve` opens no TCP listener without authentication: callers come by the unix socket (data.socket)";
        return Err(Faults::one("data.listen", text));
    }
    if settings.sealing.key_file.is_empty() {
        let text = "name the file of the sealing key, outside of the data directory; `(umask 077; head -c 32 /dev/urandom > FILE)` makes one";
        return Err(Faults::one("sealing.key_file", text));
    }
    Ok(settings)
}

/// A key inside of the data directory would be in every copy of what it seals.
fn sealing_key(settings: &Settings, data_dir: &Path) -> anyhow::Result<SealingKey> {
    let path = PathBuf::from(&settings.sealing.key_file);
    let real =
        path.canonicalize().with_context(|| format!("the sealing key {} cannot be read", path.display()))?;
    if real.starts_with(data_dir) {
        let text = format!(
            "{} is inside of the data directory, where every backup of the data would hold its key: move it out",
            path.display()
        );
        return Err(Faults::one("sealing.key_file", &text).into());
    }
    Ok(SealingKey::load(&real)?)
}

/// Writes `endpoints.json`: everything listens.
pub(crate) fn announce(
    data_dir: &DataDir,
    places: &Places,
    tcp: Option<std::net::SocketAddr>,
    dev: Option<DevEndpoints>,
) -> anyhow::Result<()> {
    let endpoints = Endpoints {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        grpc: tcp.map(|a| a.to_string()),
        grpc_socket: places.data_socket.clone(),
        admin_socket: places.admin_socket.clone(),
        dev,
    };
    endpoints.write(data_dir.path())
}

/// Waits for SIGTERM or SIGINT, or for a task that dies; then stops in order.
pub(crate) async fn until_stopped(mut running: Running, data_dir: &DataDir) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let died = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        what = running.ended() => Some(what),
    };
    tracing::info!("stopping");
    Endpoints::remove(data_dir.path());
    running.shutdown().await;
    match died {
        Some(what) => {
            Err(anyhow::anyhow!("{what} ended on its own; this is a defect: please report it with the log"))
        }
        None => Ok(()),
    }
}
