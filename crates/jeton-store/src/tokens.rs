//! Tokens over a restart: each sealed under the key of the day on which it was written.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use futures_util::TryStreamExt;
use jeton_core::{AccessToken, BoxFuture, IdentityName, IssuedToken, TokenKey, Uid, Wall};
use jeton_engine::{Hold, Kept, Scope, StoredToken, TokenStore, TokenStoreError, TokenWrite};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sqlx::{
    Connection, Row, Sqlite, Transaction,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow, SqliteSynchronous},
};

use crate::{
    Store,
    identities::uid_of,
    sealing::{DataKey, Sealed, place},
    store::Inner,
};

const SCHEMA: i64 = 1;
const DAY_MILLIS: i64 = 86_400_000;

/// Everything about a token but the token.
#[derive(Serialize, Deserialize)]
struct Facts {
    identity: IdentityName,
    client_id: Arc<str>,
    token_type: Arc<str>,
    expires_in_ms: u64,
    refresh_in_ms: Option<u64>,
    scopes: Arc<[Arc<str>]>,
    issued_at: Wall,
    refresh_at: Wall,
    last_used: Wall,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    earlier_until: Option<Wall>,
}

fn failed(error: impl std::fmt::Display) -> TokenStoreError {
    TokenStoreError(error.to_string().into())
}

pub(crate) fn day_place(day: i64) -> Vec<u8> {
    place(&[b"token_days", &day.to_be_bytes()])
}

fn token_place(key: &str, day: i64, facts: &str) -> Vec<u8> {
    place(&[b"tokens", key.as_bytes(), &day.to_be_bytes(), &SCHEMA.to_be_bytes(), facts.as_bytes()])
}

impl TokenStore for Store {
    fn load(&self) -> BoxFuture<'_, Result<Kept, TokenStoreError>> {
        Box::pin(async move { self.0.load_tokens().await.map_err(failed) })
    }

    fn write(&self, batch: Vec<TokenWrite>) -> BoxFuture<'_, Result<(), TokenStoreError>> {
        Box::pin(async move {
            let mut unwritten = Unwritten(Some(&self.0));
            self.0.write_tokens(batch).await?;
            unwritten.0 = None;
            Ok(())
        })
    }
}

/// A write under way. If it fails or is given up, the key of a new day is rolled back with its row: nothing more may be sealed with it.
struct Unwritten<'a>(Option<&'a Inner>);

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        if let Some(inner) = self.0 {
            inner.day_keys.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

impl Inner {
    async fn load_tokens(&self) -> Result<Kept, sqlx::Error> {
        let now = self.clock.now().wall.as_millis();
        let mut days = HashMap::new();
        let ring = self.ring.read().await;
        for row in sqlx::query("SELECT day, nonce, wrapped FROM token_days WHERE key_id = ?")
            .bind(ring.id())
            .fetch_all(&self.tokens.reader)
            .await?
        {
            let day: i64 = row.try_get("day")?;
            let wrapped = Sealed { nonce: row.try_get("nonce")?, bytes: row.try_get("wrapped")? };
            if let Ok(key) = ring.current.unwrap(&day_place(day), &wrapped) {
                days.insert(day, Arc::new(key));
            }
        }
        drop(ring);
        let (mut kept, mut texts) = (Kept::default(), Texts::default());
        let mut rows =
            sqlx::query("SELECT token_key, day, facts, nonce, sealed FROM tokens").fetch(&self.tokens.reader);
        while let Some(row) = rows.try_next().await? {
            match opened(&row, &days, &mut texts) {
                Some(token) => kept.tokens.push(token),
                None => kept.unreadable += 1,
            }
        }
        for row in sqlx::query("SELECT authority, identity, until FROM holds WHERE until > ?")
            .bind(now)
            .fetch_all(&self.tokens.reader)
            .await?
        {
            let (authority, identity): (Vec<u8>, Vec<u8>) =
                (row.try_get("authority")?, row.try_get("identity")?);
            if let Some((authority, identity)) = uid_of(&authority).zip(uid_of(&identity)) {
                kept.holds.push(Hold {
                    authority,
                    identity,
                    until: Wall::from_millis(row.try_get("until")?),
                });
            }
        }
        *self.day_keys.lock().unwrap_or_else(PoisonError::into_inner) = days;
        if kept.unreadable > 0 {
            tracing::warn!(
                tokens = kept.unreadable,
                "kept tokens do not open and are left out; they are fetched anew, so nothing is to be done unless it comes again"
            );
        }
        Ok(kept)
    }

    async fn write_tokens(&self, batch: Vec<TokenWrite>) -> Result<(), TokenStoreError> {
        let now = self.clock.now().wall;
        // What is lost with the power costs a refresh; a revocation that is lost gives back what was taken.
        let synchronous = match batch.iter().any(|write| matches!(write, TokenWrite::Revoke(_))) {
            true => SqliteSynchronous::Full,
            false => SqliteSynchronous::Normal,
        };
        let mut connection = self.tokens.writer(synchronous).await.map_err(failed)?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let day = now.as_millis().div_euclid(DAY_MILLIS);
        let key = match batch.iter().any(|write| matches!(write, TokenWrite::Put(_))) {
            true => Some(self.day_key(&mut transaction, day).await?),
            false => None,
        };
        // Hundreds of tokens are sealed at once in a refresh storm: not on the threads that serve.
        let seal = move || batch.into_iter().map(|write| Change::of(write, key.as_deref(), day)).collect();
        let changes: Result<Vec<_>, _> = tokio::task::spawn_blocking(seal).await.map_err(failed)?;
        for change in changes? {
            change.query(day).execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// The key of a day. With a new day, expired tokens and the keys that sealed only those go.
    async fn day_key(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        day: i64,
    ) -> Result<Arc<DataKey>, TokenStoreError> {
        if let Some(key) = self.day_keys.lock().unwrap_or_else(PoisonError::into_inner).get(&day) {
            return Ok(Arc::clone(key));
        }
        // Inside of the transaction, as for the keys of owners.
        let ring = self.ring.read().await;
        let row = sqlx::query("SELECT nonce, wrapped FROM token_days WHERE day = ? AND key_id = ?");
        let row = row.bind(day).bind(ring.id());
        if let Some(row) = row.fetch_optional(&mut **transaction).await.map_err(failed)? {
            let wrapped = Sealed {
                nonce: row.try_get("nonce").map_err(failed)?,
                bytes: row.try_get("wrapped").map_err(failed)?,
            };
            if let Ok(key) = ring.current.unwrap(&day_place(day), &wrapped) {
                let key = Arc::new(key);
                self.day_keys.lock().unwrap_or_else(PoisonError::into_inner).insert(day, Arc::clone(&key));
                return Ok(key);
            }
        }
        let now = self.clock.now().wall.as_millis();
        sqlx::query("DELETE FROM tokens WHERE expires_at < ?")
            .bind(now)
            .execute(&mut **transaction)
            .await
            .map_err(failed)?;
        sqlx::query("DELETE FROM token_days WHERE day NOT IN (SELECT DISTINCT day FROM tokens)")
            .execute(&mut **transaction)
            .await
            .map_err(failed)?;
        // One that is there does not open, by whichever sealing key it is wrapped.
        let gone = sqlx::query("DELETE FROM token_days WHERE day = ?").bind(day);
        gone.execute(&mut **transaction).await.map_err(failed)?;
        let (key, wrapped) =
            ring.new_data_key(&day_place(day)).ok_or_else(|| failed("the random generator failed"))?;
        for (key_id, Sealed { nonce, bytes }) in wrapped {
            sqlx::query("INSERT INTO token_days (day, key_id, nonce, wrapped) VALUES (?, ?, ?, ?)")
                .bind(day)
                .bind(key_id)
                .bind(nonce)
                .bind(bytes)
                .execute(&mut **transaction)
                .await
                .map_err(failed)?;
        }
        let key = Arc::new(key);
        self.day_keys.lock().unwrap_or_else(PoisonError::into_inner).insert(day, Arc::clone(&key));
        Ok(key)
    }
}

/// What is written of a [`TokenWrite`].
enum Change {
    Put { token_key: String, identity: Uid, expires_at: Wall, facts: String, sealed: Sealed },
    Remove { token_key: String },
    Hold(Hold),
    Revoke(Scope),
}

impl Change {
    fn of(write: TokenWrite, key: Option<&DataKey>, day: i64) -> Result<Self, TokenStoreError> {
        match write {
            TokenWrite::Put(stored) => Self::put(&stored, key, day),
            TokenWrite::Remove(key) => {
                Ok(Self::Remove { token_key: serde_json::to_string(&key).map_err(failed)? })
            }
            TokenWrite::Hold(hold) => Ok(Self::Hold(hold)),
            TokenWrite::Revoke(scope) => Ok(Self::Revoke(scope)),
        }
    }

    fn put(stored: &StoredToken, key: Option<&DataKey>, day: i64) -> Result<Self, TokenStoreError> {
        let token = &stored.token;
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let facts = Facts {
            identity: token.identity.clone(),
            client_id: Arc::clone(&token.client_id),
            token_type: Arc::clone(&token.token_type),
            expires_in_ms: millis(token.expires_in),
            refresh_in_ms: token.refresh_in.map(millis),
            scopes: Arc::clone(&token.scopes),
            issued_at: stored.issued_at,
            refresh_at: stored.refresh_at,
            last_used: stored.last_used,
            earlier_until: stored.earlier_until,
        };
        let facts = serde_json::to_string(&facts).map_err(failed)?;
        let token_key = serde_json::to_string(&stored.key).map_err(failed)?;
        let place = token_place(&token_key, day, &facts);
        let sealed = key.and_then(|key| key.seal(&place, token.access_token.expose_secret().as_bytes()));
        let sealed = sealed.ok_or_else(|| failed("sealing failed"))?;
        let (identity, expires_at) = (stored.key.identity, stored.issued_at + token.expires_in);
        Ok(Self::Put { token_key, identity, expires_at, facts, sealed })
    }

    fn query(self, day: i64) -> Query<'static, Sqlite, SqliteArguments> {
        match self {
            Self::Put { token_key, identity, expires_at, facts, sealed } => sqlx::query(
                "INSERT OR REPLACE INTO tokens (token_key, identity, day, schema, expires_at, facts, nonce, sealed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(token_key)
            .bind(identity.as_bytes().to_vec())
            .bind(day)
            .bind(SCHEMA)
            .bind(expires_at.as_millis())
            .bind(facts)
            .bind(sealed.nonce)
            .bind(sealed.bytes),
            Self::Remove { token_key } => {
                sqlx::query("DELETE FROM tokens WHERE token_key = ?").bind(token_key)
            }
            Self::Hold(hold) => {
                sqlx::query("INSERT OR REPLACE INTO holds (authority, identity, until) VALUES (?, ?, ?)")
                    .bind(hold.authority.as_bytes().to_vec())
                    .bind(hold.identity.as_bytes().to_vec())
                    .bind(hold.until.as_millis())
            }
            Self::Revoke(Scope::Identity(uid)) => {
                sqlx::query("DELETE FROM tokens WHERE identity = ?").bind(uid.as_bytes().to_vec())
            }
            // The authority stands in the key alone; a revocation is rare, and this looks at every row.
            Self::Revoke(Scope::Authority(uid)) => {
                sqlx::query("DELETE FROM tokens WHERE token_key ->> 'authority' = ?").bind(uid.to_string())
            }
            Self::Revoke(Scope::Everything) => sqlx::query("DELETE FROM tokens"),
        }
    }
}

/// Tokens' texts side by side in large pieces. The engine keeps each in its own answer soon after, and what a hundred thousand small
/// ones leave behind would stay with the process as holes; a large piece goes back whole.
#[derive(Default)]
struct Texts(BytesMut);

impl Texts {
    const PIECE: usize = 1 << 20;

    fn put(&mut self, text: &[u8]) -> Option<AccessToken> {
        if self.0.capacity() < text.len() {
            self.0 = BytesMut::with_capacity(Self::PIECE.max(text.len()));
        }
        self.0.extend_from_slice(text);
        AccessToken::within(&self.0.split().freeze(), 0..text.len())
    }
}

fn opened(row: &SqliteRow, days: &HashMap<i64, Arc<DataKey>>, texts: &mut Texts) -> Option<StoredToken> {
    let (token_key, facts): (String, String) = (row.try_get("token_key").ok()?, row.try_get("facts").ok()?);
    let day: i64 = row.try_get("day").ok()?;
    let sealed = Sealed { nonce: row.try_get("nonce").ok()?, bytes: row.try_get("sealed").ok()? };
    let text = days.get(&day)?.open(&token_place(&token_key, day, &facts), &sealed).ok()?;
    let key: TokenKey = serde_json::from_str(&token_key).ok()?;
    let facts: Facts = serde_json::from_str(&facts).ok()?;
    let token = IssuedToken {
        access_token: texts.put(&text)?,
        token_type: facts.token_type,
        expires_in: Duration::from_millis(facts.expires_in_ms),
        refresh_in: facts.refresh_in_ms.map(Duration::from_millis),
        scopes: facts.scopes,
        identity: facts.identity,
        client_id: facts.client_id,
    };
    Some(StoredToken {
        key,
        token,
        issued_at: facts.issued_at,
        refresh_at: facts.refresh_at,
        last_used: facts.last_used,
        earlier_until: facts.earlier_until,
    })
}
