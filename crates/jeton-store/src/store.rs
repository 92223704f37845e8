//! The handle that fills the store ports.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jeton_core::Clock;
use sqlx::sqlite::SqliteSynchronous;

use crate::{
    SealingKey,
    database::Database,
    ring::{self, Ring, SealingKeys},
};

/// A cloneable handle on the stores of one data directory.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) registry: Database,
    pub(crate) tokens: Database,
    pub(crate) uses: Database,
    pub(crate) ring: tokio::sync::RwLock<Ring>,
    /// The key that is to take over, where another one was in force at the start.
    wanted: Option<Arc<SealingKey>>,
    /// One rotation at a time.
    pub(crate) rotating: tokio::sync::Mutex<()>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) day_keys: Mutex<std::collections::HashMap<i64, Arc<crate::sealing::DataKey>>>,
    pub(crate) quarantined: Mutex<Vec<String>>,
    /// Why the last write of the registry failed, if it did.
    unwritable: Mutex<Option<String>>,
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
        "the sealing key does not fit: the data is sealed with key {expected}, and the file holds key {found}. Use the file that belongs to this data: if the sealing key was rotated, the new one"
    )]
    WrongKey {
        /// The id of the key that sealed.
        expected: String,
        /// The id of the key given, or of both.
        found: String,
    },
}

impl Store {
    /// Opens `registry.db`, `tokens.db` and `uses.db` in a directory; makes them if they are not there. Whichever of the sealing keys is
    /// in force opens them.
    pub async fn open(
        data_dir: &Path,
        sealing: impl Into<SealingKeys>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let path = data_dir.join("registry.db");
        // FULL: a commit is on disk before it returns.
        let registry = Database::open(
            &path,
            SqliteSynchronous::Full,
            &[
                include_str!("../migrations/registry_1.sql"),
                include_str!("../migrations/registry_2.sql"),
                include_str!("../migrations/registry_3.sql"),
                include_str!("../migrations/registry_4.sql"),
            ],
        )
        .await?;
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |source| OpenError::Database { path, source }
        };
        let (current, wanted) = ring::in_force(&registry, sealing.into()).await.map_err(failed(&path))??;
        ring::sweep_owners(&registry, current.id()).await.map_err(failed(&path))?;
        let tokens_path = data_dir.join("tokens.db");
        let tokens = Database::open(
            &tokens_path,
            SqliteSynchronous::Normal,
            &[
                include_str!("../migrations/tokens_1.sql"),
                include_str!("../migrations/tokens_2.sql"),
                include_str!("../migrations/tokens_3.sql"),
            ],
        )
        .await?;
        ring::name_days(&tokens, current.id()).await.map_err(failed(&tokens_path))?;
        ring::sweep_days(&tokens, current.id()).await.map_err(failed(&tokens_path))?;
        let uses_path = data_dir.join("uses.db");
        let uses_migrations = &[include_str!("../migrations/uses_1.sql")];
        let uses = Database::open(&uses_path, SqliteSynchronous::Normal, uses_migrations).await?;
        let (day_keys, quarantined) = (Mutex::default(), Mutex::default());
        let unwritable = Mutex::default();
        let (ring, rotating) = (tokio::sync::RwLock::new(Ring { current, next: None }), Default::default());
        let inner = Inner {
            registry,
            tokens,
            uses,
            ring,
            wanted,
            rotating,
            clock,
            day_keys,
            quarantined,
            unwritable,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Rows that could not be read at load and were left out, by name.
    pub fn quarantined(&self) -> Vec<String> {
        locked(&self.0.quarantined).clone()
    }

    /// Why the last write of the registry failed; none if it did not.
    pub fn unwritable(&self) -> Option<String> {
        locked(&self.0.unwritable).clone()
    }

    /// The id of the sealing key in force.
    pub async fn sealing_key(&self) -> String {
        self.0.ring.read().await.id().to_owned()
    }

    /// The sealing key that is to take over: the data was opened with the previous one.
    pub async fn wanted_sealing_key(&self) -> Option<Arc<SealingKey>> {
        let in_force = self.0.ring.read().await;
        self.0.wanted.clone().filter(|wanted| wanted.id() != in_force.id())
    }

    /// Closes the files.
    pub async fn close(&self) {
        self.0.tokens.close().await;
        self.0.uses.close().await;
        self.0.registry.close().await;
    }
}

impl Inner {
    /// Remembers how a write of the registry ended, and says so when that is another end than before.
    pub(crate) fn note_write(&self, failure: Option<String>) {
        let mut noted = locked(&self.unwritable);
        match (&failure, noted.is_some()) {
            (Some(error), false) => {
                tracing::error!(%error, "the registry cannot be written, so nothing can be changed; serving goes on: make room on the disk of the data directory, or make it writable");
            }
            (None, true) => tracing::info!("the registry can be written again"),
            _ => {}
        }
        *noted = failure;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jeton_access::{AccessStore, AccessWrite};
    use jeton_core::{Uid, Wall};
    use jeton_engine::{TokenStore, TokenWrite};
    use jeton_lifecycle::{IdentityStore, SecretId, SecretKind, Write};
    use jeton_testkit::ManualClock;

    use super::*;

    /// Until the connection is replaced, its file must not grow: as if the disk were full.
    async fn fill(database: &Database) {
        let mut transaction = database.begin().await.unwrap();
        sqlx::query("PRAGMA max_page_count = 1").execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }

    fn secret(bytes: usize) -> Vec<Write> {
        let uid = Uid::new(Wall::from_secs(1), [1; 10]);
        let id = SecretId { owner: uid, subject: uid, kind: SecretKind::ClientSecret };
        vec![Write::Secret(id, vec![7; bytes].into())]
    }

    #[tokio::test]
    async fn writes_work_again_as_soon_as_a_full_disk_has_room() {
        let folder = tempfile::tempdir().unwrap();
        let key = SealingKey::create(&folder.path().join("key")).unwrap();
        let store = Store::open(folder.path(), key, Arc::new(ManualClock::default())).await.unwrap();
        fill(&store.0.registry).await;
        let full = IdentityStore::commit(&store, secret(100_000)).await.unwrap_err().to_string();
        assert!(full.contains("full"), "{full}");
        assert!(store.unwritable().unwrap().contains("full"));
        IdentityStore::commit(&store, secret(100_000)).await.unwrap();
        assert_eq!(store.unwritable(), None);
        fill(&store.0.registry).await;
        IdentityStore::commit(&store, secret(200_000)).await.unwrap_err();
        AccessStore::commit(&store, vec![AccessWrite::Remove(Uid::new(Wall::from_secs(1), [1; 10]))])
            .await
            .unwrap();
        assert_eq!(store.unwritable(), None);
        let put = |n: u8, length: usize| {
            let key = jeton_engine::testing::key(n.into(), "a");
            let mut token = jeton_engine::testing::issued(&key, 1, std::time::Duration::from_secs(3_600));
            token.access_token = "x".repeat(length).into();
            let at = Wall::from_secs(1_767_225_600);
            let stored = jeton_engine::StoredToken {
                key,
                token,
                issued_at: at,
                refresh_at: at,
                last_used: at,
                earlier_until: None,
            };
            vec![TokenWrite::Put(Box::new(stored))]
        };
        fill(&store.0.tokens).await;
        TokenStore::write(&store, put(1, 100_000)).await.unwrap_err();
        TokenStore::write(&store, put(1, 100_000)).await.unwrap();
    }
}
