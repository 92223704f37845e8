//! The handle that fills the ports: key ring for the lifecycle, assertions for whoever talks to authorities.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use jeton_core::{
    Assertion, AssertionError, AssertionRequest, Assertions, BoxFuture, Clock, KeyKind, ProofRequest, Uid,
    Wall,
    metrics::{Buckets, CALL_MICROS, Histogram},
};
use jeton_lifecycle::{IdentityStore, KeyError, KeyRequest, KeyRing, NewKey, SecretId, SecretKind};
use moka::{policy::EvictionPolicy, sync::Cache};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;

use crate::{
    KeysSettings, assertion,
    generate::generate,
    import::import,
    key::ParsedKey,
    pool::{Pool, sendable},
    workers::{TOGETHER, Urgency, Workers},
};

/// Key generations that may wait.
const MAX_QUEUED_GENERATIONS: usize = 10_000;
/// Assertions ready for one credential: as many of its targets may be due at the same time.
const MOST_PER_CREDENTIAL: usize = 64;
/// Kept for a credential that missed, beside what is due.
const RESERVE: usize = 1;

/// A cloneable handle on keys, threads and the pool.
#[derive(Clone)]
pub struct Keys(Arc<Shared>);

struct Shared {
    settings: KeysSettings,
    store: Arc<dyn IdentityStore>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    signers: Workers,
    generators: Workers,
    parsed: Cache<Uid, Arc<ParsedKey>>,
    pool: Pool,
    numbers: Numbers,
    signing: Histogram,
    /// How often a credential was discarded: what started before a discard leaves nothing behind it.
    discards: AtomicU64,
}

#[derive(Default)]
struct Numbers {
    parsed: AtomicU64,
    signed: AtomicU64,
    from_pool: AtomicU64,
    while_waited: AtomicU64,
}

/// Numbers about keys and assertions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeysStats {
    /// Assertions waiting to be used.
    pub presigned: usize,
    /// Assertions being signed ahead.
    pub coming: usize,
    /// Assertions signed so far.
    pub signed: u64,
    /// Assertions handed out that were signed ahead.
    pub taken_from_pool: u64,
    /// Assertions handed out that were signed while somebody waited.
    pub signed_while_waited: u64,
    /// Assertions signed ahead that nobody used in time.
    pub expired_unused: u64,
    /// Private keys opened and parsed so far.
    pub parsed: u64,
    /// Parsed private keys in memory.
    pub kept: u64,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Keys {
    /// Starts the threads. Must be called inside the runtime on which secrets are read from the store.
    pub fn start(
        settings: KeysSettings,
        store: Arc<dyn IdentityStore>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let threads = (settings.threads(), settings.threads());
        let signers = Workers::start("jeton-sign", threads, settings.max_queued, TOGETHER)?;
        let generators = Workers::start("jeton-keygen", (1, 0), MAX_QUEUED_GENERATIONS, 1)?;
        // The default policy may refuse a new key when full, which would then be opened and parsed for every signature.
        let parsed = Cache::builder()
            .max_capacity(settings.max_parsed_keys)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        let (pool, numbers, discards) = (Pool::default(), Numbers::default(), AtomicU64::new(0));
        let runtime = Handle::current();
        Ok(Self(Arc::new(Shared {
            settings,
            store,
            clock,
            runtime,
            signers,
            generators,
            parsed,
            pool,
            numbers,
            signing: Histogram::new(CALL_MICROS),
            discards,
        })))
    }

    /// Numbers about keys and assertions.
    pub fn stats(&self) -> KeysStats {
        let (depth, numbers) = (self.0.pool.depth(), &self.0.numbers);
        // The count is exact only after what waits to be done.
        self.0.parsed.run_pending_tasks();
        KeysStats {
            presigned: depth.ready,
            coming: depth.coming,
            signed: numbers.signed.load(Relaxed),
            taken_from_pool: numbers.from_pool.load(Relaxed),
            signed_while_waited: numbers.while_waited.load(Relaxed),
            expired_unused: depth.expired,
            parsed: numbers.parsed.load(Relaxed),
            kept: self.0.parsed.entry_count(),
        }
    }

    /// How long signatures took, the wait for a thread included.
    pub fn signing(&self) -> Buckets {
        self.0.signing.read()
    }

    /// The parsed key of a credential: from memory, or opened and parsed once.
    async fn key(
        &self,
        owner: Uid,
        credential: Uid,
        urgency: Urgency,
    ) -> Result<Arc<ParsedKey>, AssertionError> {
        if let Some(key) = self.0.parsed.get(&credential) {
            return Ok(key);
        }
        let discards = self.0.discards.load(SeqCst);
        let failed = |reason: &str| AssertionError::Key { credential, reason: reason.to_owned() };
        let id = SecretId { owner, subject: credential, kind: SecretKind::PrivateKey };
        let opened = self.0.store.secret(id).await.map_err(|e| failed(&e.to_string()))?;
        let secret = opened.ok_or_else(|| {
            failed("it is not in the store; rotate the credential or attach the identity anew")
        })?;
        let parse = move || ParsedKey::from_pkcs8(secret.expose_secret()).map(Arc::new);
        let parsed = self.0.signers.run(urgency, parse).await.ok_or(AssertionError::Busy)?;
        let key = parsed
            .ok_or_else(|| failed("it is not readable; rotate the credential or attach the identity anew"))?;
        self.0.numbers.parsed.fetch_add(1, Relaxed);
        self.0.parsed.insert(credential, Arc::clone(&key));
        // Looked at after the insert: a discard that is not seen here comes after it.
        if self.0.discards.load(SeqCst) != discards {
            self.0.parsed.invalidate(&credential);
        }
        Ok(key)
    }

    async fn sign(
        &self,
        key: Arc<ParsedKey>,
        request: AssertionRequest,
    ) -> Result<Assertion, AssertionError> {
        let (credential, algorithm) = (request.credential, request.profile.algorithm.as_str());
        let (keys, began) = (self.clone(), Instant::now());
        let job = move || keys.signed(&key, &request, began);
        let assertion = self.0.signers.run(Urgency::Now, job).await.ok_or(AssertionError::Busy)?;
        assertion.ok_or(AssertionError::Algorithm { credential, algorithm })
    }

    /// On a thread that signs. None: the key cannot make this algorithm.
    fn signed(&self, key: &ParsedKey, request: &AssertionRequest, began: Instant) -> Option<Assertion> {
        let signed = assertion::assertion(key, request, self.0.clock.now().wall);
        self.0.signing.record(began.elapsed());
        self.0.numbers.signed.fetch_add(u64::from(signed.is_some()), Relaxed);
        signed
    }

    /// A place in the pool for one more assertion, if its credential has fewer than that.
    fn reserve(&self, request: &AssertionRequest, up_to: usize) -> Option<Reserved> {
        let (most, now) = (self.0.settings.max_presigned, self.0.clock.now().wall);
        let reserved = self.0.pool.reserve(request, up_to, most, now);
        reserved.then(|| Reserved { keys: self.clone(), request: request.clone(), filled: false })
    }

    /// Signs when no one else wants the processor.
    fn sign_ahead(&self, key: Arc<ParsedKey>, reserved: Reserved) {
        let began = Instant::now();
        // A full line has room for what somebody waits for, and drops this.
        self.0.signers.submit(Urgency::Ahead, move || {
            reserved.fill(&key, began);
            || {}
        });
    }
}

/// A place in the pool; given back on drop where no assertion came.
struct Reserved {
    keys: Keys,
    request: AssertionRequest,
    filled: bool,
}

impl Reserved {
    fn fill(mut self, key: &ParsedKey, began: Instant) {
        if let Some(assertion) = self.keys.signed(key, &self.request, began) {
            self.filled = true;
            self.keys.0.pool.put(&self.request, assertion);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.filled {
            self.keys.0.pool.failed(&self.request);
        }
    }
}

impl Assertions for Keys {
    fn prepare(&self, request: &AssertionRequest, ahead: Duration) {
        let now = self.0.clock.now().wall;
        if !sendable(assertion::expires_at(request, now), request, now + ahead) {
            return;
        }
        let Some(reserved) = self.reserve(request, MOST_PER_CREDENTIAL) else { return };
        let keys = self.clone();
        // Bounded by the pool: no more are under way than have a place in it.
        self.0.runtime.spawn(async move {
            let (owner, credential) = (reserved.request.owner, reserved.request.credential);
            match keys.key(owner, credential, Urgency::Ahead).await {
                Ok(key) => keys.sign_ahead(key, reserved),
                Err(error) => tracing::debug!(%credential, %error, "no assertion is signed ahead"),
            }
        });
    }

    fn take(&self, request: AssertionRequest) -> BoxFuture<'_, Result<Assertion, AssertionError>> {
        Box::pin(async move {
            if let Some(assertion) = self.0.pool.take(&request, self.0.clock.now().wall) {
                self.0.numbers.from_pool.fetch_add(1, Relaxed);
                jeton_trace::current().text("jeton.assertion.source", "pool");
                return Ok(assertion);
            }
            let discards = self.0.discards.load(SeqCst);
            let key = self.key(request.owner, request.credential, Urgency::Now).await?;
            let assertion = self.sign(Arc::clone(&key), request.clone()).await?;
            self.0.numbers.while_waited.fetch_add(1, Relaxed);
            jeton_trace::current().text("jeton.assertion.source", "signed");
            // A key that missed has one in reserve from now on, unless others wait: then each may miss, and no reserve is of use to them.
            if !self.0.signers.in_demand()
                && self.0.discards.load(SeqCst) == discards
                && let Some(reserved) = self.reserve(&request, RESERVE)
            {
                self.sign_ahead(key, reserved);
            }
            Ok(assertion)
        })
    }

    fn proof(&self, request: ProofRequest) -> BoxFuture<'_, Result<SecretString, AssertionError>> {
        Box::pin(async move {
            let key = self.key(request.owner, request.credential, Urgency::Now).await?;
            let (now, credential) = (self.0.clock.now().wall, request.credential);
            let signed =
                self.0.signers.run(Urgency::Now, move || assertion::proof(&key, &request, now)).await;
            signed
                .ok_or(AssertionError::Busy)?
                .ok_or(AssertionError::Algorithm { credential, algorithm: "RS256" })
        })
    }

    fn discard(&self, credential: Uid) {
        self.0.discards.fetch_add(1, SeqCst);
        self.0.pool.discard(credential);
        self.0.parsed.invalidate(&credential);
    }
}

impl KeyRing for Keys {
    fn make(&self, request: KeyRequest) -> BoxFuture<'_, Result<NewKey, KeyError>> {
        Box::pin(async move {
            // One on a curve is made as fast as a signature, and does not stand in line behind an RSA key.
            let workers = match request.kind {
                KeyKind::P256 => &self.0.signers,
                _ => &self.0.generators,
            };
            workers.run(Urgency::Now, move || generate(&request)).await.ok_or(KeyError::Busy)?
        })
    }

    fn import(
        &self,
        certificate_pem: String,
        private_key_pem: SecretString,
        now: Wall,
    ) -> BoxFuture<'_, Result<NewKey, KeyError>> {
        Box::pin(async move {
            let job = move || import(&certificate_pem, &private_key_pem, now);
            self.0.signers.run(Urgency::Now, job).await.ok_or(KeyError::Busy)?
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, task::Poll};

    use jeton_core::{
        SigningAlgorithm,
        profile::{AssertionProfile, IssuedAt, KeyReference},
    };
    use jeton_lifecycle::{Write, testing::MemoryIdentityStore};
    use jeton_testkit::ManualClock;

    use super::*;

    async fn missing(keys: &Keys, store: &MemoryIdentityStore, clock: &ManualClock) -> AssertionRequest {
        let (not_before, valid_for) = (clock.now().wall, Duration::from_secs(86_400));
        let request =
            KeyRequest { kind: KeyKind::P256, subject: "identities/billing".into(), not_before, valid_for };
        let made = keys.make(request).await.unwrap();
        let uid = Uid::new(not_before, [1; 10]);
        let id = SecretId { owner: uid, subject: uid, kind: SecretKind::PrivateKey };
        store.commit(vec![Write::Secret(id, made.private)]).await.unwrap();
        let profile = AssertionProfile {
            algorithm: SigningAlgorithm::Es256,
            key_reference: KeyReference::X5tS256,
            audience: "https://login.example/token".into(),
            lifetime_seconds: 600,
            issued_at: IssuedAt::Absent,
            not_before: false,
        };
        AssertionRequest {
            owner: uid,
            credential: uid,
            references: made.facts.references,
            client_id: "client-1".into(),
            profile: profile.into(),
            skew_millis: 0,
        }
    }

    #[tokio::test]
    async fn a_key_that_missed_gets_no_reserve_while_others_wait() {
        let (clock, store) = (ManualClock::default(), MemoryIdentityStore::default());
        let settings = KeysSettings { signing_threads: 1, ..KeysSettings::default() };
        let keys = Keys::start(settings, Arc::new(store.clone()), Arc::new(clock.clone())).unwrap();
        let request = missing(&keys, &store, &clock).await;
        // Parsed and in memory from here on.
        keys.key(request.owner, request.credential, Urgency::Now).await.unwrap();
        let block = || {
            let (go, wait) = mpsc::channel::<()>();
            assert!(keys.0.signers.submit(Urgency::Now, move || {
                let _ = wait.recv();
                || {}
            }));
            go
        };
        let before = block();
        let mut taken = keys.take(request.clone());
        assert!(std::future::poll_fn(|cx| Poll::Ready(taken.as_mut().poll(cx).is_pending())).await);
        let (after, _last) = (block(), block());
        drop(before);
        // One thread: the next is in hand, and the last one waits.
        taken.await.unwrap();
        assert_eq!((keys.stats().signed, keys.stats().coming + keys.stats().presigned), (1, 0));
        drop(after);
    }
}
