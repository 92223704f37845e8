//! First and last uses of identities.

use jeton_access::{AccessStoreError, MOST_USES_TOLD, UseRecord, UseStore};
use jeton_core::{BoxFuture, Uid, Wall};
use sqlx::Row;

use crate::{Store, store::Inner};

const MERGE: &str = "INSERT INTO uses (identity, principal, target, first_used, last_used) VALUES (?, ?, ?, ?, ?) \
    ON CONFLICT DO UPDATE SET first_used = min(first_used, excluded.first_used), last_used = max(last_used, excluded.last_used)";
const TRIM: &str = "DELETE FROM uses WHERE rowid IN \
    (SELECT rowid FROM uses ORDER BY last_used LIMIT max(0, (SELECT count(*) FROM uses) - ?))";
const LATEST: &str = "SELECT principal, target, first_used, last_used FROM uses WHERE identity = ? ORDER BY last_used DESC LIMIT ?";

fn failed(error: impl std::fmt::Display) -> AccessStoreError {
    AccessStoreError(format!("uses: {error}").into())
}

fn bound(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

impl UseStore for Store {
    fn merge_uses(&self, uses: Vec<UseRecord>, most: usize) -> BoxFuture<'_, Result<(), AccessStoreError>> {
        Box::pin(async move { self.0.merge(&uses, most).await.map_err(failed) })
    }

    fn uses_of(&self, identity: Uid) -> BoxFuture<'_, Result<Vec<UseRecord>, AccessStoreError>> {
        Box::pin(async move {
            let query = sqlx::query(LATEST).bind(identity.as_bytes().to_vec()).bind(bound(MOST_USES_TOLD));
            let rows = query.fetch_all(&self.0.uses.reader).await.map_err(failed)?;
            rows.iter().map(|row| record(identity, row)).collect()
        })
    }
}

impl Inner {
    async fn merge(&self, uses: &[UseRecord], most: usize) -> Result<(), sqlx::Error> {
        let mut transaction = self.uses.begin().await?;
        for used in uses {
            sqlx::query(MERGE)
                .bind(&used.identity.as_bytes()[..])
                .bind(used.principal.as_str())
                .bind(&*used.target)
                .bind(used.first.as_millis())
                .bind(used.last.as_millis())
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query(TRIM).bind(bound(most)).execute(&mut *transaction).await?;
        transaction.commit().await
    }
}

fn record(identity: Uid, row: &sqlx::sqlite::SqliteRow) -> Result<UseRecord, AccessStoreError> {
    let text = |name| row.try_get::<String, _>(name).map_err(failed);
    let at = |name| row.try_get(name).map(Wall::from_millis).map_err(failed);
    Ok(UseRecord {
        principal: text("principal")?.parse().map_err(failed)?,
        identity,
        target: text("target")?.into(),
        first: at("first_used")?,
        last: at("last_used")?,
    })
}
