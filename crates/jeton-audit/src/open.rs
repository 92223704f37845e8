//! The start: cut off what a kill left half, compare the end with what was signed, and write down what is found.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, BufRead, BufReader},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use jeton_core::Wall;

use crate::{
    AuditKey, AuditPublicKey, AuditSettings, borders,
    chain::{Link, Own, Record, hash, hex, is_signed},
    log::Log,
    segments::{self, HEAD_FILE, KEY_FILE, Segment},
};

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The system says no.
    #[error("the audit log in {folder} cannot be opened: {source}")]
    Io {
        /// Where.
        folder: String,
        /// What it says.
        source: io::Error,
    },
    /// It was signed with another key.
    #[error(
        "the audit log in {folder} is signed with key {found}, and this broker's key is {expected}: move the folder away to begin a new log, or restore the registry that belongs to it"
    )]
    OtherKey {
        /// Where.
        folder: String,
        /// The id of the key beside the log, or that nothing readable is there.
        found: String,
        /// The id of the broker's key.
        expected: String,
    },
}

const GONE: &str = "the key of this log was there before, and nothing of a log is: it was removed, or the first start was killed";

/// The end of a log as it is found on disk.
struct End {
    segment: Segment,
    length: u64,
    last: Link,
    /// Bytes of a half line.
    half: u64,
    /// What does not fit together, in the last segment.
    broken: Option<String>,
}

impl Log {
    /// Opens the log in a folder; makes it if it is not there. What was found wrong comes back for whoever operates the broker. `begun`:
    /// the key was there before, so that a log was too.
    pub(crate) fn open(
        folder: PathBuf,
        key: AuditKey,
        begun: bool,
        settings: AuditSettings,
        version: &'static str,
        at: Wall,
    ) -> Result<(Self, Vec<String>), OpenError> {
        let failed = |source| OpenError::Io { folder: folder.display().to_string(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        check_key(&folder, key.public(), failed)?;
        let (end, mut own, mut alarms) = (end(&folder).map_err(failed)?, vec![], vec![]);
        let head = segments::read_small(&folder.join(HEAD_FILE)).map_err(failed)?;
        let mut last = end.last;
        if end.half > 0 {
            let cut = OpenOptions::new().write(true).open(&end.segment.path);
            cut.and_then(|file| file.set_len(end.length)).map_err(failed)?;
            own.push(Own::Repaired { bytes_cut: end.half });
        }
        alarms.extend(end.broken.clone());
        let all = segments::list(&folder).map_err(failed)?;
        alarms.extend(borders::check(&all).map_err(failed)?);
        let mut gap = known_gap(head.as_deref(), key.public(), &all);
        alarms.extend(
            gap.map(|seq| format!("something is missing in front of record {seq}, as a start recorded")),
        );
        let missing = missing(&folder, head.as_deref(), &end, key.public()).map_err(failed)?;
        let gone = (begun && head.is_none() && all.is_empty()).then(|| (GONE.to_owned(), 0));
        if let Some((detail, signed)) = missing.or(gone) {
            alarms.push(detail.clone());
            last.seq = last.seq.max(signed);
            gap = Some(last.seq + own.len() as u64 + 1);
            own.push(Own::Gap { detail });
        }
        own.push(Own::Opened { version });
        let Segment { first, path } = end.segment;
        // A log that goes on behind a gap in an empty folder begins with that number.
        let segment = if end.length == 0 && first != last.seq + 1 {
            Segment::new(&folder, last.seq + 1)
        } else {
            Segment { first, path }
        };
        let file = segments::create(&folder, &segment.path).map_err(failed)?;
        let (length, signed) = (end.length, 0);
        let mut log = Self {
            folder: folder.clone(),
            key,
            settings,
            segment,
            file: Some(file),
            length,
            last,
            signed,
            gap,
        };
        let entries: Vec<_> = own.iter().map(|own| (at, own.body())).collect();
        log.append(&entries).and_then(|()| log.prune(at)).and_then(|()| log.sign(at)).map_err(failed)?;
        Ok((log, alarms))
    }
}

/// The public key beside the log is this one; it is written there if there is none and no log yet.
fn check_key(
    folder: &Path,
    key: &AuditPublicKey,
    failed: impl Fn(io::Error) -> OpenError + Copy,
) -> Result<(), OpenError> {
    let found = segments::read_small(&folder.join(KEY_FILE)).map_err(failed)?;
    match found.as_deref().map(AuditPublicKey::from_pem) {
        None => segments::replace(folder, KEY_FILE, &key.to_pem()).map_err(failed),
        Some(Ok(found)) if found == *key => Ok(()),
        Some(other) => Err(OpenError::OtherKey {
            folder: folder.display().to_string(),
            found: other.map_or_else(|_| "(unreadable)".into(), |found| found.id()),
            expected: key.id(),
        }),
    }
}

/// The gap that the head names, as long as it is in the log.
fn known_gap(head: Option<&str>, key: &AuditPublicKey, all: &[Segment]) -> Option<u64> {
    let head = head.map(|head| head.trim_end().as_bytes()).filter(|head| is_signed(head, key))?;
    let gap = Record::parse(head)?.gap?;
    all.first().is_some_and(|oldest| oldest.first <= gap).then_some(gap)
}

fn end(folder: &Path) -> io::Result<End> {
    let mut segments = segments::list(folder)?;
    let Some(segment) = segments.pop() else {
        let segment = Segment::new(folder, 1);
        return Ok(End { segment, length: 0, last: Link::default(), half: 0, broken: None });
    };
    let mut end = scan(segment)?;
    // A kill may come right after a segment was begun.
    if end.length == 0
        && let Some(before) = segments.pop()
    {
        end.last = scan(before)?.last;
    }
    Ok(end)
}

/// Reads a segment to its last whole line.
fn scan(segment: Segment) -> io::Result<End> {
    let mut reader = BufReader::new(fs::File::open(&segment.path)?);
    let (mut length, mut number) = (0, 0_u64);
    let (mut last, mut broken) = (None::<Link>, None);
    let mut line = vec![];
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)? as u64;
        let Some(line) = line.strip_suffix(b"\n") else {
            let last = last.unwrap_or_default();
            return Ok(End { segment, length, last, half: read, broken });
        };
        (length, number) = (length + read, number + 1);
        let record = Record::parse(line);
        let follows = |r: &Record| last.is_none_or(|l| r.seq > l.seq && r.prev == hex(&l.hash));
        if !record.as_ref().is_some_and(follows) && broken.is_none() {
            let path = segment.path.display();
            broken = Some(format!("{path} was changed near line {number}; `jeton audit verify` says more"));
        }
        // Whatever the line is, the chain goes on from it, so that the place stays visible.
        let seq = record.map_or_else(|| last.map_or(segment.first, |l| l.seq + 1), |r| r.seq);
        last = Some(Link { seq, hash: hash(line) });
    }
}

/// What was signed and is not there, and up to which record it was signed.
fn missing(
    folder: &Path,
    head: Option<&str>,
    end: &End,
    key: &AuditPublicKey,
) -> io::Result<Option<(String, u64)>> {
    let Some(head) = head.map(str::trim_end) else {
        // The first head is written right after the log is made, unless it is killed just then, which may come more than once.
        let young = end.last.seq <= 16;
        return Ok(
            (!young).then(|| (format!("{HEAD_FILE} is missing: what was signed last is not known"), 0))
        );
    };
    let Some(record) = Record::parse(head.as_bytes()).filter(|_| is_signed(head.as_bytes(), key)) else {
        return Ok(Some((format!("{HEAD_FILE} was changed: what was signed last is not known"), 0)));
    };
    let segments = segments::list(folder)?;
    let holds = segments.iter().rev().find(|segment| segment.first <= record.seq);
    let there = match holds {
        Some(segment) => {
            fs::read(&segment.path)?.split(|byte| *byte == b'\n').any(|line| line == head.as_bytes())
        }
        None => false,
    };
    let detail = format!(
        "records up to {} were signed at {}, and the log ended at {}: it was cut off or replaced",
        record.seq, record.at, end.last.seq
    );
    Ok((!there).then_some((detail, record.seq)))
}
