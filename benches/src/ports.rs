//! The engine's ports: an authority that answers at once, and tokens that were kept before the start.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use jeton_core::{BoxFuture, IssuedToken, TokenKey};
use jeton_engine::{
    IssueError, Kept, StoredToken, TokenSource, TokenStore, TokenStoreError, TokenWrite, testing::issued,
};
use secrecy::ExposeSecret;

use crate::Size;

/// A token of the wanted length and life.
pub fn token(key: &TokenKey, serial: u64, size: Size) -> IssuedToken {
    let mut token = issued(key, serial, size.lifetime);
    let mut text = token.access_token.expose_secret().as_bytes().to_vec();
    text.resize(size.token_bytes.max(text.len()), b'x');
    token.access_token = String::from_utf8(text).expect("it was text").into();
    token
}

/// Issues a token without a wait, and counts.
#[derive(Debug, Clone)]
pub struct AtOnce {
    size: Size,
    issued: Arc<AtomicU64>,
}

impl AtOnce {
    /// Tokens like those at the start.
    pub fn new(size: Size) -> Self {
        Self { size, issued: Arc::default() }
    }

    /// How many so far.
    pub fn issued(&self) -> u64 {
        self.issued.load(Relaxed)
    }
}

impl TokenSource for AtOnce {
    fn prepare(&self, _: &TokenKey, _: Duration) {}

    fn issue(&self, key: TokenKey) -> BoxFuture<'static, Result<IssuedToken, IssueError>> {
        let token = token(&key, self.issued.fetch_add(1, Relaxed), self.size);
        Box::pin(async move { Ok(token) })
    }
}

/// What was kept before the start; what is written goes on to another store, or nowhere.
#[derive(Default)]
pub struct Before {
    tokens: Mutex<Vec<StoredToken>>,
    next: Option<Arc<dyn TokenStore>>,
}

impl std::fmt::Debug for Before {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Before").finish_non_exhaustive()
    }
}

impl Before {
    /// Writes go on to this store.
    pub fn and_then(next: Arc<dyn TokenStore>) -> Self {
        Self { tokens: Mutex::default(), next: Some(next) }
    }

    pub(crate) fn with(self, tokens: Vec<StoredToken>) -> Self {
        Self { tokens: Mutex::new(tokens), ..self }
    }
}

impl TokenStore for Before {
    fn load(&self) -> BoxFuture<'_, Result<Kept, TokenStoreError>> {
        let tokens = std::mem::take(&mut *self.tokens.lock().expect("nobody panics"));
        Box::pin(async move { Ok(Kept { tokens, ..Kept::default() }) })
    }

    fn write(&self, batch: Vec<TokenWrite>) -> BoxFuture<'_, Result<(), TokenStoreError>> {
        match &self.next {
            Some(next) => next.write(batch),
            None => Box::pin(async { Ok(()) }),
        }
    }
}
