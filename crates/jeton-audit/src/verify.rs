//! Whether a log is whole: every number, every hash, every signature, and nothing gone that was signed.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    AuditPublicKey,
    chain::{Hash, Link, MAX_LINE, Record, hash, hex, is_signed},
    segments::{self, HEAD_FILE},
};

/// Most findings that are named; more are counted.
const MOST_FINDINGS: usize = 100;
/// How often a log is read anew because its oldest segment went meanwhile.
const TRIES: usize = 5;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// Whether nothing was found.
    pub intact: bool,
    /// Files read.
    pub segments: usize,
    /// Records read.
    pub records: u64,
    /// The first record's number.
    pub first: u64,
    /// The last record's number.
    pub last: u64,
    /// Up to which record a signed head vouches for the log.
    pub signed: u64,
    /// When that head was signed.
    pub signed_at: String,
    /// Frequent events that the broker recorded as lost.
    pub lost: u64,
    /// The id of the public key.
    pub key: String,
    /// What is wrong, in the log's order.
    pub findings: Vec<Finding>,
    /// Findings beyond those that are named.
    pub more_findings: u64,
    /// What is not wrong and worth knowing.
    pub notes: Vec<String>,
}

/// Something that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0: the file as a whole.
    pub line: u64,
    /// The record's number, or the one that belongs there.
    pub seq: u64,
    /// What is wrong.
    pub problem: String,
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Io {
        /// Which.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// There is no log.
    #[error(
        "there is no audit log in {0}: name the data directory of a broker that has been started, or the files themselves"
    )]
    None(String),
}

/// A line's place.
#[derive(Debug, Clone)]
struct Place {
    file: PathBuf,
    line: u64,
    seq: u64,
}

/// Verifies the log in a folder, also while it is written, or single files of one in their order. `head` is a copy of the head kept
/// elsewhere; without it and with a folder, the one beside the segments is compared.
pub fn verify(
    folder: Option<&Path>,
    files: &[PathBuf],
    head: Option<&Path>,
    key: &AuditPublicKey,
) -> Result<Report, VerifyError> {
    let beside = folder.map(|folder| folder.join(HEAD_FILE));
    for _ in 1..TRIES {
        match once(folder, files, head.or(beside.as_deref()), key) {
            // The oldest was removed between the list and the reading: the next try sees the record of that.
            Err(VerifyError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && folder.is_some() => {}
            other => return other,
        }
    }
    once(folder, files, head.or(beside.as_deref()), key)
}

fn once(
    folder: Option<&Path>,
    files: &[PathBuf],
    head: Option<&Path>,
    key: &AuditPublicKey,
) -> Result<Report, VerifyError> {
    let unreadable = |path: &Path| {
        let path = path.display().to_string();
        move |source| VerifyError::Io { path, source }
    };
    // Before the log: what was signed by then must be in it.
    let head = match head {
        Some(path) => Some((path, segments::read_small(path).map_err(unreadable(path))?)),
        None => None,
    };
    let mut files = files.to_vec();
    if let Some(folder) = folder {
        match segments::list(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            listed => {
                files.extend(listed.map_err(unreadable(folder))?.into_iter().map(|segment| segment.path))
            }
        }
        let there = files.is_empty() && !head.as_ref().is_some_and(|(_, text)| text.is_some());
        if there {
            return Err(VerifyError::None(folder.display().to_string()));
        }
    }
    let mut walk = Walk::new(key, head.as_ref().and_then(|(_, text)| text.as_deref()));
    for path in &files {
        walk.file(path).map_err(unreadable(path))?;
    }
    walk.end(head.as_ref().map(|(path, text)| (*path, text.is_some())), folder.is_some());
    let mut report = walk.report;
    report.segments = files.len();
    report.intact = report.findings.is_empty();
    report.key = key.id();
    Ok(report)
}

/// A log being read.
struct Walk<'a> {
    key: &'a AuditPublicKey,
    /// The head that must be in it: its line and its record.
    head: Option<(&'a [u8], Record)>,
    head_seen: bool,
    /// The line before; none at the beginning, and behind a line that is no record.
    before: Option<(Link, Place)>,
    /// The last two lines, where the second does not name the first: one of them was changed, and the next line tells which.
    doubt: Option<(Place, Place, Hash)>,
    /// Half a line, if nothing was found behind it.
    half: Option<Place>,
    /// The beginning: its place, and what it says of the record before.
    begin: Option<(Place, Hash)>,
    pruned: u64,
    report: Report,
}

impl<'a> Walk<'a> {
    fn new(key: &'a AuditPublicKey, head: Option<&'a str>) -> Self {
        let head = head.map(|text| text.trim_end().as_bytes());
        let signed = head.filter(|line| is_signed(line, key));
        let head = signed.and_then(|line| Record::parse(line).map(|record| (line, record)));
        let (before, doubt, begin, report) = (None, None, None, Report::default());
        Self { key, head, head_seen: false, before, doubt, half: None, begin, pruned: 0, report }
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        let mut reader = BufReader::new(File::open(path)?);
        let (mut line, mut number) = (vec![], 0);
        loop {
            line.clear();
            // A line that is longer than any is none, and not read into memory whole.
            let read = reader.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            number += 1;
            // No broker writes behind half a line.
            if let Some(half) = self.half.take() {
                self.no_record(half);
            }
            let place = Place { file: path.to_owned(), line: number, seq: self.expected() };
            match line.strip_suffix(b"\n") {
                Some(line) => {
                    self.line(line, place.clone());
                    self.called_after(line, place);
                }
                None if read > MAX_LINE => {
                    self.no_record(place);
                    reader.skip_until(b'\n')?;
                }
                None => self.half = Some(place),
            }
        }
    }

    /// A segment is called after its first record; a copy may have any other name.
    fn called_after(&mut self, line: &[u8], mut place: Place) {
        let named = segments::first_of(&place.file).filter(|_| place.line == 1);
        let (Some(named), Some(record)) = (named, Record::parse(line)) else { return };
        if record.seq != named {
            place.seq = record.seq;
            self.find(
                &place,
                format!("the file is called after record {named}: renamed, or cut at its beginning"),
            );
        }
    }

    fn expected(&self) -> u64 {
        self.before.as_ref().map_or(self.report.last, |(link, _)| link.seq) + 1
    }

    fn line(&mut self, line: &[u8], mut place: Place) {
        let Some(record) = Record::parse(line) else { return self.no_record(place) };
        let expected = place.seq;
        place.seq = record.seq;
        let link = record.link(line);
        self.resolve(&record);
        self.order(&record, expected, &place, link.hash);
        if record.is_head() {
            self.head_line(line, &record, &place);
        }
        self.against_head(line, record.seq, &place);
        if let Some(detail) = &record.detail {
            self.find(&place, format!("the broker found at its start: {detail}"));
        }
        if record.kind == "log.pruned" {
            self.pruned = self.pruned.max(record.through.unwrap_or(0));
        }
        self.report.lost += record.lost.unwrap_or(0);
        self.report.records += 1;
        self.report.last = record.seq;
        self.before = Some((link, place));
    }

    fn order(&mut self, record: &Record, expected: u64, place: &Place, hash: Hash) {
        let Some((before, place_before)) = &self.before else {
            if self.begin.is_none() {
                self.report.first = record.seq;
                self.begin = Some((place.clone(), before_hash(&record.prev)));
            }
            return;
        };
        let follows = record.prev == hex(&before.hash);
        match record.seq {
            // Numbers go on behind a gap that the broker found itself; the record says so.
            seq if seq == expected || (record.detail.is_some() && seq > expected) => {
                if !follows {
                    self.doubt = Some((place_before.clone(), place.clone(), hash));
                }
            }
            seq if seq > expected => {
                let gone = if seq - 1 == expected {
                    format!("record {expected} is")
                } else {
                    format!("records {expected} to {} are", seq - 1)
                };
                let at = Place { seq: expected, ..place.clone() };
                self.find(&at, format!("{gone} missing in front of this line: removed or moved"));
            }
            seq => self.find(
                place,
                format!("record {seq} stands where {expected} belongs: inserted, moved or repeated"),
            ),
        }
    }

    /// Of two lines that do not fit, the second was not changed if the third names it.
    fn resolve(&mut self, third: &Record) {
        let Some((first, second, hash)) = self.doubt.take() else { return };
        if third.prev == hex(&hash) {
            self.find(&first, "the line was changed: the next one names another hash".into());
        } else {
            self.find(&second, "the line was changed: it fits neither the one before nor the next".into());
            // What follows it is compared with nothing.
            self.before = None;
        }
    }

    fn against_head(&mut self, line: &[u8], seq: u64, place: &Place) {
        let Some((head, _)) = self.head.as_ref().filter(|(_, head)| head.seq == seq) else { return };
        if *head != line {
            self.find(place, "another line was signed under this number: it was changed or replaced".into());
        }
        self.head_seen = true;
    }

    fn head_line(&mut self, line: &[u8], record: &Record, place: &Place) {
        if is_signed(line, self.key) {
            // It names the line before, so that the doubt is about that one.
            if let Some((first, ..)) = self.doubt.take() {
                self.find(
                    &first,
                    "the line was changed: the signed head behind it names another hash".into(),
                );
            }
            self.report.signed = record.seq;
            self.report.signed_at.clone_from(&record.at);
            return;
        }
        self.doubt = None;
        let ours = record.key.as_deref() == Some(self.key.id().as_str());
        let text = if ours {
            "the signature of this head does not hold: the line was changed, or signed by another key"
                .to_owned()
        } else {
            format!(
                "this head is signed by another key ({}); expected {}",
                record.key.as_deref().unwrap_or("none"),
                self.key.id()
            )
        };
        self.find(place, text);
    }

    fn no_record(&mut self, place: Place) {
        self.doubt = None;
        self.report.last = place.seq;
        // Where a log begins with one, nothing is known of what was before.
        self.begin.get_or_insert_with(|| (Place { seq: 1, ..place.clone() }, Hash::default()));
        self.find(&place, "the line is no record: it was changed or inserted".into());
        self.before = None;
    }

    fn end(&mut self, head: Option<(&Path, bool)>, whole: bool) {
        if let Some((first, ..)) = self.doubt.take() {
            self.find(&first, "the line or the next one was changed: they do not fit".into());
        }
        if let Some(Place { file, line, .. }) = self.half.take() {
            self.report.notes.push(format!(
                "{}:{line} is half a line: it is being written, or a kill left it, and the next start cuts it off",
                file.display()
            ));
        }
        self.beginning(whole);
        let Some((path, there)) = head else { return };
        let place = |seq| Place { file: path.to_owned(), line: 0, seq };
        match &self.head {
            None if !there => {
                self.find(&place(0), "the head is missing: what was signed last is not known".into())
            }
            None => self.find(
                &place(0),
                "this is no head that was signed with the key: changed, or another key".into(),
            ),
            Some((_, head)) if head.seq > self.report.last => {
                let text = format!(
                    "the log ends at record {}, and {} were signed at {}: truncated",
                    self.report.last, head.seq, head.at
                );
                let at = self.before.as_ref().map_or_else(|| place(head.seq), |(_, last)| last.clone());
                self.find(&Place { seq: self.report.last + 1, ..at }, text);
            }
            Some((_, head)) if !self.head_seen && self.report.first <= head.seq => {
                let (seq, text) = (
                    head.seq,
                    "the head that was signed last is not in the log: records were replaced".into(),
                );
                self.find(&place(seq), text);
            }
            Some(_) => {}
        }
        if self.report.last > self.report.signed {
            let unsigned = self.report.last - self.report.signed;
            self.report.notes.push(format!("{unsigned} record(s) at the end are not signed yet"));
        }
    }

    /// A log begins with record 1, or where the broker wrote down that it removed what was before.
    fn beginning(&mut self, whole: bool) {
        let Some((place, prev)) = self.begin.take() else { return };
        let (first, expected) = (place.seq, self.pruned + 1);
        let problem = if first == 1 && prev != Hash::default() {
            "the line was changed: the first record names one before it".into()
        } else if whole && first > expected {
            format!(
                "records {expected} to {} are missing in front of this line, and the broker did not remove them",
                first - 1
            )
        } else {
            if first > 1 {
                let text = format!("records before {first} are not here: removed by age, or in other files");
                self.report.notes.push(text);
            }
            return;
        };
        let Place { file, line, .. } = place;
        let seq = if first == 1 { 1 } else { expected };
        self.report.findings.insert(0, Finding { file, line, seq, problem });
    }

    fn find(&mut self, place: &Place, problem: String) {
        // Of several things that are wrong with one line, the first says enough.
        if self
            .report
            .findings
            .last()
            .is_some_and(|f| f.line > 0 && f.line == place.line && f.file == place.file)
        {
            return;
        }
        if self.report.findings.len() >= MOST_FINDINGS {
            self.report.more_findings += 1;
            return;
        }
        let Place { file, line, seq } = place.clone();
        self.report.findings.push(Finding { file, line, seq, problem });
    }
}

fn before_hash(prev: &str) -> Hash {
    if prev == hex(&Hash::default()) { Hash::default() } else { hash(prev.as_bytes()) }
}
