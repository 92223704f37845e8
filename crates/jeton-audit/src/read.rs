//! Reading a log for people: the records that fit, and what is written meanwhile.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::segments::{self, Segment};

/// Which records. Absent: all.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only those of this principal.
    pub principal: Option<String>,
    /// Only those about this identity, by its name or uid.
    pub identity: Option<String>,
    /// Only those of this kind: `token.served`, or `log.` for all of them.
    pub kind: Option<String>,
    /// Only those with this outcome.
    pub outcome: Option<String>,
    /// Only those with this correlation id.
    pub correlation_id: Option<String>,
    /// Only those from then on, as [`jeton_core::Wall::rfc3339`] writes it.
    pub since: Option<String>,
}

/// Reads on from where it ended.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    segment: Option<Segment>,
    offset: u64,
}

impl Wanted {
    fn fits(&self, record: &Value) -> bool {
        let text = |name: &str| record[name].as_str().unwrap_or_default();
        let is =
            |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| text(name) == wanted);
        let about = |wanted: &String| {
            let mut resources = record["resources"].as_array().into_iter().flatten();
            resources.any(|r| r["name"] == wanted.as_str() || r["uid"] == wanted.as_str())
        };
        is(&self.principal, "principal")
            && is(&self.outcome, "outcome")
            && is(&self.correlation_id, "correlation_id")
            && self.identity.as_ref().is_none_or(about)
            && self.kind.as_ref().is_none_or(|kind| {
                text("kind") == kind || (kind.ends_with('.') && text("kind").starts_with(kind.as_str()))
            })
            && self.since.as_ref().is_none_or(|since| text("at") >= since.as_str())
    }
}

impl Reader {
    /// From the beginning of the log in a folder.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), segment: None, offset: 0 }
    }

    /// Shows every whole record that fits and was not shown before. `each` says whether to go on.
    pub fn read(&mut self, wanted: &Wanted, mut each: impl FnMut(Value) -> bool) -> io::Result<()> {
        let segments = segments::list(&self.folder)?;
        let here = self.segment.as_ref().map_or(0, |segment| segment.first);
        for segment in segments.into_iter().filter(|segment| segment.first >= here) {
            if self.segment.as_ref() != Some(&segment) {
                (self.segment, self.offset) = (Some(segment.clone()), 0);
            }
            let mut file = match File::open(&segment.path) {
                // It was removed by its age meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            file.seek(SeekFrom::Start(self.offset))?;
            let (mut reader, mut line) = (BufReader::new(file), vec![]);
            while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
                self.offset += line.len() as u64;
                let record = serde_json::from_slice::<Value>(&line).ok().filter(|record| wanted.fits(record));
                if record.is_some_and(|record| !each(record)) {
                    return Ok(());
                }
                line.clear();
            }
        }
        Ok(())
    }
}
