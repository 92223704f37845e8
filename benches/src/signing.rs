//! A token source like the product's, with real assertions and an authority that answers at once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use jeton_core::{
    AssertionRequest, Assertions, BoxFuture, CertificateFacts, Clock, IssuedToken, KeyKind, SigningAlgorithm,
    TokenKey, Uid, Wall,
    profile::{AssertionProfile, IssuedAt, KeyReference},
};
use jeton_engine::{IssueError, TokenSource, testing::key};
use jeton_keys::{Keys, KeysSettings};
use jeton_lifecycle::{
    IdentityStore, KeyRequest, KeyRing, SecretId, SecretKind, Write, testing::MemoryIdentityStore,
};
use secrecy::{ExposeSecret, SecretSlice};

use crate::{Size, token, uid};

/// Private keys, made once for all that is measured with them.
pub struct Material(Vec<(SecretSlice<u8>, CertificateFacts)>);

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("keys", &self.0.len()).finish_non_exhaustive()
    }
}

impl Material {
    /// A few keys of this kind: generating one for each of thousands of identities takes minutes.
    pub async fn generate(kind: KeyKind) -> Self {
        let (store, clock) = (MemoryIdentityStore::default(), Arc::new(jeton_core::SystemClock));
        let now = clock.now().wall;
        let keys = Keys::start(KeysSettings::default(), Arc::new(store), clock).expect("threads");
        let mut made = vec![];
        for _ in 0..16 {
            let (subject, valid_for) = ("identities/load".into(), crate::DAY);
            let request = KeyRequest { kind, subject, not_before: now, valid_for };
            let key = keys.make(request).await.expect("a key");
            made.push((key.private, key.facts));
        }
        Self(made)
    }

    /// Each as PKCS#8.
    pub fn pkcs8(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.0.iter().map(|(private, _)| private.expose_secret())
    }
}

/// So many tokens are to be issued.
#[derive(Debug)]
pub struct Round {
    first: OnceLock<Instant>,
    left: AtomicUsize,
    done: mpsc::Sender<Duration>,
}

/// Signs an assertion for each token. Clones share their keys.
#[derive(Debug, Clone)]
pub struct Signing {
    /// What signs.
    pub keys: Keys,
    clients: Arc<HashMap<Uid, AssertionRequest>>,
    round: Arc<Mutex<Option<Arc<Round>>>>,
    issued: Arc<AtomicUsize>,
    /// Made once: what an authority takes to make its answer is not ours.
    answer: Arc<IssuedToken>,
}

impl Signing {
    /// A credential for each identity. Must be called inside a runtime.
    pub async fn new(
        size: Size,
        algorithm: SigningAlgorithm,
        material: &Material,
        settings: KeysSettings,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let store = MemoryIdentityStore::default();
        let mut clients = HashMap::new();
        let profile = Arc::new(profile(algorithm));
        for n in 0..size.slots.div_ceil(size.scopes) {
            let (private, facts) = &material.0[n % material.0.len()];
            let id = SecretId { owner: uid(n), subject: uid(n), kind: SecretKind::PrivateKey };
            let write = Write::Secret(id, private.expose_secret().to_vec().into());
            store.commit(vec![write]).await.expect("kept");
            let request = AssertionRequest {
                owner: uid(n),
                credential: uid(n),
                references: facts.references.clone(),
                client_id: format!("client-{n}").into(),
                profile: Arc::clone(&profile),
                skew_millis: 0,
            };
            clients.insert(uid(n), request);
        }
        let keys = Keys::start(settings, Arc::new(store), clock).expect("threads");
        let answer = Arc::new(token(&key(1, "any"), 1, size));
        Self { keys, clients: Arc::new(clients), round: Arc::default(), issued: Arc::default(), answer }
    }

    /// Waits for so many tokens, from the first of them to the last.
    pub fn round(&self, tokens: usize) -> mpsc::Receiver<Duration> {
        let (done, ended) = mpsc::channel();
        let round = Round { first: OnceLock::new(), left: AtomicUsize::new(tokens), done };
        *self.round.lock().expect("nobody panics") = Some(Arc::new(round));
        ended
    }

    /// Tokens so far.
    pub fn issued(&self) -> usize {
        self.issued.load(Relaxed)
    }

    /// The client of an identity.
    pub fn client(&self, identity: Uid) -> &AssertionRequest {
        &self.clients[&identity]
    }
}

fn profile(algorithm: SigningAlgorithm) -> AssertionProfile {
    AssertionProfile {
        algorithm,
        key_reference: KeyReference::X5tS256,
        audience: "https://login.example/token".into(),
        lifetime_seconds: 600,
        issued_at: IssuedAt::SecondsAgo(5),
        not_before: true,
    }
}

impl TokenSource for Signing {
    fn prepare(&self, key: &TokenKey, ahead: Duration) {
        self.keys.prepare(self.client(key.identity), ahead);
    }

    fn issue(&self, key: TokenKey) -> BoxFuture<'static, Result<IssuedToken, IssueError>> {
        let (keys, request) = (self.keys.clone(), self.client(key.identity).clone());
        let round = self.round.lock().expect("nobody panics").clone();
        let (issued, answer) = (Arc::clone(&self.issued), Arc::clone(&self.answer));
        Box::pin(async move {
            let first = round.as_ref().map(|round| *round.first.get_or_init(Instant::now));
            let assertion = keys.take(request).await.expect("an assertion");
            assert!(assertion.expires_at > Wall::default());
            issued.fetch_add(1, Relaxed);
            if let Some((round, first)) = round.zip(first)
                && round.left.fetch_sub(1, Relaxed) == 1
            {
                // Nobody may be waiting any more.
                let _ = round.done.send(first.elapsed());
            }
            // A text of its own, as whoever reads an answer makes it.
            let text = answer.access_token.expose_secret().to_owned();
            Ok(IssuedToken { access_token: text.into(), ..answer.as_ref().clone() })
        })
    }
}
