//! The handle that fills the three store ports.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
};

use jeton_core::Clock;
use sqlx::{Row, sqlite::SqliteSynchronous};

use crate::{SealingKey, database::Database, secrets::DataKeys};

/// A cloneable handle on the stores of one data directory.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) registry: Database,
    pub(crate) tokens: Database,
    pub(crate) sealing: SealingKey,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) data_keys: DataKeys,
    pub(crate) day_keys: Mutex<std::collections::HashMap<i64, Arc<crate::sealing::DataKey>>>,
    pub(crate) quarantined: Mutex<Vec<String>>,
}

/// Why the stores cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// SQLite says no.
    #[error("{path} cannot be opened: {source}")]
    Database {
        /// Which file.
        path: String,
        /// What it says.
        source: sqlx::Error,
    },
    /// The file is damaged.
    #[error("{path} is damaged ({found}): restore it from a backup")]
    Damaged {
        /// Which file.
        path: String,
        /// What the check found.
        found: String,
    },
    /// A newer broker wrote it.
    #[error(
        "{path} has schema {version}, and this broker knows {known}: use the broker that wrote it, or a newer one"
    )]
    Newer {
        /// Which file.
        path: String,
        /// Its schema.
        version: i64,
        /// The newest one known.
        known: i64,
    },
    /// Another sealing key was used before.
    #[error(
        "the sealing key does not fit: the data was sealed with key {expected}, and the file holds key {found}. Use the file that belongs to this data"
    )]
    WrongKey {
        /// The id of the key that sealed.
        expected: String,
        /// The id of the key given.
        found: String,
    },
}

impl Store {
    /// Opens `registry.db` and `tokens.db` in a directory; makes them if they are not there.
    pub async fn open(
        data_dir: &Path,
        sealing: SealingKey,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let path = data_dir.join("registry.db");
        // FULL: a commit is on disk before it returns.
        let registry =
            Database::open(&path, SqliteSynchronous::Full, &[include_str!("../migrations/registry_1.sql")])
                .await?;
        check_key(&registry, &sealing)
            .await
            .map_err(|source| OpenError::Database { path: path.display().to_string(), source })??;
        let tokens_path = data_dir.join("tokens.db");
        let tokens = Database::open(
            &tokens_path,
            SqliteSynchronous::Normal,
            &[include_str!("../migrations/tokens_1.sql")],
        )
        .await?;
        let (data_keys, day_keys, quarantined) = (DataKeys::default(), Mutex::default(), Mutex::default());
        let inner = Inner { registry, tokens, sealing, clock, data_keys, day_keys, quarantined };
        Ok(Self(Arc::new(inner)))
    }

    /// Rows that could not be read at load and were left out, by name.
    pub fn quarantined(&self) -> Vec<String> {
        self.0.quarantined.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Closes the files.
    pub async fn close(&self) {
        self.0.tokens.close().await;
        self.0.registry.close().await;
    }
}

async fn check_key(registry: &Database, sealing: &SealingKey) -> Result<Result<(), OpenError>, sqlx::Error> {
    let mut transaction = registry.begin().await?;
    sqlx::query("INSERT OR IGNORE INTO sealing (only, key_id) VALUES (1, ?)")
        .bind(sealing.id())
        .execute(&mut *transaction)
        .await?;
    let row = sqlx::query("SELECT key_id FROM sealing").fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    let expected: String = row.try_get(0)?;
    let found = sealing.id().to_owned();
    Ok(if expected == found { Ok(()) } else { Err(OpenError::WrongKey { expected, found }) })
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}
