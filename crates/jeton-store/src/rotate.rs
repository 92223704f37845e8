//! Another sealing key takes over, while everything is read and written.
//!
//! Each data key gets a second wrapping, by the new key, beside the one that it has; what is sealed under it stays as it is. When all have
//! been read back, one commit makes the registry name the new key, and only then the old wrappings go. So a process that is killed at any
//! point leaves a store that the key which it names opens entirely: nothing has to be finished before it can be used.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::TryStreamExt;
use sqlx::{Connection, Row, sqlite::SqliteSynchronous};
use tokio::task::spawn_blocking;

use crate::{
    SealingKey, Store, identities::uid_of, ring, sealing::Sealed, secrets::key_place, store::Inner,
    tokens::day_place,
};

/// Most data keys in one commit: other writers wait that long.
const BATCH: i64 = 500;

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The id of the sealing key in force.
    pub key_id: String,
    /// The id of the one before; none: this one was in force already.
    pub previous: Option<String>,
    /// Data keys that this one wraps: all but the unreadable ones.
    pub wrapped: u64,
    /// Whose data keys opened with neither. They stay as they are.
    pub unreadable: Vec<String>,
}

/// How far one is, told after each commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rotating {
    /// So many data keys have a second wrapping.
    Wrapped(u64),
    /// The new key is in force.
    InForce,
    /// The old wrappings are gone.
    Swept,
}

/// Why the sealing key was not rotated. What was done is kept, and done by the next attempt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// One at a time.
    #[error("another rotation of the sealing key is under way: wait for it to end")]
    UnderWay,
    /// Wrapped, and not to be opened: nothing was switched over.
    #[error(
        "the data keys of {0} were wrapped anew and do not open: the old sealing key stays in force; try again"
    )]
    NotReadBack(String),
    /// The disk, mostly.
    #[error("the store cannot be written: {0}")]
    Store(#[from] sqlx::Error),
    /// A task ended early.
    #[error("the rotation broke off: {0}")]
    BrokeOff(#[from] tokio::task::JoinError),
}

impl Store {
    /// Makes this sealing key the one in force. It comes to its end although its caller goes away, and may be repeated.
    pub async fn rotate_sealing(
        &self,
        key: Arc<SealingKey>,
        progress: impl Fn(Rotating) + Send + Sync + 'static,
    ) -> Result<Rotated, RotateError> {
        let store = self.clone();
        tokio::spawn(async move { store.0.rotate(&key, &progress).await }).await?
    }
}

impl Inner {
    async fn rotate(
        &self,
        key: &Arc<SealingKey>,
        progress: &(dyn Fn(Rotating) + Send + Sync),
    ) -> Result<Rotated, RotateError> {
        let _alone = self.rotating.try_lock().map_err(|_| RotateError::UnderWay)?;
        self.settle().await?;
        let old = Arc::clone(&self.ring.read().await.current);
        let previous = (old.id() != key.id()).then(|| old.id().to_owned());
        if previous.is_some() {
            // From here on whatever is made is wrapped by both.
            self.ring.write().await.next = Some(Arc::clone(key));
            self.wrap_days(&old, key).await?;
            self.wrap_owners(&old, key, progress).await?;
            self.read_back(&old, key).await?;
            self.put_in_force(&old, key).await?;
            progress(Rotating::InForce);
        }
        ring::sweep_owners(&self.registry, key.id()).await?;
        ring::sweep_days(&self.tokens, key.id()).await?;
        progress(Rotating::Swept);
        self.counted(key.id(), previous).await
    }

    /// The registry says which key is in force; also after a commit whose answer was lost.
    async fn settle(&self) -> Result<(), sqlx::Error> {
        let row = sqlx::query("SELECT key_id FROM sealing").fetch_one(&self.registry.reader).await?;
        let named: String = row.try_get(0)?;
        let mut ring = self.ring.write().await;
        if let Some(next) = ring.next.take_if(|next| next.id() == named) {
            ring.current = next;
        }
        Ok(())
    }

    async fn wrap_days(&self, old: &SealingKey, new: &SealingKey) -> Result<(), sqlx::Error> {
        // The registry must not name a key before this is on disk.
        let mut connection = self.tokens.writer(SqliteSynchronous::Full).await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let rows = sqlx::query(
            "SELECT day, nonce, wrapped FROM token_days d WHERE key_id = ? \
             AND NOT EXISTS (SELECT 1 FROM token_days n WHERE n.day = d.day AND n.key_id = ?)",
        );
        for row in rows.bind(old.id()).bind(new.id()).fetch_all(&mut *transaction).await? {
            let (day, before): (i64, _) = (row.try_get("day")?, sealed(&row)?);
            // One that does not open has no tokens that do.
            let Ok(after) = old.rewrap(&day_place(day), &before, new) else { continue };
            sqlx::query("INSERT INTO token_days (day, key_id, nonce, wrapped) VALUES (?, ?, ?, ?)")
                .bind(day)
                .bind(new.id())
                .bind(after.nonce)
                .bind(after.bytes)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await
    }

    async fn wrap_owners(
        &self,
        old: &Arc<SealingKey>,
        new: &Arc<SealingKey>,
        progress: &(dyn Fn(Rotating) + Send + Sync),
    ) -> Result<(), RotateError> {
        let (mut after, mut done) = (vec![], 0);
        loop {
            let mut transaction = self.registry.begin().await?;
            let rows = sqlx::query(
                "SELECT owner, nonce, wrapped FROM data_keys k WHERE key_id = ? AND owner > ? \
                 AND NOT EXISTS (SELECT 1 FROM data_keys n WHERE n.owner = k.owner AND n.key_id = ?) ORDER BY owner LIMIT ?",
            );
            let rows = rows.bind(old.id()).bind(after).bind(new.id()).bind(BATCH);
            let rows = rows.fetch_all(&mut *transaction).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.try_get("owner")?;
            let read = |row| Ok((sqlx::Row::try_get(row, "owner")?, sealed(row)?));
            let before: Vec<(Vec<u8>, Sealed)> = rows.iter().map(read).collect::<Result<_, sqlx::Error>>()?;
            let (from, to) = (Arc::clone(old), Arc::clone(new));
            // Not on the threads that serve.
            for (owner, sealed) in spawn_blocking(move || rewrapped(before, &from, &to)).await? {
                sqlx::query("INSERT INTO data_keys (owner, key_id, nonce, wrapped) VALUES (?, ?, ?, ?)")
                    .bind(owner)
                    .bind(new.id())
                    .bind(sealed.nonce)
                    .bind(sealed.bytes)
                    .execute(&mut *transaction)
                    .await?;
                done += 1;
            }
            transaction.commit().await?;
            progress(Rotating::Wrapped(done));
        }
    }

    /// Whatever the old key opens, the new one opens too.
    async fn read_back(&self, old: &SealingKey, new: &SealingKey) -> Result<(), RotateError> {
        let mut opens: BTreeMap<Vec<u8>, [bool; 2]> = BTreeMap::new();
        let mut rows =
            sqlx::query("SELECT owner, key_id, nonce, wrapped FROM data_keys").fetch(&self.registry.reader);
        while let Some(row) = rows.try_next().await? {
            let (owner, id): (Vec<u8>, String) = (row.try_get("owner")?, row.try_get("key_id")?);
            let Some(uid) = uid_of(&owner) else { continue };
            let wrapped = sealed(&row)?;
            for (n, key) in [old, new].into_iter().enumerate().filter(|(_, key)| key.id() == id) {
                opens.entry(owner.clone()).or_default()[n] = key.unwrap(&key_place(uid), &wrapped).is_ok();
            }
        }
        let lost = opens.into_iter().filter(|(_, [old, new])| *old && !*new);
        let lost = self.names(lost.map(|(owner, _)| owner).collect()).await;
        if lost.is_empty() { Ok(()) } else { Err(RotateError::NotReadBack(lost.join(", "))) }
    }

    async fn put_in_force(&self, old: &SealingKey, new: &SealingKey) -> Result<(), sqlx::Error> {
        let mut transaction = self.registry.begin().await?;
        let named =
            sqlx::query("UPDATE sealing SET key_id = ? WHERE key_id = ?").bind(new.id()).bind(old.id());
        // Nothing may be swept in the name of a key that is not in force.
        if named.execute(&mut *transaction).await?.rows_affected() != 1 {
            return Err(sqlx::Error::RowNotFound);
        }
        transaction.commit().await?;
        self.settle().await
    }

    async fn counted(&self, id: &str, previous: Option<String>) -> Result<Rotated, RotateError> {
        let mut wrapped = 0;
        for (database, sql) in [
            (&self.registry, "SELECT count(*) FROM data_keys WHERE key_id = ?"),
            (&self.tokens, "SELECT count(*) FROM token_days WHERE key_id = ?"),
        ] {
            let count: i64 = sqlx::query(sql).bind(id).fetch_one(&database.reader).await?.try_get(0)?;
            wrapped += count.unsigned_abs();
        }
        let rows = sqlx::query("SELECT DISTINCT owner FROM data_keys WHERE key_id <> ?").bind(id);
        let rows = rows.fetch_all(&self.registry.reader).await?;
        let left = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        Ok(Rotated { key_id: id.to_owned(), previous, wrapped, unreadable: self.names(left).await })
    }

    async fn names(&self, owners: Vec<Vec<u8>>) -> Vec<String> {
        let mut names = vec![];
        for uid in owners.iter().filter_map(|owner| uid_of(owner)) {
            names.push(self.owner_name(uid).await);
        }
        names
    }
}

fn sealed(row: &sqlx::sqlite::SqliteRow) -> Result<Sealed, sqlx::Error> {
    Ok(Sealed { nonce: row.try_get("nonce")?, bytes: row.try_get("wrapped")? })
}

/// What opens, wrapped by the other key.
fn rewrapped(rows: Vec<(Vec<u8>, Sealed)>, from: &SealingKey, to: &SealingKey) -> Vec<(Vec<u8>, Sealed)> {
    let wrap = |owner: &[u8], before: &Sealed| from.rewrap(&key_place(uid_of(owner)?), before, to).ok();
    rows.into_iter().filter_map(|(owner, before)| wrap(&owner, &before).map(|after| (owner, after))).collect()
}

#[cfg(test)]
mod tests;
