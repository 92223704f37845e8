//! A copy of the registry as it stood at one moment, made while the broker runs, and the way back.
//!
//! What is sealed stays sealed: without the sealing key, which is never in it, a copy opens nothing. Tokens are not in it either; they are
//! asked for anew.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

const REGISTRY: &str = "registry.db";
/// What a data directory holds that has been in use.
const IN_USE: [&str; 3] = [REGISTRY, "tokens.db", "uses.db"];

/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// Identities.
    pub identities: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Why there is no copy, or none was put back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is no registry.
    #[error("{0} is no data directory of a broker: it holds no registry.db")]
    NoRegistry(String),
    /// Something is there.
    #[error("{0} exists already; a backup goes into a file that is new")]
    Exists(String),
    /// The directory was in use.
    #[error("{0} holds the data of a broker already: restore into an empty data directory")]
    InUse(String),
    /// The copy is damaged, or no copy.
    #[error("{path} is no whole backup: {found}")]
    Damaged {
        /// Which file.
        path: String,
        /// What was found.
        found: String,
    },
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The database.
    #[error("{path}: {source}")]
    Database {
        /// Which file.
        path: String,
        /// What SQLite says.
        source: sqlx::Error,
    },
}

/// Copies the registry of a data directory into a new file of mode 0600. The broker may run; it is not disturbed.
pub async fn backup(data_dir: &Path, to: &Path) -> Result<Backup, BackupError> {
    let from = data_dir.join(REGISTRY);
    if !from.exists() {
        return Err(BackupError::NoRegistry(data_dir.display().to_string()));
    }
    if to.exists() {
        return Err(BackupError::Exists(to.display().to_string()));
    }
    let unfinished = Unfinished::beside(to);
    let options = SqliteConnectOptions::new().filename(&from).read_only(true);
    let failed = |source| BackupError::Database { path: from.display().to_string(), source };
    let mut registry = SqliteConnection::connect_with(&options).await.map_err(failed)?;
    // Made first, so that it is never there with another mode.
    private(&unfinished.0)?;
    let copied = sqlx::query("VACUUM INTO ?").bind(unfinished.text()).execute(&mut registry).await;
    copied.map_err(failed)?;
    registry.close().await.map_err(failed)?;
    let backup = checked(&unfinished.0).await?;
    unfinished.becomes(to)?;
    Ok(backup)
}

/// Puts a copy into a data directory that holds none. The sealing key is tried by whoever opens the store.
pub async fn restore(from: &Path, data_dir: &Path) -> Result<Backup, BackupError> {
    if IN_USE.iter().any(|file| data_dir.join(file).exists()) {
        return Err(BackupError::InUse(data_dir.display().to_string()));
    }
    let to = data_dir.join(REGISTRY);
    let unfinished = Unfinished::beside(&to);
    private(&unfinished.0)?;
    fs::copy(from, &unfinished.0).map_err(|source| file(from, source))?;
    fs::set_permissions(&unfinished.0, fs::Permissions::from_mode(0o600))
        .map_err(|source| file(&unfinished.0, source))?;
    let backup = checked(&unfinished.0).await.map_err(|error| match error {
        BackupError::Damaged { found, .. } => {
            BackupError::Damaged { path: from.display().to_string(), found }
        }
        other => other,
    })?;
    unfinished.becomes(&to)?;
    Ok(backup)
}

/// A file on its way; it goes if it does not arrive.
struct Unfinished(PathBuf);

impl Unfinished {
    fn beside(path: &Path) -> Self {
        Self(path.with_extension(format!("unfinished{}", std::process::id())))
    }

    fn text(&self) -> String {
        self.0.display().to_string()
    }

    /// It is on disk when this returns.
    fn becomes(self, path: &Path) -> Result<(), BackupError> {
        let on_disk = || {
            File::open(&self.0)?.sync_all()?;
            fs::rename(&self.0, path)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        on_disk().map_err(|source| file(path, source))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.0);
    }
}

/// An empty file that only its owner reads.
fn private(path: &Path) -> Result<(), BackupError> {
    use std::os::unix::fs::OpenOptionsExt;
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|source| file(path, source))
}

fn file(path: &Path, source: io::Error) -> BackupError {
    BackupError::File { path: path.display().to_string(), source }
}

async fn checked(path: &Path) -> Result<Backup, BackupError> {
    let shown = path.display().to_string();
    let damaged = |found: String| BackupError::Damaged { path: shown.clone(), found };
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let look = async {
        let mut copy = SqliteConnection::connect_with(&options).await?;
        let check: String = sqlx::query("PRAGMA integrity_check").fetch_one(&mut copy).await?.try_get(0)?;
        let count: i64 =
            sqlx::query("SELECT count(*) FROM identities").fetch_one(&mut copy).await?.try_get(0)?;
        copy.close().await?;
        Ok::<_, sqlx::Error>((check, count))
    };
    let (check, count) = look.await.map_err(|error| damaged(error.to_string()))?;
    if check != "ok" {
        return Err(damaged(check));
    }
    let bytes = fs::metadata(path).map_err(|source| file(path, source))?.len();
    Ok(Backup { identities: u64::try_from(count).unwrap_or(0), bytes })
}
