//! The data directory: one broker at a time, nothing of it in version control, nothing of it for other users.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// A locked data directory. The lock ends with the value, or with the process.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error(
        "{path} is in use by process {holder}: stop that broker, or choose another directory with --data-dir"
    )]
    InUse { path: String, holder: String },
    #[error("{path} cannot be used as data directory: {source}")]
    Io { path: String, source: io::Error },
}

impl DataDir {
    /// Creates the directory if it is not there, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Io { path: path.display().to_string(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        ignored(&path.join(".gitignore")).map_err(failed)?;
        let lock = lock(&path.join("lock"), &path)?;
        Ok(Self { path, _lock: lock })
    }

    /// The absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// A file that is there belongs to somebody who made this his data directory.
fn ignored(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made?.write_all(b"*\n"),
    }
}

fn lock(file: &Path, folder: &Path) -> Result<File, DataDirError> {
    let failed = |source| DataDirError::Io { path: folder.display().to_string(), source };
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(file);
    let mut held = open.map_err(failed)?;
    if flock(&held, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        held.read_to_string(&mut holder).map_err(failed)?;
        let holder = if holder.trim().is_empty() { "unknown".into() } else { holder.trim().to_owned() };
        return Err(DataDirError::InUse { path: folder.display().to_string(), holder });
    }
    held.set_len(0)
        .and_then(|()| held.rewind())
        .and_then(|()| write!(held, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(held)
}

/// Writes a file that only its owner reads, whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let next = path.with_extension(format!("tmp{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(content)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.sync_all()?;
    fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_broker_is_told_who_has_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())) && error.contains("--data-dir"),
            "{error}"
        );
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn the_directory_is_private_and_out_of_version_control() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("data")).unwrap();
        assert_eq!(fs::metadata(data.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(data.join(".gitignore")).unwrap(), "*\n");
    }

    #[test]
    fn what_somebody_else_ignores_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".gitignore"), "target\n").unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(data.join(".gitignore")).unwrap(), "target\n");
    }
}
