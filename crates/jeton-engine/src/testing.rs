//! The engine's ports in memory, and the contract that every token store keeps.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jeton_core::{
    BoxFuture, Clock, IssuedToken, Mono, Principal, Target, Token, TokenKey, TokenType, Uid, Wall,
};

use crate::{
    Hold, IssueError, IssueErrorClass, Kept, Scope, StoredToken, TokenSource, TokenStore, TokenStoreError,
    TokenWrite,
};

type Everything = (HashMap<TokenKey, StoredToken>, HashMap<(Uid, Uid), Hold>);

/// Keeps tokens in memory. Clones share what they keep, as a store does over a restart.
#[derive(Debug, Clone, Default)]
pub struct MemoryTokenStore {
    kept: Arc<Mutex<Everything>>,
}

impl TokenStore for MemoryTokenStore {
    fn load(&self) -> BoxFuture<'_, Result<Kept, TokenStoreError>> {
        let kept = locked(&self.kept);
        let (tokens, holds) = (kept.0.values().cloned().collect(), kept.1.values().copied().collect());
        Box::pin(async move { Ok(Kept { tokens, holds, unreadable: 0 }) })
    }

    fn write(&self, batch: Vec<TokenWrite>) -> BoxFuture<'_, Result<(), TokenStoreError>> {
        let mut kept = locked(&self.kept);
        for write in batch {
            match write {
                TokenWrite::Put(stored) => {
                    kept.0.insert(stored.key.clone(), *stored);
                }
                TokenWrite::Remove(key) => {
                    kept.0.remove(&key);
                }
                TokenWrite::Hold(hold) => {
                    kept.1.insert((hold.authority, hold.identity), hold);
                }
                TokenWrite::Revoke(scope) => kept.0.retain(|key, _| !scope.covers(key)),
            }
        }
        Box::pin(async { Ok(()) })
    }
}

/// What a scripted source does with a key.
#[derive(Debug, Clone)]
pub struct Script {
    /// How long an answer takes.
    pub latency: Duration,
    /// `expires_in`.
    pub lifetime: Duration,
    /// The error in place of a token.
    pub failure: Option<IssueError>,
    /// Whether the source panics in place of an answer.
    pub dies: bool,
}

impl Default for Script {
    fn default() -> Self {
        let (latency, lifetime) = (Duration::from_millis(5), Duration::from_secs(3600));
        Self { latency, lifetime, failure: None, dies: false }
    }
}

/// Issues tokens by script and keeps watch: it stamps the identity and a serial number into each token, counts requests and
/// concurrency per key, and remembers when each request came.
#[derive(Clone)]
pub struct ScriptedSource {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<SourceState>>,
}

#[derive(Debug, Default)]
struct SourceState {
    all: Script,
    scripts: HashMap<Uid, Script>,
    requests: HashMap<TokenKey, Vec<Mono>>,
    in_flight: HashMap<TokenKey, u32>,
    most_in_flight: u32,
    prepared: HashMap<TokenKey, u32>,
    serial: u64,
    revocation: Option<Result<(), IssueError>>,
    revoked: Vec<String>,
    revoking: usize,
    most_revoking: usize,
}

impl std::fmt::Debug for ScriptedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptedSource").finish_non_exhaustive()
    }
}

impl ScriptedSource {
    /// With the default script for all.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// What every identity gets that has no script of its own.
    pub fn script_all(&self, script: Script) {
        locked(&self.state).all = script;
    }

    /// What one identity gets.
    pub fn script(&self, identity: Uid, script: Script) {
        locked(&self.state).scripts.insert(identity, script);
    }

    /// When each request for a key came, on the boot-time clock.
    pub fn requests(&self, key: &TokenKey) -> Vec<Mono> {
        locked(&self.state).requests.get(key).cloned().unwrap_or_default()
    }

    /// When every request came.
    pub fn all_requests(&self) -> Vec<Mono> {
        let mut all: Vec<_> = locked(&self.state).requests.values().flatten().copied().collect();
        all.sort_unstable();
        all
    }

    /// Most requests under way for one key at any time.
    pub fn most_in_flight(&self) -> u32 {
        locked(&self.state).most_in_flight
    }

    /// How every revocation ends; none: nothing can be revoked, as at first.
    pub fn script_revocation(&self, outcome: Option<Result<(), IssueError>>) {
        locked(&self.state).revocation = outcome;
    }

    /// The tokens that were to be revoked, in order, and the most requests for that under way at any time.
    pub fn revocations(&self) -> (Vec<String>, usize) {
        let state = locked(&self.state);
        (state.revoked.clone(), state.most_revoking)
    }

    /// How many requests there were: the serial number of the latest token.
    pub fn serial(&self) -> u64 {
        locked(&self.state).serial
    }

    /// How often an assertion was asked for ahead.
    pub fn prepared(&self, key: &TokenKey) -> u32 {
        locked(&self.state).prepared.get(key).copied().unwrap_or(0)
    }
}

impl TokenSource for ScriptedSource {
    fn prepare(&self, key: &TokenKey, _ahead: Duration) {
        *locked(&self.state).prepared.entry(key.clone()).or_default() += 1;
    }

    fn issue(&self, key: TokenKey) -> BoxFuture<'static, Result<IssuedToken, IssueError>> {
        let now = self.clock.now();
        let (script, serial) = {
            let mut state = locked(&self.state);
            state.requests.entry(key.clone()).or_default().push(now.boot);
            let concurrent = state.in_flight.entry(key.clone()).or_default();
            *concurrent += 1;
            let concurrent = *concurrent;
            state.most_in_flight = state.most_in_flight.max(concurrent);
            state.serial += 1;
            (state.scripts.get(&key.identity).unwrap_or(&state.all).clone(), state.serial)
        };
        let landing = InFlight { state: Arc::clone(&self.state), key: key.clone() };
        Box::pin(async move {
            tokio::time::sleep(script.latency).await;
            drop(landing);
            assert!(!script.dies, "the script says so");
            match script.failure {
                Some(error) => Err(error),
                None => Ok(issued(&key, serial, script.lifetime)),
            }
        })
    }

    fn revoke(
        &self,
        key: &TokenKey,
        token: Arc<Token>,
    ) -> Option<BoxFuture<'static, Result<(), IssueError>>> {
        let state = locked(&self.state);
        let outcome = state.revocation.clone()?;
        let latency = state.scripts.get(&key.identity).unwrap_or(&state.all).latency;
        let text = secrecy::ExposeSecret::expose_secret(&token.issued.access_token).to_owned();
        let revoked = self.clone().revoked(text, latency);
        Some(Box::pin(async move {
            revoked.await;
            outcome
        }))
    }
}

impl ScriptedSource {
    async fn revoked(self, token: String, latency: Duration) {
        {
            let mut state = locked(&self.state);
            state.revoked.push(token);
            state.revoking += 1;
            state.most_revoking = state.most_revoking.max(state.revoking);
        }
        tokio::time::sleep(latency).await;
        locked(&self.state).revoking -= 1;
    }
}

struct InFlight {
    state: Arc<Mutex<SourceState>>,
    key: TokenKey,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(concurrent) = locked(&self.state).in_flight.get_mut(&self.key) {
            *concurrent -= 1;
        }
    }
}

/// A token that says for whom and what it was issued: `{identity}|{target}|{serial}`.
pub fn issued(key: &TokenKey, serial: u64, lifetime: Duration) -> IssuedToken {
    IssuedToken {
        access_token: format!("{}|{}|{serial}", key.identity, key.target).into(),
        token_type: "Bearer".into(),
        expires_in: lifetime,
        refresh_in: None,
        scopes: Arc::default(),
        identity: jeton_core::IdentityName::from_id(&format!("i{}", key.identity))
            .unwrap_or_else(|_| unreachable!("a uid is an id")),
        client_id: "client".into(),
    }
}

/// A failure of a class.
pub fn failure(class: IssueErrorClass, retry_after: Option<Duration>) -> IssueError {
    IssueError { class, retry_after, code: None, message: "scripted".into() }
}

/// The key of the `n`th identity for a scope.
pub fn key(n: u64, scope: &str) -> TokenKey {
    let [_, _, rest @ ..] = (u128::from(n)).to_be_bytes();
    let mut random = [0; 10];
    random.copy_from_slice(&rest[4..]);
    let target: Target = serde_json::from_value(serde_json::json!({ "scopes": [scope] }))
        .unwrap_or_else(|_| unreachable!("scopes are a target"));
    let authority = Uid::new(Wall::from_secs(1), [7; 10]);
    TokenKey {
        identity: Uid::new(Wall::from_secs(2), random),
        authority,
        profile_version: 1,
        target,
        claims: None,
        token_type: TokenType::Bearer,
        cnf: None,
    }
}

/// A caller.
pub fn caller(n: u32) -> Principal {
    Principal::unix_uid("test", n).unwrap_or_else(|_| unreachable!("a uid makes a principal"))
}

/// What every token store keeps: the latest token of each key, in order, and the holds; over a reopening too. `open` is called
/// again on the same place.
pub async fn token_store_contract<S, F>(open: F)
where
    S: TokenStore,
    F: AsyncFn() -> S,
{
    let stored = |n, serial| {
        let (key, at) = (key(n, "a"), Wall::from_secs(1_000));
        let token = issued(&key, serial, Duration::from_secs(600));
        TokenWrite::Put(Box::new(StoredToken {
            key,
            token,
            issued_at: at,
            refresh_at: at,
            last_used: at,
            earlier_until: Some(at),
        }))
    };
    let hold = Hold {
        authority: key(1, "a").authority,
        identity: key(1, "a").identity,
        until: Wall::from_secs(9_000_000_000),
    };
    {
        let store = open().await;
        assert!(store.load().await.expect("an empty store loads").tokens.is_empty());
        let batch = vec![
            stored(1, 1),
            stored(2, 1),
            stored(1, 2),
            TokenWrite::Remove(key(2, "a")),
            TokenWrite::Hold(hold),
        ];
        store.write(batch).await.expect("a batch is written");
        store.write(vec![stored(3, 7)]).await.expect("a second batch is written");
    }
    let kept = open().await.load().await.expect("what was written loads");
    let mut tokens: Vec<_> = kept
        .tokens
        .iter()
        .map(|t| secrecy::ExposeSecret::expose_secret(&t.token.access_token).to_owned())
        .collect();
    tokens.sort();
    let text = |n, serial: u64| format!("{}|scope:a|{serial}", key(n, "a").identity);
    let mut expected = vec![text(1, 2), text(3, 7)];
    expected.sort();
    assert_eq!(tokens, expected, "the latest of each key, removed ones gone");
    assert_eq!(kept.holds, [hold]);
    assert_eq!(kept.unreadable, 0);
    let first = kept.tokens.iter().find(|t| t.key == key(1, "a")).expect("the key survives");
    assert_eq!((first.issued_at, first.token.expires_in), (Wall::from_secs(1_000), Duration::from_secs(600)));
    assert_eq!(first.earlier_until, Some(Wall::from_secs(1_000)));
    // A revocation takes what lies in its scope, whatever stands before it in the batch, and nothing that comes after it.
    for (scope, left) in [
        (Scope::Identity(key(1, "a").identity), vec![text(3, 7), text(4, 1)]),
        (Scope::Authority(key(1, "b").identity), vec![text(3, 7), text(4, 1)]),
        (Scope::Authority(key(1, "a").authority), vec![text(5, 2)]),
        (Scope::Everything, vec![]),
    ] {
        let store = open().await;
        let batch = match scope {
            Scope::Identity(_) => vec![stored(4, 1), stored(1, 3), TokenWrite::Revoke(scope)],
            Scope::Authority(uid) if uid == key(1, "a").authority => {
                vec![stored(5, 1), TokenWrite::Revoke(scope), stored(5, 2)]
            }
            _ => vec![TokenWrite::Revoke(scope)],
        };
        store.write(batch).await.expect("a revocation is written");
        let kept = open().await.load().await.expect("what was written loads").tokens;
        let mut texts: Vec<_> = kept
            .iter()
            .map(|t| secrecy::ExposeSecret::expose_secret(&t.token.access_token).to_owned())
            .collect();
        texts.sort();
        assert_eq!(texts, left, "{scope:?}");
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
