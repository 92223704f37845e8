//! The engine, its ports in memory, and a clock.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jeton_core::{
    Clock, Directory, SharedDirectory, TokenHash, TokenKey, profile::AuthorityLimits, serve_floor,
};
use jeton_engine::{
    Ask, Encoded, Engine, EngineSettings, EngineTasks, Hit, IssueErrorClass, Ports, TokenError,
    testing::{MemoryTokenStore, Script, ScriptedSource, caller, failure, key},
};
use jeton_testkit::ManualClock;
use jeton_trace::Tracer;
use secrecy::ExposeSecret;

pub(crate) const S: fn(u64) -> Duration = Duration::from_secs;
pub(crate) const MS: fn(u64) -> Duration = Duration::from_millis;

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) source: ScriptedSource,
    pub(crate) store: MemoryTokenStore,
    pub(crate) engine: Engine,
    pub(crate) tasks: EngineTasks,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(generous()).await
    }

    pub(crate) async fn with(settings: EngineSettings) -> Self {
        Self::at(AuthorityLimits::default(), settings, 1).await
    }

    /// At an authority that takes as many requests as there are.
    pub(crate) async fn spacious(seed: u64) -> Self {
        let limits = AuthorityLimits {
            max_concurrent: 1_000_000,
            requests_per_second: 1_000_000,
            ..AuthorityLimits::default()
        };
        Self::at(limits, generous(), seed).await
    }

    pub(crate) async fn at(limits: AuthorityLimits, settings: EngineSettings, seed: u64) -> Self {
        let clock = ManualClock::default();
        let source = ScriptedSource::new(Arc::new(clock.clone()));
        let store = MemoryTokenStore::default();
        let tracer = Tracer::default();
        let (engine, tasks) = start(limits, &settings, seed, &clock, &source, &store, tracer).await;
        Self { clock, source, store, engine, tasks }
    }

    /// With its flights recorded.
    pub(crate) async fn traced(tracer: Tracer) -> Self {
        let clock = ManualClock::default();
        let source = ScriptedSource::new(Arc::new(clock.clone()));
        let (store, limits) = (MemoryTokenStore::default(), AuthorityLimits::default());
        let (engine, tasks) = start(limits, &generous(), 1, &clock, &source, &store, tracer).await;
        Self { clock, source, store, engine, tasks }
    }

    /// Killed, and started again on the same store.
    pub(crate) async fn restart(self, settings: &EngineSettings) -> Self {
        self.clock.advance(MS(200)).await;
        self.killed(settings).await
    }

    /// Killed at once.
    pub(crate) async fn killed(self, settings: &EngineSettings) -> Self {
        let Self { clock, source, store, .. } = self;
        let (limits, tracer) = (AuthorityLimits::default(), Tracer::default());
        let (engine, tasks) = start(limits, settings, 1, &clock, &source, &store, tracer).await;
        Self { clock, source, store, engine, tasks }
    }

    /// Stopped in order, and started again so much later.
    pub(crate) async fn stop_and_start(self, settings: &EngineSettings, later: Duration) -> Self {
        let Self { clock, source, store, tasks, .. } = self;
        let stopping = tokio::spawn(tasks.shutdown());
        while !stopping.is_finished() {
            clock.advance(MS(50)).await;
        }
        clock.suspend(later);
        let (limits, tracer) = (AuthorityLimits::default(), Tracer::default());
        let (engine, tasks) = start(limits, settings, 1, &clock, &source, &store, tracer).await;
        Self { clock, source, store, engine, tasks }
    }

    pub(crate) fn ask(&self, n: u32) -> Ask {
        Ask { caller: caller(n).into(), wait: None, min_validity: None }
    }

    /// Asks while time goes on, as every caller does.
    pub(crate) async fn token(&self, key: &TokenKey) -> Result<Hit, TokenError> {
        let (engine, ask, wanted) = (self.engine.clone(), self.ask(1), key.clone());
        let asking = tokio::spawn(async move { engine.token(&wanted, ask).await });
        while !asking.is_finished() {
            self.clock.advance(MS(50)).await;
        }
        let answer = asking.await.unwrap();
        if let Ok(hit) = &answer {
            self.check(key, hit);
        }
        answer
    }

    /// Has somebody ask for all of them, and does not wait.
    pub(crate) fn ask_for(&self, keys: &[TokenKey]) {
        for it in keys {
            let (engine, ask, wanted) = (self.engine.clone(), self.ask(1), it.clone());
            tokio::spawn(async move { engine.token(&wanted, ask).await });
        }
    }

    /// Loads them all within a second.
    pub(crate) async fn load(&self, keys: &[TokenKey]) {
        for some in keys.chunks(keys.len().div_ceil(14)) {
            self.ask_for(some);
            self.clock.advance(MS(50)).await;
        }
        self.clock.advance(MS(300)).await;
        assert!(keys.iter().all(|it| self.engine.cached(it).is_some()), "all are loaded within a second");
    }

    pub(crate) fn check(&self, key: &TokenKey, hit: &Hit) {
        let text = hit.token.issued.access_token.expose_secret();
        assert!(text.starts_with(&key.identity.to_string()), "a token of another identity: {text}");
        let left = hit.token.remaining(self.clock.now());
        assert!(left >= serve_floor(hit.token.lifetime()), "only {left:?} left");
    }

    pub(crate) fn fail(&self, class: IssueErrorClass, retry_after: Option<Duration>) {
        self.source.script_all(Script { failure: Some(failure(class, retry_after)), ..Script::default() });
    }
}

/// No caller is over its bucket, and every token is kept.
pub(crate) fn generous() -> EngineSettings {
    EngineSettings {
        misses_per_second: 1_000_000,
        miss_burst: 1_000_000,
        max_pending_writes: 100_000,
        ..EngineSettings::default()
    }
}

async fn start(
    limits: AuthorityLimits,
    settings: &EngineSettings,
    seed: u64,
    clock: &ManualClock,
    source: &ScriptedSource,
    store: &MemoryTokenStore,
    tracer: Tracer,
) -> (Engine, EngineTasks) {
    let mut authority = jeton_lifecycle::testing::authority("a", key(0, "a").authority, true);
    let mut profile = authority.profile.as_ref().clone();
    profile.limits = limits;
    authority.profile = Arc::new(profile);
    let mut directory = Directory::default();
    directory.put_authority(Arc::new(authority));
    let ports = Ports {
        source: Arc::new(source.clone()),
        store: Arc::new(store.clone()),
        clock: Arc::new(clock.clone()),
        directory: SharedDirectory::new(directory),
        encoder: Arc::new(|token| Encoded {
            bytes: Bytes::copy_from_slice(token.issued.access_token.expose_secret().as_bytes()),
            access_token: token.issued.access_token.clone(),
            hash: TokenHash::new(&[]),
        }),
        seed,
        tracer,
    };
    Engine::start(settings.clone(), ports).await.unwrap()
}

/// The keys of so many identities.
pub(crate) fn keys(count: u64) -> Vec<TokenKey> {
    (0..count).map(|n| key(n, "a")).collect()
}
