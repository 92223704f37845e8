//! Which sealing keys are in force, on disk and in memory.
//!
//! The registry names one. Every data key is wrapped by that one, and while another is about to take over by that too, so at any moment
//! the one that the registry names opens everything.

use std::sync::Arc;

use sqlx::{Row, sqlite::SqliteSynchronous};

use crate::{
    OpenError, SealingKey,
    database::Database,
    sealing::{DataKey, Sealed},
};

/// With what a store may be opened.
#[derive(Debug)]
pub struct SealingKeys {
    /// The key that seals. Where the previous one is in force still, this one is to take over.
    pub key: SealingKey,
    /// The one before.
    pub previous: Option<SealingKey>,
}

impl From<SealingKey> for SealingKeys {
    fn from(key: SealingKey) -> Self {
        Self { key, previous: None }
    }
}

/// The sealing keys in memory.
pub(crate) struct Ring {
    /// The one that the registry names.
    pub(crate) current: Arc<SealingKey>,
    /// The one that is about to take over.
    pub(crate) next: Option<Arc<SealingKey>>,
}

impl Ring {
    /// The id of the key in force.
    pub(crate) fn id(&self) -> &str {
        self.current.id()
    }

    /// A new data key, and how it is kept: under each key's id, wrapped by it.
    pub(crate) fn new_data_key(&self, place: &[u8]) -> Option<(DataKey, Vec<(String, Sealed)>)> {
        let (key, bytes) = DataKey::generate()?;
        let keys = std::iter::once(&self.current).chain(&self.next);
        let wrapped = keys.map(|by| Some((by.id().to_owned(), by.wrap(place, &bytes)?)));
        Some((key, wrapped.collect::<Option<_>>()?))
    }
}

/// The key that the registry names, and the one that is to take over, if that is another.
pub(crate) async fn in_force(
    registry: &Database,
    keys: SealingKeys,
) -> Result<Result<(Arc<SealingKey>, Option<Arc<SealingKey>>), OpenError>, sqlx::Error> {
    let SealingKeys { key, previous } = keys;
    let mut transaction = registry.begin().await?;
    sqlx::query("INSERT OR IGNORE INTO sealing (only, key_id) VALUES (1, ?)")
        .bind(key.id())
        .execute(&mut *transaction)
        .await?;
    let row = sqlx::query("SELECT key_id FROM sealing").fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    let expected: String = row.try_get(0)?;
    if expected == key.id() {
        return Ok(Ok((Arc::new(key), None)));
    }
    let mut found = key.id().to_owned();
    if let Some(previous) = previous {
        if expected == previous.id() {
            return Ok(Ok((Arc::new(previous), Some(Arc::new(key)))));
        }
        found = format!("{found}, the previous one {}", previous.id());
    }
    Ok(Err(OpenError::WrongKey { expected, found }))
}

/// Removes what other sealing keys than this one wrapped, where this one did too.
pub(crate) async fn sweep_owners(registry: &Database, id: &str) -> Result<(), sqlx::Error> {
    let mut transaction = registry.begin().await?;
    sqlx::query(
        "DELETE FROM data_keys WHERE key_id <> ?1 \
         AND EXISTS (SELECT 1 FROM data_keys kept WHERE kept.owner = data_keys.owner AND kept.key_id = ?1)",
    )
    .bind(id)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// The same for tokens. A day of which nothing is left by this one cannot be opened any more.
pub(crate) async fn sweep_days(tokens: &Database, id: &str) -> Result<(), sqlx::Error> {
    let mut connection = tokens.writer(SqliteSynchronous::Full).await?;
    sqlx::query("DELETE FROM token_days WHERE key_id <> ?").bind(id).execute(&mut *connection).await?;
    Ok(())
}

/// Says by whom the days are wrapped that were written before that was said.
pub(crate) async fn name_days(tokens: &Database, id: &str) -> Result<(), sqlx::Error> {
    let mut connection = tokens.writer(SqliteSynchronous::Full).await?;
    sqlx::query("UPDATE token_days SET key_id = ? WHERE key_id = ''")
        .bind(id)
        .execute(&mut *connection)
        .await?;
    Ok(())
}
