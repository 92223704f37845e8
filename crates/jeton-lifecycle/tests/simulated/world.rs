//! The lifecycle, its ports in memory, and a clock.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jeton_core::{
    Identity, IdentityName, IdentityState, OperationKind, SharedDirectory, Step, Uid,
    audit::testing::MemoryTrail,
};
use jeton_lifecycle::{
    CreateIdentity, IdentityStore, Lifecycle, LifecycleError, LifecycleEvent, LifecycleSettings,
    LifecycleTasks, Ports, RotationSettings, Write,
    testing::{FakeKeyRing, FakeRegistry, MemoryIdentityStore, authority},
};
use jeton_testkit::{ManualClock, START};
use jeton_trace::Tracer;

pub(crate) const S: fn(u64) -> Duration = Duration::from_secs;
pub(crate) const SEEDS: u64 = 20;

/// Tries of steps: of what, which, and the failure.
pub(crate) type Tried = Vec<(OperationKind, Step, Option<String>)>;

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) store: MemoryIdentityStore,
    pub(crate) registry: FakeRegistry,
    pub(crate) events: Arc<Mutex<Vec<LifecycleEvent>>>,
    /// The steps that were tried, and why they failed if they did.
    pub(crate) tried: Arc<Mutex<Tried>>,
    pub(crate) trail: MemoryTrail,
    pub(crate) settings: LifecycleSettings,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) tasks: LifecycleTasks,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(RotationSettings::default()).await
    }

    pub(crate) async fn with(rotation: RotationSettings) -> Self {
        Self::traced(rotation, Tracer::default()).await
    }

    /// With its steps recorded.
    pub(crate) async fn traced(rotation: RotationSettings, tracer: Tracer) -> Self {
        let store = MemoryIdentityStore::default();
        for (id, n, can_look_up) in [("entra", 201, true), ("oidc", 202, false)] {
            let uid = Uid::new(START, [n; 10]);
            store.commit(vec![Write::Authority(Box::new(authority(id, uid, can_look_up)))]).await.unwrap();
        }
        let settings = LifecycleSettings { rotation, ..LifecycleSettings::default() };
        let (clock, registry, events, tried) =
            (ManualClock::default(), FakeRegistry::new(store.clone()), Arc::default(), Arc::default());
        let trail = MemoryTrail::default();
        let (lifecycle, tasks) =
            start(&settings, &clock, &store, &registry, (&events, &tried), &trail, tracer).await;
        Self { clock, store, registry, events, tried, trail, settings, lifecycle, tasks }
    }

    /// Killed and started again on the same store.
    pub(crate) async fn restart(self) -> Self {
        let Self { clock, store, registry, events, tried, trail, settings, lifecycle, tasks } = self;
        drop((lifecycle, tasks));
        store.heal();
        let (lifecycle, tasks) =
            start(&settings, &clock, &store, &registry, (&events, &tried), &trail, Tracer::default()).await;
        Self { clock, store, registry, events, tried, trail, settings, lifecycle, tasks }
    }

    /// Stopped in order and started again.
    pub(crate) async fn stop_and_start(self) -> Self {
        let Self { clock, store, registry, events, tried, trail, settings, lifecycle, tasks } = self;
        drop(lifecycle);
        tasks.shutdown().await;
        let (lifecycle, tasks) =
            start(&settings, &clock, &store, &registry, (&events, &tried), &trail, Tracer::default()).await;
        Self { clock, store, registry, events, tried, trail, settings, lifecycle, tasks }
    }

    pub(crate) async fn create(&self, name: &str, at: &str) -> Result<Arc<Identity>, LifecycleError> {
        self.lifecycle.create_identity(create(name, at, "")).await
    }

    pub(crate) fn identity(&self, name: &str) -> Option<Arc<Identity>> {
        let name: IdentityName = name.parse().unwrap();
        self.lifecycle.directory().identity_named(&name).cloned()
    }

    /// Time goes on until nothing is under way, or only an overlap; the oracle looks at every step.
    pub(crate) async fn settle(&self, name: &str) -> Arc<Identity> {
        for _ in 0..20_000 {
            self.clock.advance(Duration::from_millis(100)).await;
            let identity = self.identity(name).unwrap();
            self.look(&identity);
            match &identity.operation {
                None => return identity,
                Some(o) if o.step() == Some(Step::Overlapped) => return identity,
                Some(_) if identity.state == IdentityState::Failed => return identity,
                Some(_) => {}
            }
        }
        panic!("{:?} does not settle", self.identity(name));
    }

    /// One client is in use, with one key, and every other is listed; at most one for each answer that was lost.
    pub(crate) fn both_sides_know_the_same(&self, name: &str, which: &str) {
        let identity = self.identity(name).unwrap();
        let (clients, orphans) = (self.registry.clients(), self.lifecycle.orphans());
        let (own, others): (Vec<_>, Vec<_>) =
            clients.iter().partition(|(id, ..)| identity.client_id.as_deref() == Some(id));
        assert_eq!(own.len(), 1, "{which}: {clients:?}");
        assert_eq!(own[0].2.len(), 1, "{which}: the old key stayed: {clients:?}");
        let unnamed: u32 =
            orphans.iter().filter(|orphan| orphan.client_id.is_none()).map(|o| 1 + o.repeated).sum();
        let unlisted = others
            .iter()
            .filter(|(id, ..)| orphans.iter().all(|orphan| orphan.client_id.as_deref() != Some(id)));
        assert!(unlisted.count() <= unnamed as usize, "{which}: {clients:?}, listed {orphans:?}");
    }

    /// What must hold at any time.
    pub(crate) fn look(&self, identity: &Identity) {
        if let Some(current) = identity.current()
            && identity.state == IdentityState::Active
        {
            assert!(
                self.registry.accepts(identity, current),
                "the current key is not registered: {identity:?}"
            );
        }
        for (client, owner, keys) in self.registry.clients() {
            if owner == identity.uid && identity.client_id.as_deref() == Some(&client) {
                assert!((1..=2).contains(&keys.len()), "{client} has {keys:?}");
            }
        }
    }
}

async fn start(
    settings: &LifecycleSettings,
    clock: &ManualClock,
    store: &MemoryIdentityStore,
    registry: &FakeRegistry,
    (events, tried): (&Arc<Mutex<Vec<LifecycleEvent>>>, &Arc<Mutex<Tried>>),
    trail: &MemoryTrail,
    tracer: Tracer,
) -> (Lifecycle, LifecycleTasks) {
    let (told, tried) = (Arc::clone(events), Arc::clone(tried));
    let ports = Ports {
        store: Arc::new(store.clone()),
        keys: Arc::new(FakeKeyRing),
        registry: Arc::new(registry.clone()),
        clock: Arc::new(clock.clone()),
        directory: SharedDirectory::default(),
        trail: Arc::new(trail.clone()),
        seed: jeton_core::Clock::now(clock).boot.as_millis(),
        tracer,
        on_event: Arc::new(move |event| told.lock().unwrap().push(event)),
        on_step: Arc::new(move |step| {
            let failure = step.failure.map(str::to_owned);
            tried.lock().unwrap().push((step.kind, step.step, failure));
        }),
    };
    Lifecycle::start(settings.clone(), ports).await.unwrap()
}

pub(crate) fn create(name: &str, at: &str, request_id: &str) -> CreateIdentity {
    CreateIdentity {
        name: name.parse().unwrap(),
        authority: format!("authorities/{at}").parse().unwrap(),
        display_name: String::new(),
        labels: Default::default(),
        request_id: request_id.into(),
    }
}
