//! `jeton dev`: the broker, an authority to try it with, and a demo workload, in one process.

mod administrator;
mod provision;
mod tls;
mod tour;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use jeton_authority::HttpError;
use jeton_core::Problem;
use jeton_sandbox::{Description, read_description};
use jeton_server::{
    door::{Authenticate, Certificates, Listen, Listener, LoopbackDev, TlsSettings},
    managed_identity::{Flavour, ManagedIdentitySettings, Place},
};
use jeton_store::{SealingKey, SealingKeys};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Doors, Running, Secured},
    config::{Settings, Sources, path_or},
    data_dir::{DataDir, write_private},
    endpoints::{DevEndpoints, GrpcTls, OidcEndpoints, SandboxEndpoints, VaultEndpoint},
    log::{self, Exporting},
    managed_identity, metrics,
    sandbox::{self, Embedded},
    serve, stop,
};
use provision::Demo;
use tour::Tour;

/// `jeton dev`
#[derive(Debug, clap::Args)]
pub(crate) struct DevArguments {
    #[command(flatten)]
    sources: Sources,
    /// Keep everything in a temporary directory that goes with the process
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// Draw a free port for each listener, once for the data directory
    #[arg(long)]
    free_ports: bool,
    /// Listen with TLS too; endpoints.json says where, and whom to trust
    #[arg(long)]
    tls: bool,
    /// Listen with TLS too, and let in whoever has a client certificate; endpoints.json names two, one of the demo workload
    #[arg(long, conflicts_with = "tls")]
    mtls: bool,
    /// Use the sandbox that runs on this directory instead of starting one
    #[arg(long, value_name = "DIR")]
    sandbox: Option<PathBuf>,
}

/// Runs until it is told to stop.
pub(crate) async fn run(arguments: DevArguments) -> anyhow::Result<()> {
    let stop = stop::on_signal()?;
    let temporary = if arguments.ephemeral { Some(tempfile::tempdir()?) } else { None };
    let mut sources = arguments.sources;
    if let Some(folder) = &temporary {
        sources.data_dir = Some(folder.path().to_owned());
    }
    let settings = sources.load(&Settings::for_dev(), |settings| {
        let text = "is for `serve`: `dev` makes its own certificates";
        let given = [
            ("data.tls", &settings.data.tls),
            ("admin.tls", &settings.admin.tls),
            ("managed_identity.service_fabric_tls", &settings.managed_identity.service_fabric_tls),
        ];
        let own = given.into_iter().filter(|(_, tls)| tls.is_given()).map(|(key, _)| Problem::new(key, text));
        settings.sockets_that_do_not_fit().into_iter().chain(exposed(settings)).chain(own).collect()
    })?;
    let (_, exporting) = settings.log.start(log::exports(&settings));
    let data_dir = DataDir::open(Path::new(&settings.data_dir))?;
    let draw = arguments.free_ports;
    let plain =
        listen("data.listen", settings.data.address(), &data_dir, draw.then_some("grpc.port")).await?;
    let mut doors = Doors { plain, ..Doors::default() };
    doors.metrics = listen(
        "telemetry.metrics_listen",
        metrics::address(&settings.telemetry)?,
        &data_dir,
        draw.then_some("metrics.port"),
    )
    .await?;
    let made = tls::make(data_dir.path(), arguments.mtls)?;
    let mut settings = settings;
    settings.managed_identity.service_fabric_tls = TlsSettings {
        cert_file: made.settings.cert_file.clone(),
        key_file: made.settings.key_file.clone(),
        ..TlsSettings::default()
    };
    doors.managed_identity = endpoints(&settings.managed_identity, &data_dir, draw).await?;
    let managed_identity =
        managed_identity::found(&doors.managed_identity, &settings.managed_identity, Some(&made.ca_file));
    let metrics = doors.metrics.as_ref().and_then(Listener::tcp_address);
    let mut network = serve::Network { managed_identity, metrics, ..serve::Network::default() };
    if arguments.tls || arguments.mtls {
        let address = settings.data.tls_address();
        let listener = listen("data.tls_listen", address, &data_dir, draw.then_some("grpc-tls.port")).await?;
        if let Some(listener) = listener {
            let mut tls = made.settings;
            // Whoever says whose tokens count wants to see that they do.
            tls.bearer = arguments.mtls && !settings.access.issuers.is_empty();
            network.grpc_tls = listener.tcp_address().map(|address| GrpcTls {
                address: address.to_string(),
                ca_file: Some(made.ca_file),
                clients: made.clients,
            });
            doors.secured = Some(secured(listener, &tls, arguments.mtls)?);
        }
    }
    let (description, embedded) = match &arguments.sandbox {
        Some(folder) => (read_description(folder)?, None),
        None => {
            let options = sandbox::options(&settings, data_dir.join("sandbox"), arguments.free_ports)?;
            let embedded = Embedded::start(options).await?;
            (embedded.description.clone(), Some(embedded))
        }
    };
    if settings.managed_identity.gce_scopes == ManagedIdentitySettings::default().gce_scopes {
        settings.managed_identity.gce_scopes = description.entra.scopes.iter().take(1).cloned().collect();
    }
    let tour = Tour::new(temporary.is_some());
    let opening = Opening { exporting, doors, network, description: &description, tour };
    let mut served = Box::pin(serve_demo(&settings, &data_dir, opening, &stop)).await;
    if let Some(folder) = &arguments.sandbox {
        let unreachable = |cause: &(dyn std::error::Error + 'static)| {
            matches!(cause.downcast_ref(), Some(HttpError::Unreachable { .. }))
        };
        let is_it = || {
            format!("the sandbox of {} does not answer: is `jeton sandbox` running on it?", folder.display())
        };
        served = served.map_err(|e| if e.chain().any(unreachable) { e.context(is_it()) } else { e });
    }
    if let Some(embedded) = embedded {
        tokio::task::spawn_blocking(move || embedded.stop()).await?;
    }
    served
}

/// What is opened when the demo is there.
struct Opening<'a> {
    exporting: Exporting,
    doors: Doors,
    network: serve::Network,
    description: &'a Description,
    tour: Tour,
}

/// The listeners for SDKs of managed identities.
async fn endpoints(
    settings: &ManagedIdentitySettings,
    data_dir: &DataDir,
    draw: bool,
) -> anyhow::Result<Vec<managed_identity::Opening>> {
    let mut openings = vec![];
    for flavour in Flavour::ALL {
        let (key, file) = (managed_identity::key(flavour), format!("{}.port", flavour.name()));
        let listener = match settings.endpoint(flavour).place() {
            Some(Place::Tcp(address)) => {
                listen(&key, Some(address), data_dir, draw.then_some(&*file)).await?
            }
            Some(Place::Unix(_)) => managed_identity::bind(settings.endpoint(flavour), flavour).await?,
            None => None,
        };
        if let Some(listener) = listener {
            openings.push(managed_identity::Opening::new(flavour, settings, listener)?);
        }
    }
    Ok(openings)
}

/// With TLS: everybody from loopback, or whoever has a certificate.
fn secured(listener: Listener, settings: &TlsSettings, mutual: bool) -> anyhow::Result<Secured> {
    let certificates = Certificates::load("data.tls", settings)
        .map_err(|problems| anyhow::anyhow!("the certificates that were made: {problems:?}"))?;
    let anybody: Option<Arc<dyn Authenticate>> = if mutual { None } else { Some(Arc::new(LoopbackDev)) };
    Ok(Secured { listener, certificates, authenticate: anybody, bearer: settings.bearer })
}

async fn serve_demo(
    settings: &Settings,
    data_dir: &DataDir,
    mut opening: Opening<'_>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let sealing = sealing_key(settings, data_dir)?;
    let mut running =
        Running::start(settings, data_dir, sealing, std::mem::take(&mut opening.exporting)).await?;
    let callers =
        opening.network.grpc_tls.iter().flat_map(|tls| &tls.clients).filter(|client| client.allowed);
    let also: Vec<_> = callers.map(|client| client.principal.clone()).collect();
    let provisioning =
        provision::provision(&running, data_dir, opening.description, &also, &mut opening.tour);
    let opened = match stop.run_until_cancelled(provisioning).await {
        Some(Ok(demo)) => open(&mut running, data_dir, opening, demo).await,
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    serve::until_stopped(running, data_dir, opened, stop).await
}

async fn open(
    running: &mut Running,
    data_dir: &DataDir,
    opening: Opening<'_>,
    demo: Demo,
) -> anyhow::Result<()> {
    let Opening { doors, mut network, description, tour, .. } = opening;
    let dev = DevEndpoints {
        sandbox: sandbox_endpoints(description),
        vault: VaultEndpoint {
            url: description.vault.url.clone(),
            named_url: description.vault.named_url.clone(),
            scope: description.vault.scope.clone(),
            secret: description.vault.secret.clone(),
        },
        scopes: description.entra.scopes.clone(),
        workloads: demo.workloads,
        identities: demo.identities,
    };
    let (places, address) = (running.places(data_dir), doors.plain.as_ref().and_then(Listener::tcp_address));
    running.open(&places, doors).await?;
    network.grpc = address;
    serve::announce(data_dir, &places, network, Some(dev))?;
    tour.finish(data_dir.path(), &places, address, description)
}

/// Whoever reaches the TCP listener is let in.
fn exposed(settings: &Settings) -> impl Iterator<Item = Problem> {
    let exposed = |(key, address): (&str, Option<SocketAddr>)| {
        let address = address.filter(|address| !address.ip().is_loopback())?;
        let text = format!("{address} is not a loopback address, and TCP callers are not authenticated");
        Some(Problem::new(key, text))
    };
    [("data.listen", settings.data.address()), ("data.tls_listen", settings.data.tls_address())]
        .into_iter()
        .filter_map(exposed)
}

/// A TCP listener of the data plane, before anything is made: a port that is taken is the first thing to hear of. `drawn`: the file
/// that keeps the port which was drawn.
async fn listen(
    key: &str,
    address: Option<SocketAddr>,
    data_dir: &DataDir,
    drawn: Option<&str>,
) -> anyhow::Result<Option<Listener>> {
    let Some(mut address) = address else { return Ok(None) };
    let kept = drawn.map(|file| data_dir.join(file));
    if let Some(kept) = &kept {
        address
            .set_port(fs::read_to_string(kept).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0));
    }
    let listener = Listener::bind(&Listen::Tcp(address)).await.with_context(|| match &kept {
        Some(kept) => format!(
            "the port that this data directory drew is not free; without {} it draws another",
            kept.display()
        ),
        None => format!("{key} is not free; --free-ports draws another port"),
    })?;
    if let (Some(kept), Some(bound)) = (&kept, listener.tcp_address()) {
        write_private(kept, bound.port().to_string().as_bytes())?;
    }
    Ok(Some(listener))
}

/// In `dev` the key lies beside the data that it seals: convenient, and no protection. `serve` refuses that.
fn sealing_key(settings: &Settings, data_dir: &DataDir) -> anyhow::Result<SealingKeys> {
    let path = path_or(&settings.sealing.key_file, data_dir.join("sealing.key"));
    let known = data_dir.join("registry.db").exists();
    // A file that somebody named is there, or the name is wrong.
    let own = settings.sealing.key_file.is_empty() && !path.exists() && !known;
    let key = if own { SealingKey::create(&path) } else { SealingKey::load(&path) };
    let before = &settings.sealing.previous_key_file;
    let previous = (!before.is_empty()).then(|| SealingKey::load(Path::new(before))).transpose();
    let keys = key.and_then(|key| Ok(SealingKeys { key, previous: previous? }));
    keys.with_context(|| if known { "the data in this directory cannot be opened" } else { "no sealing key" })
}

fn sandbox_endpoints(description: &Description) -> SandboxEndpoints {
    let (entra, oidc) = (&description.entra, &description.oidc);
    SandboxEndpoints {
        url: description.url.clone(),
        ca_file: description.ca_file.clone(),
        tenant: entra.tenant.clone(),
        issuer: entra.issuer.clone(),
        token_endpoint: entra.token_endpoint.clone(),
        jwks_uri: entra.jwks_uri.clone(),
        oidc: OidcEndpoints {
            issuer: oidc.issuer.clone(),
            token_endpoint: oidc.token_endpoint.clone(),
            jwks_uri: oidc.jwks_uri.clone(),
            registration_endpoint: oidc.registration_endpoint.clone(),
        },
    }
}
