//! Puts the crates together and owns their tasks.
//!
//! What depends on what: store → audit log → keys → authorities → lifecycle → engine and access → doors. The lifecycle's events come through
//! one channel to one task that tells the others, because the lifecycle starts before there is anybody to tell.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use jeton_access::{Access, BearerTokens, Tally, TallyBounds, TallyPorts, TallyTask, TokenTasks};
use jeton_audit::{AuditKey, Audited, Trail, TrailTask};
use jeton_authority::{AuthorityClient, Discovery, Shape};
use jeton_core::{
    Assertions, AssignmentScope, AuditTrail, Authority, BoxFuture, Clock, Identity, Member, Principal,
    Profile, Registrar, SharedDirectory, SystemClock, Uid,
};
use jeton_engine::{Engine, EngineTasks};
use jeton_keys::Keys;
use jeton_lifecycle::{
    IdentityStore, Lifecycle, LifecycleEvent, LifecycleTasks, SecretId, SecretKind, Write,
};
use jeton_server::{
    Alarms, Events, History,
    door::{
        Authenticate, Certificates, Door, Drain, Listen, Listener, LoopbackDev, Protocol, Shortcut, Tls,
        UnixPeers, serve,
    },
    grpc::{self, AuthorityProbe, Broker, DiscoverRequest, Health, ProbeStep, RegistrarShape},
    managed_identity,
};
use jeton_store::{SealingKeys, Store};
use jeton_telemetry::Logs;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use secrecy::ExposeSecret;
use tokio::{
    sync::{
        Semaphore,
        mpsc::{self, UnboundedReceiver},
    },
    task::{JoinHandle, JoinSet},
};
use tonic::service::Routes;

use crate::{
    config::{Settings, path_or},
    data_dir::DataDir,
    events::{HeardSource, HeardTrail, Recorder},
    issuers::bearer_tokens,
    log::Exporting,
    managed_identity::Opening,
    metrics::{Telling, Told},
    pulse::{self, Around},
    sealing::Rotation,
};

#[cfg(test)]
mod administration;
#[cfg(test)]
mod events;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod tests;

const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A broker that runs, and everything it owns.
pub(crate) struct Running {
    pub(crate) broker: Broker,
    pub(crate) keys: Keys,
    settings: Settings,
    store: Store,
    audit: TrailTask,
    tally: TallyTask,
    engine: EngineTasks,
    lifecycle: LifecycleTasks,
    events: JoinHandle<()>,
    /// Who judges callers' bearer tokens; none: no such token counts.
    tokens: Option<Arc<dyn BearerTokens>>,
    issuers: TokenTasks,
    doors: Vec<JoinHandle<()>>,
    told: Told,
    /// Of files, and of what there is to do. They end with this.
    following: JoinSet<()>,
    /// To the sealing key of the configuration; done when that is in force.
    rotating: JoinSet<()>,
    health: Vec<Health>,
}

/// The listeners.
#[derive(Default)]
pub(crate) struct Doors {
    /// The unix sockets of both planes; none: they are bound at their places.
    pub(crate) data_socket: Option<Listener>,
    pub(crate) admin_socket: Option<Listener>,
    /// Without TLS: callers are let in from loopback alone.
    pub(crate) plain: Option<Listener>,
    pub(crate) secured: Option<Secured>,
    /// With TLS too, for administrators.
    pub(crate) admin: Option<Secured>,
    /// For SDKs of managed identities; some on unix sockets.
    pub(crate) managed_identity: Vec<Opening>,
    /// For `/metrics`.
    pub(crate) metrics: Option<Listener>,
}

/// A listener with TLS.
pub(crate) struct Secured {
    pub(crate) listener: Listener,
    pub(crate) certificates: Certificates,
    /// Who callers are without a certificate or a token; none: nobody.
    pub(crate) authenticate: Option<Arc<dyn Authenticate>>,
    /// Whether callers may show tokens.
    pub(crate) bearer: bool,
}

/// A listener, and who comes there.
struct Entry {
    name: &'static str,
    protocol: Protocol,
    listener: Listener,
    tls: Option<Arc<Tls>>,
    authenticate: Option<Arc<dyn Authenticate>>,
    bearer: Option<Arc<dyn BearerTokens>>,
}

impl Entry {
    /// Where the peer's place says who it is.
    fn known(name: &'static str, listener: Listener, authenticate: Arc<dyn Authenticate>) -> Self {
        let authenticate = Some(authenticate);
        Self { name, protocol: Protocol::Http2, listener, tls: None, authenticate, bearer: None }
    }
}

/// Where the doors are.
pub(crate) struct Places {
    pub(crate) data_socket: PathBuf,
    pub(crate) admin_socket: PathBuf,
}

impl Running {
    /// Starts everything but the doors.
    pub(crate) async fn start(
        settings: &Settings,
        data_dir: &DataDir,
        sealing: impl Into<SealingKeys>,
        exporting: Exporting,
    ) -> anyhow::Result<Self> {
        raise_descriptor_limit();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let audited = exporting.logs.as_ref().map(Logs::audit);
        let telling = Telling::of(&settings.telemetry, exporting);
        let (tokens, issuers) = bearer_tokens(&settings.access, Arc::clone(&clock))?;
        let directory = SharedDirectory::default();
        let sealing = sealing.into();
        let configured = sealing.key.id().to_owned();
        let (store, trail, audit) = stores(settings, data_dir, sealing, &clock).await?;
        let stored = Arc::new(store.clone());
        if let Some(audited) = audited {
            trail.follow(Box::new(move |seq, at, event| audited.put(seq, at, event)));
        }
        let (log, trail): (_, Arc<dyn AuditTrail>) = (trail.clone(), Arc::new(trail));
        let keys = Keys::start(settings.keys.clone(), stored.clone(), Arc::clone(&clock))
            .context("the signing threads do not start")?;
        let authorities = AuthorityClient::new(jeton_authority::Ports {
            directory: directory.clone(),
            assertions: Arc::new(Audited::new(Arc::new(keys.clone()), Arc::clone(&trail), directory.clone())),
            store: stored.clone(),
            clock: Arc::clone(&clock),
        });
        let recorder = Recorder {
            events: Events::new(clock.now().wall),
            clock: Arc::clone(&clock),
            directory: directory.clone(),
        };
        // One event follows each durable commit, so the channel cannot outgrow what the disk lets through.
        let (tell, told) = mpsc::unbounded_channel();
        let ports = jeton_lifecycle::Ports {
            store: stored.clone(),
            keys: Arc::new(keys.clone()),
            registry: Arc::new(authorities.clone()),
            clock: Arc::clone(&clock),
            directory: directory.clone(),
            trail: Arc::clone(&trail),
            seed: rand::random(),
            tracer: telling.tracer.clone(),
            on_event: Arc::new(move |event| {
                // Nobody listens any more when the process ends.
                let _ = tell.send(event);
            }),
            on_step: {
                let recorder = recorder.clone();
                Arc::new(move |tried| recorder.step(tried))
            },
        };
        let (lifecycle, lifecycle_tasks) = Lifecycle::start(settings.lifecycle.clone(), ports).await?;
        let access = Access::start(
            &settings.access,
            stored.clone(),
            Arc::clone(&clock),
            directory.clone(),
            rand::random(),
        )
        .await?;
        let ports = TallyPorts {
            trail: Arc::clone(&trail),
            store: stored.clone(),
            clock: Arc::clone(&clock),
            directory: directory.clone(),
        };
        let bounds = TallyBounds {
            batch: settings.audit.batch(),
            refusals_per_minute: settings.audit.max_denials_per_minute,
            // As many as there are tokens at once: a use that is forgotten was long ago.
            most_uses: usize::try_from(settings.engine.max_entries).unwrap_or(usize::MAX),
        };
        let tally = Tally::new(ports, bounds);
        let tally_task = tally.start();
        let ports = jeton_engine::Ports {
            source: Arc::new(HeardSource(Arc::new(authorities.clone()), recorder.clone())),
            store: stored,
            clock: Arc::clone(&clock),
            directory,
            encoder: Arc::new(grpc::encode_token),
            seed: rand::random(),
            tracer: telling.tracer.clone(),
        };
        let (engine, engine_tasks) = Engine::start(settings.engine.clone(), ports).await?;
        let alarms = Alarms::default();
        let rotation = Rotation {
            store: store.clone(),
            trail: Arc::clone(&trail),
            clock: Arc::clone(&clock),
            alarms: alarms.clone(),
            data_dir: data_dir.path().to_owned(),
            inside: Rotation::is_inside(settings, data_dir.path()),
            configured,
        };
        let broker = Broker {
            engine,
            access,
            tally,
            lifecycle,
            probe: Arc::new(Probe(authorities.clone())),
            sealing: Arc::new(rotation.clone()),
            trail: Arc::new(HeardTrail(trail, recorder.clone())),
            clock,
            drain: Drain::default(),
            drain_grace: settings.door.drain_deadline(),
            node: settings.node_name(),
            root: Principal::unix_uid(&settings.node_name(), geteuid().as_raw()).ok(),
            started: Instant::now(),
            quarantined: Arc::new(store.quarantined()),
            failing_issuers: {
                let tokens = tokens.clone();
                Arc::new(move || tokens.as_ref().map_or_else(Vec::new, |tokens| tokens.failing()))
            },
            unwritable: {
                let store = store.clone();
                Arc::new(move || store.unwritable())
            },
            alarms,
            events: recorder.events,
            history: History::default(),
            watchers: Arc::new(Semaphore::new(grpc::MAX_WATCHERS)),
            looking: Arc::new(Semaphore::new(1)),
        };
        forget_what_is_gone(&broker).await?;
        keep_all_warm(&broker);
        let events = tokio::spawn(pass_on(told, broker.clone(), keys.clone()));
        let told = Told::start(telling, &settings.telemetry, &broker, &keys, authorities.clone(), log);
        let mut following = JoinSet::new();
        following.spawn(pulse::run(broker.clone(), Around { authorities, connections: told.connections() }));
        // Beside everything else: it is no reason to serve later. What fails raises an alarm.
        let mut rotating = JoinSet::new();
        rotating.spawn(async move { rotation.as_configured().await });
        let (settings, doors, health) = (settings.clone(), vec![], vec![]);
        Ok(Self {
            broker,
            keys,
            settings,
            store,
            audit,
            tally: tally_task,
            engine: engine_tasks,
            lifecycle: lifecycle_tasks,
            events,
            tokens,
            issuers,
            doors,
            told,
            following,
            rotating,
            health,
        })
    }

    /// The sockets' paths.
    pub(crate) fn places(&self, data_dir: &DataDir) -> Places {
        Places::of(&self.settings, data_dir)
    }

    /// Opens the doors; TCP only where there is a listener.
    pub(crate) async fn open(&mut self, places: &Places, doors: Doors) -> anyhow::Result<()> {
        let node = self.broker.node.clone();
        let mode = self.settings.data.mode().unwrap_or(0o660);
        let data = socket(doors.data_socket, &places.data_socket, mode).await?;
        let mode = self.settings.admin.mode().unwrap_or(0o600);
        let admin = socket(doors.admin_socket, &places.admin_socket, mode).await?;
        let (data_routes, data_health) =
            grpc::data_routes(&self.broker, self.settings.reflection.enabled).await;
        let (admin_routes, admin_health) =
            grpc::admin_routes(&self.broker, self.settings.reflection.enabled).await;
        self.health.extend([data_health, admin_health]);
        let shortcut = Some(grpc::data_shortcut(&self.broker, self.settings.engine.max_entries));
        let users = Arc::new(UnixPeers::new(&node, self.settings.data.unix_peers.clone()));
        // Whoever the socket's mode lets connect; what each may do there is said by role assignments.
        let administrators = Arc::new(UnixPeers::new(&node, vec![]));
        self.door(Entry::known("admin", admin, administrators), admin_routes.clone(), None);
        if let Some(secured) = doors.admin {
            let entry = self.secured("admin (TLS)", secured);
            self.door(entry, admin_routes, None);
        }
        for opening in doors.managed_identity {
            self.managed_identity(opening, &users);
        }
        let mut entries = vec![Entry::known("data (unix)", data, users)];
        if let Some(listener) = doors.plain {
            entries.push(Entry::known("data (loopback)", listener, Arc::new(LoopbackDev)));
        }
        if let Some(secured) = doors.secured {
            entries.push(self.secured("data (TLS)", secured));
        }
        for entry in entries {
            self.door(entry, data_routes.clone(), shortcut.clone());
        }
        if let Some(listener) = doors.metrics {
            let (name, protocol) = ("metrics", Protocol::Http1);
            let entry = Entry { name, protocol, listener, tls: None, authenticate: None, bearer: None };
            self.door_until(entry, self.told.routes(&self.broker), None, self.told.drain.clone());
        }
        Ok(())
    }

    fn managed_identity(&mut self, opening: Opening, users: &Arc<UnixPeers>) {
        let settings = &self.settings.managed_identity;
        let routes = managed_identity::routes(&self.broker, opening.endpoint(settings));
        let (name, authenticate) = (opening.flavour.door(), opening.authenticate(users));
        let tls = opening.certificates.map(|certificates| {
            let tls = Arc::clone(&certificates.tls);
            certificates.follow(&self.broker.alarms, &mut self.following);
            tls
        });
        let (listener, protocol) = (opening.listener, Protocol::Http1);
        self.door(Entry { name, protocol, listener, tls, authenticate, bearer: None }, routes, None);
    }

    /// Its certificates are followed from now on.
    fn secured(&mut self, name: &'static str, secured: Secured) -> Entry {
        let Secured { listener, certificates, authenticate, bearer } = secured;
        let tls = Some(Arc::clone(&certificates.tls));
        let bearer = self.tokens.clone().filter(|_| bearer);
        certificates.follow(&self.broker.alarms, &mut self.following);
        Entry { name, protocol: Protocol::Http2, listener, tls, authenticate, bearer }
    }

    fn door(&mut self, entry: Entry, routes: Routes, shortcut: Option<Arc<dyn Shortcut>>) {
        self.door_until(entry, routes, shortcut, self.broker.drain.clone());
    }

    fn door_until(
        &mut self,
        entry: Entry,
        routes: Routes,
        shortcut: Option<Arc<dyn Shortcut>>,
        drain: Drain,
    ) {
        let Entry { name, protocol, listener, tls, authenticate, bearer } = entry;
        // The admin plane's calls.
        let finishes = protocol == Protocol::Http2 && shortcut.is_none();
        let mut settings = self.settings.door.clone();
        if finishes {
            settings.request_deadline_ms = settings.admin_request_deadline_ms;
        }
        let (streaming, complete) = (grpc::is_streaming, grpc::complete);
        let door = Door {
            name,
            listener,
            protocol,
            tls,
            settings,
            authenticate,
            bearer,
            clock: Arc::clone(&self.broker.clock),
            routes,
            shortcut,
            calls: Some(Arc::clone(&self.told.calls)),
            streaming,
            finishes,
            complete,
        };
        let (task, stats) = serve(door, drain);
        self.told.door(name, stats);
        self.doors.push(task);
    }

    /// Owns a task that goes on for as long as the broker does.
    pub(crate) fn own(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.following.spawn(task);
    }

    /// Ends when a task of the broker dies, which none should.
    pub(crate) async fn ended(&mut self) -> &'static str {
        let doors = futures_util::future::select_all(self.doors.iter_mut());
        tokio::select! {
            what = self.engine.ended() => what,
            what = self.lifecycle.ended() => what,
            what = self.tally.ended() => what,
            what = self.audit.ended() => what,
            what = self.issuers.ended() => what,
            what = self.told.ended() => what,
            _ = &mut self.events => "the passing on of events",
            _ = doors => "an accept loop",
            Some(_) = self.following.join_next() => "the following of files, or of what there is to do",
        }
    }

    /// Stops in order: callers first, then what serves them. Bounded.
    pub(crate) async fn shutdown(mut self) {
        for health in &self.health {
            health.not_serving().await;
        }
        self.broker.drain.drain(self.settings.door.drain_deadline()).await;
        self.issuers.shutdown().await;
        self.rotating.shutdown().await;
        self.lifecycle.shutdown().await;
        self.engine.shutdown().await;
        self.events.abort();
        self.tally.shutdown().await;
        // After everything that writes to it.
        self.audit.shutdown().await;
        let _ = tokio::time::timeout(STOP_TIMEOUT, self.store.close()).await;
        self.told.shutdown().await;
    }
}

impl Places {
    pub(crate) fn of(settings: &Settings, data_dir: &DataDir) -> Self {
        Self {
            data_socket: path_or(&settings.data.socket, data_dir.join("data.sock")),
            admin_socket: path_or(&settings.admin.socket, data_dir.join("admin.sock")),
        }
    }
}

/// The unix socket that was handed over, or one of our own.
async fn socket(handed: Option<Listener>, path: &Path, mode: u32) -> anyhow::Result<Listener> {
    match handed {
        Some(listener) => Ok(listener),
        None => Ok(Listener::bind(&Listen::Unix { path: path.to_owned(), mode }).await?),
    }
}

/// Tells engine, access and keys what the lifecycle did.
async fn pass_on(mut told: UnboundedReceiver<LifecycleEvent>, broker: Broker, keys: Keys) {
    while let Some(event) = told.recv().await {
        match event {
            LifecycleEvent::Activated(identity) => {
                broker.engine.retry_identity(identity);
                broker
                    .access
                    .snapshot()
                    .binding(identity)
                    .for_each(|assignment| broker.keep_warm(assignment));
            }
            LifecycleEvent::Deactivated(identity) => {
                broker.engine.evict_identity(identity);
                if let Some(identity) = broker.lifecycle.directory().identity(identity) {
                    discard(&keys, identity);
                }
            }
            LifecycleEvent::Removed(identity) => {
                broker.engine.evict_identity(identity);
                forget(&broker, identity).await;
            }
            LifecycleEvent::Switched { identity, old } => {
                keys.discard(old);
                broker.engine.retry_identity(identity);
            }
            LifecycleEvent::CredentialRemoved(credential) => keys.discard(credential),
            LifecycleEvent::WorkloadRemoved(workload) => forget(&broker, workload).await,
            LifecycleEvent::AuthorityChanged(authority) => {
                broker.engine.evict_authority(authority);
                let directory = broker.lifecycle.directory();
                let there = directory.identities_after(None).filter(|i| i.authority == authority);
                there.for_each(|identity| discard(&keys, identity));
                if let Some(Registrar::Certificate { credential, .. }) =
                    directory.authority(authority).map(|a| &a.registrar)
                {
                    keys.discard(credential.uid);
                }
                keep_all_warm(&broker);
            }
            _ => tracing::error!(?event, "a lifecycle event that nobody acts on: report it with this line"),
        }
    }
}

fn keep_all_warm(broker: &Broker) {
    broker.access.snapshot().assignments().for_each(|assignment| broker.keep_warm(assignment));
}

/// What was signed ahead must not be used any more.
fn discard(keys: &Keys, identity: &Identity) {
    identity.credentials.iter().for_each(|credential| keys.discard(credential.uid));
}

async fn forget(broker: &Broker, gone: Uid) {
    if let Err(error) = broker.access.forget(gone).await {
        tracing::warn!(%gone, %error, "role assignments of something that is gone are still stored; they allow nothing and go at the next start");
    }
}

/// After a kill between a removal and its event, assignments may be left that bind nothing.
async fn forget_what_is_gone(broker: &Broker) -> anyhow::Result<()> {
    // A record that cannot be read looks as if it were gone, and may be restored. What binds nothing allows nothing meanwhile.
    if !broker.quarantined.is_empty() {
        return Ok(());
    }
    let (directory, assignments) = (broker.lifecycle.directory(), broker.access.snapshot());
    for assignment in assignments.assignments() {
        if let AssignmentScope::Identity(uid) = assignment.scope
            && directory.identity(uid).is_none()
        {
            broker.access.forget(uid).await?;
        }
        if let Member::Workload(uid) = assignment.member
            && directory.workload(uid).is_none()
        {
            broker.access.forget(uid).await?;
        }
    }
    Ok(())
}

/// Thousands of connections need as many descriptors; the soft limit of many systems is 1024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(error = %io::Error::from(error), "the limit of file descriptors stays as it is: each connection takes one, so raise it for the process");
    }
}

/// What is on disk, and the trail on which every change of it is.
pub(crate) async fn stores(
    settings: &Settings,
    data_dir: &DataDir,
    sealing: SealingKeys,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<(Store, Trail, TrailTask)> {
    let store = Store::open(data_dir.path(), sealing, Arc::clone(clock)).await?;
    let (audit_key, begun) = audit_key(&store).await.context("the key of the audit log")?;
    let (version, audit) = (env!("CARGO_PKG_VERSION"), settings.audit.clone());
    let (trail, task) = Trail::start(data_dir.path(), audit_key, begun, audit, version, Arc::clone(clock))?;
    Ok((store, trail, task))
}

/// The key that signs the audit log: made at the first start, sealed in the store like others, under the uid that is nobody's.
/// Whether it was there before comes with it.
async fn audit_key(store: &Store) -> anyhow::Result<(AuditKey, bool)> {
    let id = SecretId { owner: Uid::LEAST, subject: Uid::LEAST, kind: SecretKind::AuditKey };
    if let Some(kept) = IdentityStore::secret(store, id).await? {
        return Ok((AuditKey::from_pkcs8(kept.expose_secret())?, true));
    }
    let made = AuditKey::generate_pkcs8()?;
    let key = AuditKey::from_pkcs8(made.expose_secret())?;
    IdentityStore::commit(store, vec![Write::Secret(id, made)]).await?;
    Ok((key, false))
}

/// The outbound side, as the authority service asks it.
struct Probe(AuthorityClient);

impl AuthorityProbe for Probe {
    fn discover(&self, request: DiscoverRequest) -> BoxFuture<'_, Result<Profile, String>> {
        Box::pin(async move {
            let shape = match request.shape {
                RegistrarShape::Entra => Shape::Entra,
                RegistrarShape::Oidc => Shape::Oidc,
            };
            let DiscoverRequest { url, ca_file, graph, overrides, .. } = request;
            let wanted = Discovery { shape, url, ca_file, graph, overrides };
            jeton_authority::discover(&wanted).await.map_err(|e| e.to_string())
        })
    }

    fn test<'a>(&'a self, authority: &'a Authority) -> BoxFuture<'a, Vec<ProbeStep>> {
        Box::pin(async move {
            let steps = self.0.test(authority).await.into_iter();
            steps.map(|s| ProbeStep { name: s.name.into(), ok: s.ok, detail: s.detail }).collect()
        })
    }
}
