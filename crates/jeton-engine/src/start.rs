//! Starting and stopping: what was kept is taken over, two tasks are owned, the end is bounded.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use jeton_core::{AccessToken, Clock, Freshness, Principal, SharedDirectory, Token, TokenHash};
use jeton_trace::Tracer;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::task::JoinHandle;

use crate::{
    Engine, EngineSettings, Kept, TokenSource, TokenStore, TokenStoreError,
    engine::Shared,
    gate::Gate,
    refresh,
    writer::{self, Pending, Writer},
};

/// Makes what is handed out of a token, once per swap.
pub type Encoder = Arc<dyn Fn(&Token) -> Encoded + Send + Sync>;

/// What is handed out of a token.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Its wire bytes.
    pub bytes: Bytes,
    /// The token's text among them: the engine keeps no other.
    pub access_token: AccessToken,
    /// By which the audit log knows it.
    pub hash: TokenHash,
}

const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What the engine needs of the world.
pub struct Ports {
    /// Who issues tokens.
    pub source: Arc<dyn TokenSource>,
    /// Who keeps them over a restart.
    pub store: Arc<dyn TokenStore>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Who exists; the engine reads the authorities' limits there.
    pub directory: SharedDirectory,
    /// How a token looks on the wire.
    pub encoder: Encoder,
    /// Seeds the jitter.
    pub seed: u64,
    /// Records flights.
    pub tracer: Tracer,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// The engine's tasks. Their owner notices when one dies, and stops them.
#[derive(Debug)]
pub struct EngineTasks {
    shared: Engine,
    tick: JoinHandle<()>,
    writer: JoinHandle<()>,
}

/// A source of jitter.
pub(crate) struct Draw(Mutex<SmallRng>);

impl Draw {
    pub(crate) fn unit(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

impl Engine {
    /// Takes over what was kept and starts refreshing. A store that cannot be read is an error; unreadable rows are not.
    pub async fn start(
        settings: EngineSettings,
        ports: Ports,
    ) -> Result<(Engine, EngineTasks), TokenStoreError> {
        let kept = ports.store.load().await?;
        let (writer, writes) = Writer::new(settings.max_pending_writes);
        let gate = Gate::new(ports.directory);
        let draw = Draw(Mutex::new(SmallRng::seed_from_u64(ports.seed)));
        let Ports { source, clock, encoder, tracer, .. } = ports;
        let shared = Shared::new(settings, gate, writer, source, clock, encoder, draw, tracer);
        let engine = Engine { shared: Arc::new(shared) };
        engine.take_over(kept);
        let stop = engine.shared.stop.clone();
        let tick = tokio::spawn(refresh::run(Arc::clone(&engine.shared), stop));
        let writer = tokio::spawn(writer::run(writes, ports.store, engine.shared.stop.clone()));
        Ok((engine.clone(), EngineTasks { shared: engine, tick, writer }))
    }

    fn take_over(&self, kept: Kept) {
        let shared = &self.shared;
        let now = shared.clock.now();
        kept.holds.into_iter().for_each(|hold| shared.gate.restore(hold, now));
        let owner = Principal::restored();
        let mut valid = 0;
        for stored in kept.tokens {
            let token = Token::restored(stored.token, stored.issued_at, stored.refresh_at, now);
            // A wall clock that was set back would give it more life than it has.
            if token.issued_at > now.wall || token.freshness(now) == Freshness::Expired {
                shared.writer.put(Pending::Remove(stored.key));
                continue;
            }
            valid += 1;
            // Nobody's share: whoever asked for them is not known any more.
            let Ok(slot) = shared.index.ensure(&stored.key, &owner, now) else { continue };
            slot.restore_used(stored.last_used, token.lifetime(), now);
            stored.earlier_until.into_iter().for_each(|until| slot.note_earlier(until));
            let cached = shared.put(&slot, token);
            shared.index.weigh(&slot, now);
            shared.enqueue(&slot, &cached.token);
        }
        let left_out = valid - shared.index.len();
        if left_out > 0 {
            tracing::warn!(
                left_out,
                "the cache has no room for all tokens that were kept over the restart; whoever asks for one of these waits for its authority: raise engine.max_entries and engine.max_bytes"
            );
        }
    }
}

impl EngineTasks {
    /// Ends when a task dies on its own, which none should.
    pub async fn ended(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.tick => "the refresh tick",
            _ = &mut self.writer => "the token writer",
        }
    }

    /// Lets flights end for a short time, writes what is left, and stops.
    pub async fn shutdown(self) {
        let shared = &self.shared.shared;
        shared.flights.close();
        let _ = tokio::time::timeout(STOP_TIMEOUT, shared.flights.wait()).await;
        shared.stop.cancel();
        let (tick, writer) = (self.tick.abort_handle(), self.writer.abort_handle());
        let ended = tokio::time::timeout(STOP_TIMEOUT, async {
            (self.tick.await.is_ok(), self.writer.await.is_ok())
        })
        .await;
        if ended.is_err() {
            tick.abort();
            writer.abort();
        }
    }
}
