//! Issuers in memory, and the contract that every source of keys keeps.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use jeton_core::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::locked;
use crate::{KeySetSource, Reviewed, TokenReview};

/// Publishes keys from memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryKeySet(Arc<Mutex<Keys>>);

#[derive(Debug, Default)]
struct Keys {
    set: Value,
    failure: Option<String>,
    hangs: bool,
    fetches: usize,
}

impl MemoryKeySet {
    /// Publishes these keys, as JWKs, instead of those before.
    pub fn publish(&self, keys: &[Value]) {
        let mut state = locked(&self.0);
        state.set = json!({ "keys": keys });
        (state.failure, state.hangs) = (None, false);
    }

    /// From now on the keys cannot be had.
    pub fn fail(&self, why: &str) {
        locked(&self.0).failure = Some(why.to_owned());
    }

    /// From now on nobody gets an answer.
    pub fn hang(&self) {
        locked(&self.0).hangs = true;
    }

    /// How often they were asked for.
    pub fn fetches(&self) -> usize {
        locked(&self.0).fetches
    }
}

impl KeySetSource for MemoryKeySet {
    fn fetch(&self) -> BoxFuture<'_, Result<Value, String>> {
        let (answer, hangs) = {
            let mut state = locked(&self.0);
            state.fetches += 1;
            (state.failure.clone().map_or_else(|| Ok(state.set.clone()), Err), state.hangs)
        };
        Box::pin(async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}

/// Reviews tokens from memory. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct MemoryTokenReview {
    answers: Arc<Mutex<Answers>>,
    hangs: Arc<watch::Sender<bool>>,
}

#[derive(Debug, Default)]
struct Answers {
    known: HashMap<String, Reviewed>,
    failure: Option<String>,
    asked: usize,
}

impl MemoryTokenReview {
    /// From now on a token is answered so. One that is not known is not accepted.
    pub fn know(&self, token: &str, reviewed: Reviewed) {
        locked(&self.answers).known.insert(token.to_owned(), reviewed);
    }

    /// From now on a token is not accepted.
    pub fn forget(&self, token: &str) {
        locked(&self.answers).known.remove(token);
    }

    /// Whether there are answers: none for a reason, or again.
    pub fn fail(&self, why: Option<&str>) {
        locked(&self.answers).failure = why.map(str::to_owned);
    }

    /// Whether whoever asks, or has asked, waits until this is taken back.
    pub fn hang(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    /// How often somebody asked.
    pub fn asked(&self) -> usize {
        locked(&self.answers).asked
    }
}

impl TokenReview for MemoryTokenReview {
    fn review<'a>(&'a self, token: &'a str, _: &'a str) -> BoxFuture<'a, Result<Reviewed, String>> {
        Box::pin(async move {
            locked(&self.answers).asked += 1;
            let _ = self.hangs.subscribe().wait_for(|hangs| !hangs).await;
            tokio::task::yield_now().await;
            let state = locked(&self.answers);
            let unknown = || Reviewed { error: "unknown token".into(), ..Reviewed::default() };
            match &state.failure {
                Some(failure) => Err(failure.clone()),
                None => Ok(state.known.get(token).cloned().unwrap_or_else(unknown)),
            }
        })
    }
}

/// What every source of keys keeps: a fetch tells the set that is published at that time, whole. `publish` replaces it.
pub async fn key_set_source_contract<S, F>(source: &S, publish: F)
where
    S: KeySetSource + ?Sized,
    F: AsyncFn(Value),
{
    let key = |kid: &str| json!({"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": kid});
    for keys in [json!([key("a")]), json!([key("a"), key("b")]), json!([key("b")]), json!([])] {
        let set = json!({ "keys": keys });
        publish(set.clone()).await;
        assert_eq!(source.fetch().await, Ok(set));
    }
}
