//! What a start finds, and what it leaves.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::PermissionsExt,
    sync::Arc,
};

use jeton_audit::{AuditKey, AuditSettings, FOLDER, HEAD_FILE, OnFull, Reader, Trail, Wanted};
use jeton_core::{AuditKind, AuditOutcome, AuditTrail};
use jeton_testkit::ManualClock;

use crate::{event, segments, settings, start, verified};

const CHANGE: AuditKind = AuditKind::AdminChange;

#[tokio::test]
async fn a_log_goes_on_over_a_restart_in_files_of_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    for life in 0..3 {
        let (trail, task) = start(folder.path(), settings());
        trail.record(event(CHANGE, AuditOutcome::Intent, life)).await.unwrap();
        trail.note(event(AuditKind::TokenServed, AuditOutcome::Ok, life));
        task.shutdown().await;
        let report = verified(folder.path());
        assert!(report.intact && report.signed == report.last && report.first == 1, "{report:?}");
        assert_eq!(trail.problems(), [""; 0]);
    }
    // Each life: opened, a head, the change, the token, a head.
    assert_eq!(verified(folder.path()).records, 15);
    for entry in fs::read_dir(folder.path().join(FOLDER)).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }
    assert_eq!(fs::metadata(folder.path().join(FOLDER)).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_half_line_is_cut_off_and_that_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path(), settings()).1.shutdown().await;
    let path = segments(folder.path()).pop().unwrap();
    OpenOptions::new().append(true).open(path).unwrap().write_all(b"{\"seq\":3,\"pr").unwrap();
    let half = verified(folder.path());
    assert!(half.intact && half.notes.iter().any(|note| note.contains("half a line")), "{half:?}");
    start(folder.path(), settings()).1.shutdown().await;
    let (report, mut cut) = (verified(folder.path()), None);
    let wanted = Wanted { kind: Some("log.repaired".into()), ..Wanted::default() };
    let note = |record: serde_json::Value| {
        cut = record["bytes_cut"].as_u64();
        true
    };
    Reader::new(&folder.path().join(FOLDER)).read(&wanted, note).unwrap();
    assert!(report.intact && cut == Some(12), "{report:?} {cut:?}");
}

#[tokio::test]
async fn what_was_cut_off_below_a_head_stays_visible_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (trail, task) = start(folder.path(), settings());
    for n in 0..5 {
        trail.record(event(CHANGE, AuditOutcome::Ok, n)).await.unwrap();
    }
    task.shutdown().await;
    let path = segments(folder.path()).pop().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let kept: String = text.split_inclusive('\n').take(4).collect();
    fs::write(&path, kept).unwrap();
    for _ in 0..2 {
        let (trail, task) = start(folder.path(), settings());
        task.shutdown().await;
        drop(trail);
        let report = verified(folder.path());
        let found = &report.findings[..];
        assert!(
            found.len() == 1 && found[0].line == 5 && found[0].problem.contains("cut off"),
            "{report:#?}"
        );
    }
    fs::remove_file(folder.path().join(FOLDER).join(HEAD_FILE)).unwrap();
    let report = verified(folder.path());
    assert!(report.findings.iter().any(|f| f.file.ends_with(HEAD_FILE)), "{report:#?}");
}

#[tokio::test]
async fn the_oldest_segments_go_by_their_number_and_nobody_else_can_take_one() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings { max_segments: 3, ..settings() };
    let (trail, task) = start(folder.path(), settings);
    for n in 0..100 {
        trail.record(event(CHANGE, AuditOutcome::Intent, n)).await.unwrap();
    }
    task.shutdown().await;
    let report = verified(folder.path());
    assert!(report.intact && report.segments == 3 && report.first > 1, "{report:#?}");
    fs::remove_file(&segments(folder.path())[0]).unwrap();
    let taken = verified(folder.path());
    let found = &taken.findings[0];
    assert!(found.seq == report.first && found.problem.contains("did not remove"), "{taken:#?}");
}

#[tokio::test]
async fn a_log_that_another_key_signed_is_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path(), settings()).1.shutdown().await;
    let other = AuditKey::generate().unwrap();
    let id = other.public().id();
    let refused = Trail::start(folder.path(), other, settings(), "0", Arc::new(ManualClock::default()));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains(&id) && refused.contains("move the folder away"), "{refused}");
}

#[tokio::test]
async fn frequent_events_that_do_not_fit_are_counted_recorded_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let bounded = AuditSettings { max_queued: 16, batch_ms: 60_000, ..settings() };
    let (trail, task) = start(folder.path(), bounded);
    (0..20).for_each(|n| trail.note(event(AuditKind::TokenServed, AuditOutcome::Ok, n)));
    assert!(trail.lost() == 4 && trail.has_room());
    assert!(trail.problems()[0].contains("4 events were lost"), "{:?}", trail.problems());
    task.shutdown().await;
    let report = verified(folder.path());
    assert!(report.intact && report.lost == 4, "{report:?}");
}

#[tokio::test]
async fn a_full_queue_refuses_where_that_is_wanted_and_takes_more_when_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings { max_queued: 16, batch_ms: 60_000, on_full: OnFull::Refuse, ..settings() };
    let (trail, task) = start(folder.path(), settings);
    (0..16).for_each(|n| trail.note(event(AuditKind::TokenServed, AuditOutcome::Ok, n)));
    assert!(!trail.has_room());
    trail.record(event(CHANGE, AuditOutcome::Intent, 1)).await.unwrap();
    assert!(trail.has_room() && trail.lost() == 0);
    task.shutdown().await;
    let gone = trail.record(event(CHANGE, AuditOutcome::Intent, 2)).await.unwrap_err();
    assert!(gone.to_string().contains("has ended"), "{gone}");
}
