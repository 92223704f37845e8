//! `jeton sandbox`: the sandbox authority as a process of its own, or inside `dev` on a runtime of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    thread,
};

use anyhow::Context;
use jeton_sandbox::{Description, Sandbox, SandboxError, SandboxOptions};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Settings, Sources},
    output, stop,
};

/// `jeton sandbox`
#[derive(Debug, clap::Args)]
pub(crate) struct SandboxArguments {
    #[command(flatten)]
    sources: Sources,
    /// Draw a free port for each listener, once for the data directory
    #[arg(long)]
    free_ports: bool,
}

/// Runs the sandbox until it is told to stop.
pub(crate) async fn run(arguments: SandboxArguments) -> anyhow::Result<()> {
    let stop = stop::on_signal()?;
    let base = Settings { data_dir: "./.jeton-sandbox".into(), ..Settings::default() };
    let settings = arguments.sources.load(&base, |_| vec![])?;
    // It exports nothing.
    settings.log.start(jeton_telemetry::Exports::default());
    let options = options(&settings, PathBuf::from(&settings.data_dir), arguments.free_ports)?;
    let Some(started) = stop.run_until_cancelled(Sandbox::start(options)).await else { return Ok(()) };
    let mut sandbox = started.map_err(|error| advised(error, arguments.free_ports))?;
    let description = sandbox.description();
    let told = output::text(&format!("authority {}\nkey vault {}\n", description.url, description.vault.url));
    let outcome = match told {
        Err(error) => Err(error),
        Ok(()) => tokio::select! {
            () = stop.cancelled() => Ok(()),
            error = sandbox.ended() => Err(error.into()),
        },
    };
    sandbox.shutdown().await;
    outcome
}

/// What to do about a port that is taken depends on where it came from.
pub(crate) fn advised(error: SandboxError, free_ports: bool) -> anyhow::Error {
    let taken = matches!(error, SandboxError::Address { .. });
    let error = anyhow::Error::from(error);
    match (taken, free_ports) {
        (true, true) => error.context("this data directory keeps the ports that it drew once, and what it holds names them: if one stays taken, choose another --data-dir"),
        (true, false) => error.context("a port of [sandbox] is not free; --free-ports draws others for a new data directory"),
        (false, _) => error,
    }
}

/// Where a sandbox listens.
pub(crate) fn options(
    settings: &Settings,
    data_dir: PathBuf,
    free_ports: bool,
) -> anyhow::Result<SandboxOptions> {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let at = |text: &str| {
        if free_ports { Ok(free) } else { text.parse::<SocketAddr>().context("an address of [sandbox]") }
    };
    let mut options = SandboxOptions::new(data_dir);
    options.authority_listen = at(&settings.sandbox.authority_listen)?;
    options.vault_listen = at(&settings.sandbox.vault_listen)?;
    options.token_bytes = settings.sandbox.token_bytes;
    Ok(options)
}

/// A sandbox on a thread and a runtime of its own, so that it takes nothing from the broker's.
pub(crate) struct Embedded {
    pub(crate) description: Description,
    stop: CancellationToken,
    thread: thread::JoinHandle<()>,
}

impl Embedded {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(options: SandboxOptions) -> anyhow::Result<Self> {
        let free_ports = options.authority_listen.port() == 0;
        let (tell, told) = oneshot::channel();
        let stop = CancellationToken::new();
        let until = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = async move {
            let mut sandbox = match Sandbox::start(options).await {
                Ok(sandbox) => sandbox,
                Err(error) => return drop(tell.send(Err(error))),
            };
            // The receiver waits below; if it is gone, so is the process.
            let _ = tell.send(Ok(sandbox.description().clone()));
            tokio::select! {
                () = until.cancelled() => {}
                error = sandbox.ended() => tracing::error!(%error, "the sandbox ended"),
            }
            sandbox.shutdown().await;
        };
        let thread =
            thread::Builder::new().name("jeton-sandbox".into()).spawn(move || runtime.block_on(run))?;
        let started = told.await.context("the sandbox ended before it listened")?;
        let description = started.map_err(|error| advised(error, free_ports))?;
        Ok(Self { description, stop, thread })
    }

    /// Stops it.
    pub(crate) fn stop(self) {
        self.stop.cancel();
        // It is bounded in itself; a panic there was logged there.
        let _ = self.thread.join();
    }
}
