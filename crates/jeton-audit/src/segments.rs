//! The files of a log: segments called after their first record, the head and the public key beside them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The log's folder in a data directory.
pub const FOLDER: &str = "audit";
/// The file of the latest head: the line as it stands in the log.
pub const HEAD_FILE: &str = "head.json";
/// The file of the public key.
pub const KEY_FILE: &str = "key.pem";

const EXTENSION: &str = ".jsonl";

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segment {
    /// Its first record.
    pub(crate) first: u64,
    pub(crate) path: PathBuf,
}

impl Segment {
    pub(crate) fn new(folder: &Path, first: u64) -> Self {
        Self { first, path: folder.join(format!("{first:020}{EXTENSION}")) }
    }
}

/// All segments, the oldest first.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut found = vec![];
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        found.extend(first_of(&path).map(|first| Segment { first, path }));
    }
    found.sort();
    Ok(found)
}

/// The record after which a segment is called; none: the file's name is no segment's.
pub(crate) fn first_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(EXTENSION).filter(|digits| digits.len() == 20)?.parse().ok()
}

/// Makes a file that only its owner reads, and its name durable.
pub(crate) fn create(folder: &Path, path: &Path) -> io::Result<File> {
    // One that is there is what is left of a try that failed: what was written is never made anew.
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// Replaces a small file, whole or not at all, durably.
pub(crate) fn replace(folder: &Path, name: &str, content: &str) -> io::Result<()> {
    let next = folder.join(format!("{name}.next"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(content.as_bytes())?;
    file.sync_data()?;
    fs::rename(&next, folder.join(name))?;
    File::open(folder)?.sync_all()
}

/// A small file's text; none if it is not there.
pub(crate) fn read_small(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
