//! Whatever is done to one line of a log is found, and its place is named.

use std::{fs, path::PathBuf, sync::OnceLock};

use jeton_audit::{AuditKey, FOLDER, Finding, Report, verify};
use jeton_core::{AuditKind, AuditOutcome, AuditTrail};
use proptest::{prelude::*, sample::Index, test_runner::Config};
use tempfile::TempDir;

use crate::{event, key, segments, settings, start, verified};

/// A log of several segments, closed.
fn log() -> &'static TempDir {
    static LOG: OnceLock<TempDir> = OnceLock::new();
    LOG.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (trail, task) = start(folder.path(), settings());
            for n in 0..60 {
                trail.record(event(AuditKind::AdminChange, AuditOutcome::Ok, n)).await.unwrap();
            }
            task.shutdown().await;
        });
        folder
    })
}

/// A copy to be tampered with: each segment's lines.
struct Copy {
    folder: TempDir,
    files: Vec<(PathBuf, Vec<Vec<u8>>)>,
}

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(FOLDER)).unwrap();
        for entry in fs::read_dir(log().path().join(FOLDER)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(FOLDER).join(entry.file_name())).unwrap();
        }
        fs::copy(log().path().join("key.der"), folder.path().join("key.der")).unwrap();
        let lines = |path: PathBuf| {
            let bytes = fs::read(&path).unwrap();
            (path, bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect())
        };
        let files = segments(folder.path()).into_iter().map(lines).collect();
        Self { folder, files }
    }

    /// A line's file and index.
    fn pick(&self, index: Index) -> (usize, usize) {
        let places =
            self.files.iter().enumerate().flat_map(|(f, (_, lines))| (0..lines.len()).map(move |l| (f, l)));
        let places: Vec<_> = places.collect();
        places[index.index(places.len())]
    }

    fn seq(&self, (file, line): (usize, usize)) -> u64 {
        serde_json::from_slice::<serde_json::Value>(&self.files[file].1[line]).unwrap()["seq"]
            .as_u64()
            .unwrap()
    }

    fn report(&self) -> Report {
        self.files.iter().for_each(|(path, lines)| fs::write(path, lines.concat()).unwrap());
        verified(self.folder.path())
    }

    fn is_at(&self, finding: &Finding, (file, line): (usize, usize)) -> bool {
        finding.file == self.files[file].0 && finding.line == line as u64 + 1
    }
}

proptest! {
    #![proptest_config(Config { cases: 300, failure_persistence: None, ..Config::default() })]

    #[test]
    fn one_byte_that_is_changed_is_found_at_its_line(at: Index, byte: Index, to in 1..=255_u8) {
        let mut copy = Copy::new();
        let (file, line) = copy.pick(at);
        let changed = &mut copy.files[file].1[line];
        let byte = byte.index(changed.len());
        changed[byte] ^= to;
        // Without its newline the last line of a log is half a line: as if it were not there.
        let last = copy.files[file].1.len() == line + 1 && copy.files.len() == file + 1;
        let cut = last && byte + 1 == copy.files[file].1[line].len();
        let report = copy.report();
        prop_assert!(!report.intact);
        let found = &report.findings[0];
        if cut {
            prop_assert!(found.problem.contains("truncated"), "{:#?}", report);
        } else {
            prop_assert!(copy.is_at(found, (file, line)), "{}:{}: {:#?}", file, line + 1, report);
        }
    }

    #[test]
    fn a_line_without_an_end_is_found_where_another_segment_follows(at: Index, to in 1..=255_u8) {
        let mut copy = Copy::new();
        let file = at.index(copy.files.len() - 1);
        let line = copy.files[file].1.len() - 1;
        *copy.files[file].1[line].last_mut().unwrap() ^= to;
        let report = copy.report();
        prop_assert!(copy.is_at(&report.findings[0], (file, line)), "{:#?}", report);
    }

    #[test]
    fn one_line_that_is_removed_is_found_by_its_number(at: Index) {
        let mut copy = Copy::new();
        let (file, line) = copy.pick(at);
        let seq = copy.seq((file, line));
        copy.files[file].1.remove(line);
        let report = copy.report();
        prop_assert!(!report.intact && report.findings[0].seq == seq, "{seq}: {:#?}", report);
    }

    #[test]
    fn one_line_that_is_moved_is_found_where_it_was_or_is(at: Index, to: Index) {
        let mut copy = Copy::new();
        let from = copy.pick(at);
        let seq = copy.seq(from);
        let moved = copy.files[from.0].1.remove(from.1);
        let to = copy.pick(to);
        copy.files[to.0].1.insert(to.1, moved);
        let before: Vec<_> = (0..copy.files.len()).map(|f| copy.files[f].1.concat()).collect();
        let whole = (0..copy.files.len()).map(|f| fs::read(&copy.files[f].0).unwrap()).collect::<Vec<_>>();
        prop_assume!(before.concat() != whole.concat());
        let report = copy.report();
        let named = |f: &Finding| f.seq == seq || copy.is_at(f, to);
        prop_assert!(!report.intact && named(&report.findings[0]), "{seq} to {to:?}: {:#?}", report);
    }

    #[test]
    fn one_line_that_is_repeated_or_made_up_is_found_where_it_stands(at: Index, to: Index, forged: bool) {
        let mut copy = Copy::new();
        let from = copy.pick(at);
        let (seq, mut line) = (copy.seq(from), copy.files[from.0].1[from.1].clone());
        if forged {
            let text = String::from_utf8(line).unwrap();
            line = text.replace("identities/billing", "identities/forged").into_bytes();
        }
        let to = copy.pick(to);
        copy.files[to.0].1.insert(to.1, line);
        let report = copy.report();
        let here = |f: &Finding| copy.is_at(f, to) || copy.is_at(f, (to.0, to.1 + 1)) || f.seq == seq;
        prop_assert!(!report.intact && here(&report.findings[0]), "{seq} at {to:?}: {:#?}", report);
    }

    #[test]
    fn what_is_cut_off_at_any_byte_is_found_by_the_first_record_that_is_gone(at: Index, byte: Index) {
        let mut copy = Copy::new();
        let (file, line) = copy.pick(at);
        let seq = copy.seq((file, line));
        let cut = &mut copy.files[file].1[line];
        cut.truncate(byte.index(cut.len()));
        copy.files[file].1.truncate(line + 1);
        for (_, lines) in &mut copy.files[file + 1..] {
            lines.clear();
        }
        let report = copy.report();
        let found = &report.findings[0];
        prop_assert!(found.seq == seq && found.problem.contains("truncated"), "{seq}: {:#?}", report);
    }
}

#[test]
fn a_log_that_nobody_touched_is_intact_and_so_is_each_of_its_segments() {
    let copy = Copy::new();
    let report = copy.report();
    assert!(report.intact && report.segments > 3 && report.signed == report.last, "{report:#?}");
    let key = key(copy.folder.path());
    for (path, lines) in &copy.files {
        let alone = verify(None, std::slice::from_ref(path), None, key.public()).unwrap();
        assert!(alone.intact && alone.signed == alone.last, "each ends with a head: {alone:#?}");
        assert_eq!(alone.records, lines.len() as u64);
    }
}

#[test]
fn a_log_under_another_key_is_not_taken_for_ours() {
    let copy = Copy::new();
    let other = AuditKey::generate().unwrap();
    let report = verify(Some(&copy.folder.path().join(FOLDER)), &[], None, other.public()).unwrap();
    assert!(report.findings[0].problem.contains("another key"), "{report:#?}");
    assert_eq!(report.signed, 0);
}
