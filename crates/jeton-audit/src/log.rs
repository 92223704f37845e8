//! The files as one thread writes them: append, then `fdatasync`; end a segment with a signed head; remove the oldest.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use jeton_core::Wall;

use crate::{
    AuditKey, AuditSettings,
    chain::{Link, Own},
    segments::{self, HEAD_FILE, Segment},
};

/// The log's end.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) folder: PathBuf,
    pub(crate) key: AuditKey,
    pub(crate) settings: AuditSettings,
    pub(crate) segment: Segment,
    /// None after a failure: it is opened again, and what was written of the batch that failed is cut off.
    pub(crate) file: Option<File>,
    /// What of it is known to be on disk.
    pub(crate) length: u64,
    pub(crate) last: Link,
    /// The last record that a head signs, the head itself included.
    pub(crate) signed: u64,
    /// The last gap that a start recorded, as long as it is in the log.
    pub(crate) gap: Option<u64>,
}

/// A record to be written: its time and its JSON object.
pub(crate) type Entry = (Wall, String);

impl Log {
    /// Makes all entries durable, or none.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let Some((at, _)) = entries.last() else { return Ok(()) };
        if self.length >= self.settings.max_segment_bytes {
            self.turn_over(*at)?;
        }
        let (mut text, mut last) = (String::new(), self.last);
        for (at, body) in entries {
            let line = last.next_line(*at, body);
            last = last.then(&line);
            text += &line;
            text.push('\n');
        }
        self.write(&text, last)
    }

    /// The number of the last record.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last.seq
    }

    /// Whether something is not signed yet.
    pub(crate) fn has_news(&self) -> bool {
        self.last.seq > self.signed
    }

    /// Signs everything so far.
    pub(crate) fn sign(&mut self, at: Wall) -> io::Result<()> {
        let line = self.last.head_line(at, &self.key, self.gap);
        let text = format!("{line}\n");
        let last = self.last.then(&line);
        self.write(&text, last)?;
        segments::replace(&self.folder, HEAD_FILE, &text)?;
        self.signed = last.seq;
        Ok(())
    }

    /// Ends the segment and begins the next one.
    fn turn_over(&mut self, at: Wall) -> io::Result<()> {
        if self.has_news() {
            self.sign(at)?;
        }
        let next = Segment::new(&self.folder, self.last.seq + 1);
        self.file = Some(segments::create(&self.folder, &next.path)?);
        (self.segment, self.length) = (next, 0);
        self.prune(at)
    }

    /// Removes segments that are too many. It is written down first, so that one that is missing is either named or stolen.
    pub(crate) fn prune(&mut self, at: Wall) -> io::Result<()> {
        let all = segments::list(&self.folder)?;
        let too_many = all.len().saturating_sub(self.settings.max_segments);
        let Some(kept) = all.get(too_many).filter(|_| too_many > 0) else { return Ok(()) };
        let line = self.last.next_line(at, &Own::Pruned { through: kept.first - 1 }.body());
        self.write(&format!("{line}\n"), self.last.then(&line))?;
        all[..too_many].iter().try_for_each(|old| fs::remove_file(&old.path))
    }

    fn write(&mut self, text: &str, last: Link) -> io::Result<()> {
        self.check_place()?;
        let file = self.file()?;
        if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_data()) {
            self.file = None;
            // At once if that is possible, or before the next one.
            let _ = self.file();
            return Err(error);
        }
        // What went into a file that was taken away meanwhile is on no log: it is cut off there, in case the file comes back.
        if let Err(error) = self.check_place() {
            self.file = self.file.take().filter(|file| file.set_len(self.length).is_ok());
            return Err(error);
        }
        self.length += text.len() as u64;
        self.last = last;
        Ok(())
    }

    fn file(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let file = OpenOptions::new().append(true).open(&self.segment.path);
            let file = file.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => self.changed("was removed"),
                _ => error,
            })?;
            if file.metadata()?.len() < self.length {
                return Err(self.changed("is shorter than what was written to it"));
            }
            file.set_len(self.length)?;
            self.file = Some(file);
        }
        self.file.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A file that was moved away could be written to for ever.
    fn check_place(&mut self) -> io::Result<()> {
        let here = fs::metadata(&self.segment.path).ok().map(|m| (m.dev(), m.ino()));
        let open = self.file()?.metadata()?;
        if here != Some((open.dev(), open.ino())) {
            return Err(self.changed("was removed or replaced while it was written to"));
        }
        if open.len() < self.length {
            return Err(self.changed("is shorter than what was written to it"));
        }
        Ok(())
    }

    /// Whether a failure is somebody else's doing and not the disk's.
    pub(crate) fn is_tampering(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::Other
    }

    fn changed(&self, how: &str) -> io::Error {
        let path = self.segment.path.display();
        io::Error::other(format!(
            "{path} {how}: somebody else changes the audit log; put the file back, or restart the broker, which records the gap"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_does_not_fit_on_the_disk_leaves_nothing_and_the_next_one_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (path, at) = (folder.path().join("audit"), Wall::from_secs(1));
        let key = AuditKey::generate().unwrap();
        let (mut log, _) = Log::open(path, key, false, AuditSettings::default(), "1", at).unwrap();
        let entry = || [(at, r#"{"kind":"x"}"#.to_owned())];
        log.append(&entry()).unwrap();
        let before = (log.last, fs::read(&log.segment.path).unwrap());
        let full = Segment { first: log.segment.first, path: "/dev/full".into() };
        let (segment, length) = (std::mem::replace(&mut log.segment, full), std::mem::take(&mut log.length));
        log.file = Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
        assert_eq!(log.append(&entry()).unwrap_err().kind(), io::ErrorKind::StorageFull);
        (log.segment, log.length) = (segment, length);
        // As if a part of it had reached the disk.
        let mut half = before.1.clone();
        half.extend_from_slice(b"{\"seq\":");
        fs::write(&log.segment.path, half).unwrap();
        log.file = None;
        assert_eq!(log.last, before.0);
        log.append(&entry()).unwrap();
        assert_eq!(log.last.seq, before.0.seq + 1);
        assert!(fs::read(&log.segment.path).unwrap().starts_with(&before.1));
        log.sign(at).unwrap();
        let report = crate::verify(Some(&log.folder), &[], None, log.key.public()).unwrap();
        assert!(report.intact && report.signed == report.last, "{report:?}");
    }

    #[test]
    fn a_segment_that_somebody_takes_away_or_replaces_is_no_place_to_write_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, at) = (folder.path().join("audit"), Wall::from_secs(1));
        let key = AuditKey::generate().unwrap();
        let (mut log, _) = Log::open(path, key, false, AuditSettings::default(), "1", at).unwrap();
        let (taken, entry) = (folder.path().join("taken"), [(at, r#"{"kind":"x"}"#.to_owned())]);
        let before = log.last;
        fs::rename(&log.segment.path, &taken).unwrap();
        let refused = [log.append(&entry).unwrap_err(), log.sign(at).unwrap_err()];
        fs::copy(&taken, &log.segment.path).unwrap();
        for refused in refused.into_iter().chain([log.append(&entry).unwrap_err()]) {
            assert!(refused.to_string().contains("removed or replaced"), "{refused}");
            assert!(Log::is_tampering(&refused));
        }
        assert_eq!(log.last, before, "nothing was acknowledged");
        fs::rename(taken, &log.segment.path).unwrap();
        log.append(&entry).and_then(|()| log.sign(at)).unwrap();
        let report = crate::verify(Some(&log.folder), &[], None, log.key.public()).unwrap();
        assert!(report.intact && report.last == before.seq + 2, "{report:?}");
    }
}
