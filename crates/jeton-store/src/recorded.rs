//! What mutations with a request id did. Both registries, of identities and of assignments, remember in one table.

use jeton_core::{Uid, Wall};
use sqlx::{Row, Sqlite, Transaction};

use crate::{identities::uid_of, store::Inner};

/// Request ids are remembered this long.
const REMEMBERED_MILLIS: i64 = 48 * 3_600_000;

/// What one did.
pub(crate) struct Found {
    pub(crate) fingerprint: String,
    pub(crate) resource: Uid,
    pub(crate) at: Wall,
    pub(crate) answer: Option<String>,
}

impl Inner {
    pub(crate) async fn find_recorded(&self, request_id: &str) -> Result<Option<Found>, sqlx::Error> {
        let query = sqlx::query(
            "SELECT fingerprint, resource, at, answer FROM recorded_requests WHERE request_id = ?",
        );
        let found = query.bind(request_id).fetch_optional(&self.registry.reader).await?;
        let Some(row) = found else { return Ok(None) };
        let resource: Vec<u8> = row.try_get("resource")?;
        let (fingerprint, answer) = (row.try_get("fingerprint")?, row.try_get("answer")?);
        let at = Wall::from_millis(row.try_get("at")?);
        Ok(uid_of(&resource).map(|resource| Found { fingerprint, resource, at, answer }))
    }

    /// Remembers one, and forgets those that are too old.
    pub(crate) async fn record(
        &self,
        transaction: &mut Transaction<'static, Sqlite>,
        request_id: &str,
        found: Found,
    ) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM recorded_requests WHERE at < ?")
            .bind(found.at.as_millis() - REMEMBERED_MILLIS)
            .execute(&mut **transaction)
            .await?;
        let sql = "INSERT INTO recorded_requests (request_id, fingerprint, resource, at, answer) VALUES (?, ?, ?, ?, ?)";
        sqlx::query(sql)
            .bind(request_id)
            .bind(found.fingerprint)
            .bind(found.resource.as_bytes().to_vec())
            .bind(found.at.as_millis())
            .bind(found.answer)
            .execute(&mut **transaction)
            .await
            .map(drop)
    }
}
