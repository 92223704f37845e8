//! The registry: identities, workloads, authorities, in one transaction with what belongs to them.

use futures_util::TryStreamExt;
use jeton_core::{Authority, BoxFuture, Identity, Uid, Workload};
use jeton_lifecycle::{IdentityStore, Orphan, Recorded, Registry, SecretId, StoreError, Write};
use secrecy::SecretSlice;
use serde::de::DeserializeOwned;
use sqlx::{Row, Sqlite, Transaction, sqlite::SqliteRow};

use crate::{Store, recorded::Found, store::Inner};

/// The schema of the JSON bodies.
const SCHEMA: i64 = 1;

type Change = Transaction<'static, Sqlite>;

/// What SQLite says, for an administrator. Its messages hold names of tables and files and no values.
pub(crate) fn unavailable(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

impl IdentityStore for Store {
    fn load(&self) -> BoxFuture<'_, Result<Registry, StoreError>> {
        Box::pin(async move {
            let inner = &*self.0;
            Ok(Registry {
                identities: inner.bodies("SELECT name, body FROM identities").await?,
                workloads: inner.bodies("SELECT name, body FROM workloads").await?,
                authorities: inner.bodies("SELECT name, body FROM authorities").await?,
                orphans: inner.bodies("SELECT hex(uid) AS name, body FROM orphans").await?,
            })
        })
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let outcome = self.0.commit(&writes).await;
            match &outcome {
                Ok(()) => self.0.note_write(None),
                Err(StoreError::Unavailable(error)) => self.0.note_write(Some(error.clone())),
                // Refused for what is written, not for where.
                Err(_) => {}
            }
            outcome
        })
    }

    fn secret(&self, id: SecretId) -> BoxFuture<'_, Result<Option<SecretSlice<u8>>, StoreError>> {
        Box::pin(async move { self.0.open_secret(id).await })
    }

    fn recorded(&self, request_id: String) -> BoxFuture<'_, Result<Option<Recorded>, StoreError>> {
        Box::pin(async move {
            let found = self.0.find_recorded(&request_id).await.map_err(unavailable)?;
            Ok(found.map(|Found { fingerprint, resource, at, .. }| Recorded {
                request_id,
                fingerprint,
                resource,
                at,
            }))
        })
    }
}

impl Inner {
    /// Every body that can be read; the others are left out and named.
    pub(crate) async fn bodies<T: DeserializeOwned>(&self, sql: &'static str) -> Result<Vec<T>, StoreError> {
        let read = |row: &SqliteRow| {
            let (name, body): (String, String) = (row.try_get("name").ok()?, row.try_get("body").ok()?);
            let parsed = serde_json::from_str(&body);
            if let Err(error) = &parsed {
                tracing::error!(%name, line = error.line(), column = error.column(), "a row of the registry cannot be read and is left out: `jeton status` names it; restore a backup from before it was changed");
                self.quarantined.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(name);
            }
            parsed.ok()
        };
        // One row at a time: all of them together would be as large as what is made of them.
        let (mut rows, mut bodies) = (sqlx::query(sql).fetch(&self.registry.reader), vec![]);
        while let Some(row) = rows.try_next().await.map_err(unavailable)? {
            bodies.extend(read(&row));
        }
        Ok(bodies)
    }

    async fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        let mut transaction = self.registry.begin().await.map_err(unavailable)?;
        for write in writes {
            self.apply(&mut transaction, write).await?;
        }
        transaction.commit().await.map_err(unavailable)
    }

    async fn apply(&self, transaction: &mut Change, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::Identity(identity) => put_identity(transaction, identity).await,
            Write::Workload(workload) => put_workload(transaction, workload).await,
            Write::Authority(authority) => put_authority(transaction, authority).await,
            Write::RemoveIdentity(uid) => {
                self.remove(transaction, "DELETE FROM identities WHERE uid = ?", *uid).await
            }
            Write::RemoveWorkload(uid) => {
                self.remove(transaction, "DELETE FROM workloads WHERE uid = ?", *uid).await
            }
            Write::RemoveAuthority(uid) => {
                self.remove(transaction, "DELETE FROM authorities WHERE uid = ?", *uid).await
            }
            Write::Secret(id, secret) => self.put_secret(transaction, id, secret).await,
            Write::RemoveSecret(id) => remove_secret(transaction, id).await,
            Write::Orphan(orphan) => put_orphan(transaction, orphan).await,
            Write::RemoveOrphan(uid) => {
                let query = sqlx::query("DELETE FROM orphans WHERE uid = ?").bind(&uid.as_bytes()[..]);
                query.execute(&mut **transaction).await.map(drop).map_err(unavailable)
            }
            Write::Recorded(r) => {
                let fingerprint = r.fingerprint.clone();
                let found = Found { fingerprint, resource: r.resource, at: r.at, answer: None };
                self.record(transaction, &r.request_id, found).await.map_err(unavailable)
            }
        }
    }

    /// Removes a record with everything that is sealed for it.
    async fn remove(&self, transaction: &mut Change, sql: &'static str, uid: Uid) -> Result<(), StoreError> {
        for sql in [sql, "DELETE FROM secrets WHERE owner = ?", "DELETE FROM data_keys WHERE owner = ?"] {
            sqlx::query(sql)
                .bind(&uid.as_bytes()[..])
                .execute(&mut **transaction)
                .await
                .map_err(unavailable)?;
        }
        Ok(())
    }
}

pub(crate) fn uid_of(bytes: &[u8]) -> Option<Uid> {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    hex.parse().ok()
}

fn body<T: serde::Serialize>(record: &T) -> Result<String, StoreError> {
    serde_json::to_string(record)
        .map_err(|e| StoreError::Unavailable(format!("a record cannot be written as JSON: {e}")))
}

fn version(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

/// An insert that met another row of the same name.
fn taken(error: sqlx::Error, name: &str) -> StoreError {
    let unique = error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation);
    if unique { StoreError::Exists(name.to_owned()) } else { unavailable(error) }
}

async fn put_identity(transaction: &mut Change, identity: &Identity) -> Result<(), StoreError> {
    let query = if identity.version == 1 {
        sqlx::query(
            "INSERT INTO identities (body, state, authority, schema, version, name, uid) VALUES (?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (uid) DO NOTHING",
        )
    } else {
        sqlx::query(
            "UPDATE identities SET body = ?1, state = ?2, authority = ?3, schema = ?4, version = ?5 \
             WHERE name = ?6 AND uid = ?7 AND version = ?5 - 1",
        )
    };
    let state = serde_json::to_value(identity.state)
        .ok()
        .and_then(|s| s.as_str().map(str::to_owned))
        .unwrap_or_default();
    let done = query
        .bind(body(identity)?)
        .bind(state)
        .bind(&identity.authority.as_bytes()[..])
        .bind(SCHEMA)
        .bind(version(identity.version))
        .bind(identity.name.as_str())
        .bind(&identity.uid.as_bytes()[..])
        .execute(&mut **transaction)
        .await
        .map_err(|e| taken(e, identity.name.as_str()))?;
    changed(done.rows_affected(), identity.uid)
}

async fn put_workload(transaction: &mut Change, workload: &Workload) -> Result<(), StoreError> {
    put_plain(
        transaction,
        workload.version,
        [
            "INSERT INTO workloads (body, schema, version, name, uid) VALUES (?, ?, ?, ?, ?) ON CONFLICT (uid) DO NOTHING",
            "UPDATE workloads SET body = ?1, schema = ?2, version = ?3 WHERE name = ?4 AND uid = ?5 AND version = ?3 - 1",
        ],
        (body(workload)?, workload.name.as_str(), workload.uid),
    )
    .await?;
    let uid = workload.uid;
    sqlx::query("DELETE FROM principals WHERE workload = ?")
        .bind(&uid.as_bytes()[..])
        .execute(&mut **transaction)
        .await
        .map_err(unavailable)?;
    for principal in &workload.principals {
        sqlx::query("INSERT INTO principals (principal, workload) VALUES (?, ?)")
            .bind(principal.as_str())
            .bind(&uid.as_bytes()[..])
            .execute(&mut **transaction)
            .await
            .map_err(|e| taken(e, principal.as_str()))?;
    }
    Ok(())
}

async fn put_authority(transaction: &mut Change, authority: &Authority) -> Result<(), StoreError> {
    put_plain(
        transaction,
        authority.version,
        [
            "INSERT INTO authorities (body, schema, version, name, uid) VALUES (?, ?, ?, ?, ?) ON CONFLICT (uid) DO NOTHING",
            "UPDATE authorities SET body = ?1, schema = ?2, version = ?3 WHERE name = ?4 AND uid = ?5 AND version = ?3 - 1",
        ],
        (body(authority)?, authority.name.as_str(), authority.uid),
    )
    .await
}

async fn put_plain(
    transaction: &mut Change,
    number: u64,
    [insert, update]: [&'static str; 2],
    (body, name, uid): (String, &str, Uid),
) -> Result<(), StoreError> {
    let query = sqlx::query(if number == 1 { insert } else { update });
    let query = query.bind(body).bind(SCHEMA).bind(version(number)).bind(name).bind(&uid.as_bytes()[..]);
    let done = query.execute(&mut **transaction).await.map_err(|e| taken(e, name))?;
    changed(done.rows_affected(), uid)
}

fn changed(rows: u64, uid: Uid) -> Result<(), StoreError> {
    if rows == 1 { Ok(()) } else { Err(StoreError::Conflict(uid)) }
}

async fn remove_secret(transaction: &mut Change, id: &SecretId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM secrets WHERE owner = ? AND subject = ? AND kind = ?")
        .bind(&id.owner.as_bytes()[..])
        .bind(&id.subject.as_bytes()[..])
        .bind(id.kind.as_str())
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(unavailable)
}

async fn put_orphan(transaction: &mut Change, orphan: &Orphan) -> Result<(), StoreError> {
    sqlx::query("INSERT OR REPLACE INTO orphans (uid, body) VALUES (?, ?)")
        .bind(&orphan.uid.as_bytes()[..])
        .bind(body(orphan)?)
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(unavailable)
}
