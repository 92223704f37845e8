//! A SQLite file: opened, migrated forward, with one writer and a few readers.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use sqlx::{
    Connection, Row, Sqlite, SqlitePool, Transaction,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::OpenError;

pub(crate) struct Database {
    writer: SqlitePool,
    pub(crate) reader: SqlitePool,
}

impl Database {
    /// `migrations`: the SQL that leads to version 1, 2, ...
    pub(crate) async fn open(
        path: &Path,
        synchronous: SqliteSynchronous,
        migrations: &[&'static str],
    ) -> Result<Self, OpenError> {
        let shown = path.display().to_string();
        let failed = |source| OpenError::Database { path: shown.clone(), source };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            // A full disk makes SQLite roll back by itself. The connection goes on counting a transaction that is none, and would
            // begin no other: it is replaced.
            .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(|e| failed(sqlx::Error::Io(e)))?;
        migrate(&writer, migrations, &shown).await?;
        let check: String = sqlx::query("PRAGMA quick_check")
            .fetch_one(&writer)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(failed)?;
        if check != "ok" {
            return Err(OpenError::Damaged { path: shown, found: check });
        }
        let reader = SqlitePoolOptions::new()
            .max_connections(2)
            .connect_with(options.read_only(true))
            .await
            .map_err(failed)?;
        Ok(Self { writer, reader })
    }

    /// The one connection that writes, for whoever says how durable its next transaction is.
    pub(crate) async fn writer(
        &self,
        synchronous: SqliteSynchronous,
    ) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        let mut connection = self.writer.acquire().await?;
        let pragma = match synchronous {
            SqliteSynchronous::Full => "PRAGMA synchronous = FULL",
            _ => "PRAGMA synchronous = NORMAL",
        };
        sqlx::query(pragma).execute(&mut *connection).await?;
        Ok(connection)
    }

    /// A transaction that may write.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    pub(crate) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

async fn migrate(writer: &SqlitePool, migrations: &[&'static str], path: &str) -> Result<(), OpenError> {
    let failed = |source| OpenError::Database { path: path.to_owned(), source };
    let row = sqlx::query("PRAGMA user_version").fetch_one(writer).await.map_err(failed)?;
    let version: i64 = row.try_get(0).map_err(failed)?;
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(OpenError::Newer { path: path.to_owned(), version, known });
    }
    for (number, sql) in (1_i64..).zip(migrations).skip(usize::try_from(version).unwrap_or(0)) {
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        sqlx::raw_sql(*sql).execute(&mut *transaction).await.map_err(failed)?;
        let mark = format!("PRAGMA user_version = {number}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(mark)).execute(&mut *transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
    }
    Ok(())
}
