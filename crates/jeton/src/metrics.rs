//! What the broker tells of itself: who is asked for it, where it is read, and when the broker is ready.

mod observe;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use jeton_audit::Trail;
use jeton_authority::AuthorityClient;
use jeton_core::Uid;
use jeton_keys::Keys;
use jeton_server::{
    door::{Calls, DoorStats, Drain, Listen, Listener},
    grpc::{self, Broker},
};
use jeton_telemetry::{
    Environment, Exports, Gathered, Logs, Readiness, Resource, Snapshot, Telemetry, TelemetrySettings,
    Traces, instrument, traces,
};
use jeton_trace::Tracer;
use tonic::service::Routes;

use crate::log::Exporting;
use observe::Observed;

/// For whoever reads when everything else has stopped: a scrape that is under way.
const DRAIN: std::time::Duration = std::time::Duration::from_millis(500);

/// What is told, and the tasks by which it is.
pub(crate) struct Told {
    /// Where all doors count their calls.
    pub(crate) calls: Arc<Calls>,
    /// Of the listener itself: it is there until the rest has stopped.
    pub(crate) drain: Drain,
    doors: Doors,
    gathered: Gathered,
    resource: Resource,
    telemetry: Telemetry,
}

/// What is known before there is anything to tell.
pub(crate) struct Telling {
    /// Records spans, where traces are exported.
    pub(crate) tracer: Tracer,
    environment: Environment,
    exports: Exports,
    traces: Option<Traces>,
    logs: Option<Logs>,
}

/// The doors that are open, and how each is read.
#[derive(Clone, Default)]
pub(super) struct Doors(Arc<Mutex<Vec<Door>>>);

type Door = (&'static str, Arc<dyn Fn() -> DoorStats + Send + Sync>);

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").finish_non_exhaustive()
    }
}

impl Doors {
    pub(super) fn stats(&self) -> Vec<(&'static str, DoorStats)> {
        let doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.iter().map(|(name, stats)| (*name, stats())).collect()
    }
}

impl Telling {
    /// By the settings and OpenTelemetry's variables.
    pub(crate) fn of(settings: &TelemetrySettings, Exporting { exports, logs }: Exporting) -> Self {
        let environment = Environment::of_process();
        let mut warn = |text| tracing::warn!("{text}");
        let (tracer, traces) = traces(&exports, &environment, &settings.traces, &mut warn);
        Self { tracer, environment, exports, traces, logs }
    }
}

impl Told {
    /// Exports from now on, where a collector is named.
    pub(crate) fn start(
        telling: Telling,
        settings: &TelemetrySettings,
        broker: &Broker,
        keys: &Keys,
        authorities: AuthorityClient,
        log: Trail,
    ) -> Self {
        let Telling { tracer, environment, exports, traces, logs } = telling;
        let calls = Calls::new(grpc::method_names()).traced(tracer);
        let (calls, doors) = (Arc::new(calls), Doors::default());
        let observed = Observed {
            broker: broker.clone(),
            keys: keys.clone(),
            authorities,
            log,
            calls: Arc::clone(&calls),
            doors: doors.clone(),
            settings: settings.clone(),
        };
        let observer = Arc::new(move |to: &mut Snapshot| observed.read(to));
        let gathered = Gathered::new(observer, &exports, broker.started);
        let instance = Uid::new(broker.clock.now().wall, rand::random()).to_string();
        let resource =
            Resource::new("jeton", env!("CARGO_PKG_VERSION"), &instance, &[("host.name", &broker.node)]);
        let resource = resource.under(&environment);
        let telemetry = Telemetry::start(&exports, (traces, logs), resource.clone(), gathered.clone());
        Self { calls, drain: Drain::default(), doors, gathered, resource, telemetry }
    }

    /// A door that is open from now on.
    pub(crate) fn door(&self, name: &'static str, stats: impl Fn() -> DoorStats + Send + Sync + 'static) {
        self.doors.0.lock().unwrap_or_else(PoisonError::into_inner).push((name, Arc::new(stats)));
    }

    /// How many connections all doors have open.
    pub(crate) fn connections(&self) -> Arc<dyn Fn() -> u64 + Send + Sync> {
        let doors = self.doors.clone();
        Arc::new(move || doors.stats().iter().map(|(_, stats)| stats.open).sum())
    }

    /// What stands behind the listener.
    pub(crate) fn routes(&self, broker: &Broker) -> Routes {
        let broker = broker.clone();
        let ready = Arc::new(move |snapshot: &Snapshot| readiness(&broker, snapshot));
        jeton_telemetry::routes(self.gathered.clone(), self.resource.clone(), ready).into()
    }

    /// Ends when a task dies.
    pub(crate) async fn ended(&mut self) -> &'static str {
        self.telemetry.ended().await
    }

    /// Tells for the last time, within a bound.
    pub(crate) async fn shutdown(self) {
        self.drain.drain(DRAIN).await;
        self.telemetry.shutdown().await;
    }
}

/// Ready is who can serve what it holds; an authority that is down takes nothing from that.
fn readiness(broker: &Broker, snapshot: &Snapshot) -> Readiness {
    if broker.drain.has_begun() {
        return Readiness::Unready("the broker is about to stop");
    }
    if !broker.tally.has_room() {
        return Readiness::Unready(
            "the audit log takes no more, and nothing is handed out that is not on it",
        );
    }
    let degraded = snapshot.total(&instrument::FAILING) > 0.0
        || snapshot.total(&instrument::ALARMS) > 0.0
        || (broker.unwritable)().is_some()
        || !broker.trail.problems().is_empty();
    if degraded { Readiness::Degraded } else { Readiness::Ready }
}

/// Where the listener is to be; none: nowhere. OpenTelemetry's variables may ask for one too.
pub(crate) fn address(settings: &TelemetrySettings) -> anyhow::Result<Option<SocketAddr>> {
    if let Some(address) = settings.metrics_address() {
        return Ok(Some(address));
    }
    let Some(asked) = Environment::of_process().prometheus_address() else { return Ok(None) };
    let text = || format!("OTEL_EXPORTER_PROMETHEUS_HOST and _PORT make {asked}, which is no address");
    asked.parse().map(Some).with_context(text)
}

/// The listener, before anything is started.
pub(crate) async fn bind(settings: &TelemetrySettings) -> anyhow::Result<Option<Listener>> {
    let Some(address) = address(settings)? else { return Ok(None) };
    Listener::bind(&Listen::Tcp(address)).await.map(Some).context("telemetry.metrics_listen")
}

/// For `endpoints.json`.
pub(crate) fn url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::from([127, 0, 0, 1]));
    }
    format!("http://{address}/metrics")
}
