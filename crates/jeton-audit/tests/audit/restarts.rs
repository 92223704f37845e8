//! What a start finds, and what it leaves.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use jeton_audit::{AuditKey, AuditSettings, FOLDER, HEAD_FILE, OnFull, Reader, Trail, Wanted};
use jeton_core::{AuditKind, AuditOutcome, AuditTrail};
use jeton_testkit::ManualClock;

use crate::{event, key, segments, settings, start, verified};

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
        assert_eq!(trail.problems(), []);
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
    let refused = Trail::start(folder.path(), other, true, settings(), "0", Arc::new(ManualClock::default()));
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
    assert!(trail.problems()[0].message.contains("4 events were lost"), "{:?}", trail.problems());
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

/// A log of several segments, closed.
async fn several(folder: &Path) -> Vec<PathBuf> {
    let (trail, task) = start(folder, settings());
    for n in 0..60 {
        trail.record(event(CHANGE, AuditOutcome::Ok, n)).await.unwrap();
    }
    task.shutdown().await;
    let segments = segments(folder);
    assert!(segments.len() > 3);
    segments
}

/// What a start of a log that was there before says, each with its remedy.
async fn found_at_a_start(folder: &Path) -> Vec<String> {
    let clock = Arc::new(ManualClock::default());
    let (trail, task) = Trail::start(folder, key(folder), true, settings(), "0", clock).unwrap();
    task.shutdown().await;
    let problems = trail.problems();
    assert!(problems.iter().all(|p| p.remedy.contains("jeton audit verify")), "{problems:?}");
    problems.into_iter().map(|p| p.message).collect()
}

#[tokio::test]
async fn a_log_that_is_removed_whole_is_a_gap_that_stays_visible() {
    let folder = tempfile::tempdir().unwrap();
    several(folder.path()).await;
    fs::remove_dir_all(folder.path().join(FOLDER)).unwrap();
    for said in ["nothing of a log is", "missing in front of record 1", "missing in front of record 1"] {
        let found = found_at_a_start(folder.path()).await;
        assert!(found.len() == 1 && found[0].contains(said), "{found:?}");
        let report = verified(folder.path());
        assert!(report.findings[0].problem.contains("it was removed"), "{report:#?}");
    }
}

#[tokio::test]
async fn a_segment_that_is_gone_or_renamed_is_seen_at_every_start() {
    for (which, said) in
        [(0, "the broker did not remove"), (2, "are missing in front of"), (3, "called after")]
    {
        let folder = tempfile::tempdir().unwrap();
        let segments = several(folder.path()).await;
        assert_eq!(found_at_a_start(folder.path()).await, [""; 0]);
        if which < 3 {
            fs::remove_file(&segments[which]).unwrap();
        } else {
            let other = segments[which - 1].with_file_name(format!("{:020}.jsonl", 1_000_000));
            fs::rename(crate::segments(folder.path()).pop().unwrap(), other).unwrap();
        }
        for _ in 0..2 {
            let found = found_at_a_start(folder.path()).await;
            assert!(found.iter().any(|text| text.contains(said)), "{said}: {found:?}");
            assert!(!verified(folder.path()).intact);
        }
    }
}

#[tokio::test]
async fn what_the_broker_removed_by_its_age_is_no_alarm_wherever_it_wrote_that() {
    let folder = tempfile::tempdir().unwrap();
    several(folder.path()).await;
    // Fewer are kept from now on: the record of that stands within a segment.
    let few = AuditSettings { max_segments: 2, ..settings() };
    let clock = Arc::new(ManualClock::default());
    Trail::start(folder.path(), key(folder.path()), true, few, "0", clock).unwrap().1.shutdown().await;
    assert!(verified(folder.path()).first > 1);
    assert_eq!(found_at_a_start(folder.path()).await, [""; 0]);
    let (trail, task) = start(folder.path(), AuditSettings { max_segments: 2, ..settings() });
    for n in 0..60 {
        trail.record(event(CHANGE, AuditOutcome::Ok, n)).await.unwrap();
    }
    task.shutdown().await;
    assert_eq!(found_at_a_start(folder.path()).await, [""; 0]);
}

#[tokio::test]
async fn a_sole_segment_under_another_name_is_not_whole() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path(), settings()).1.shutdown().await;
    let path = segments(folder.path()).pop().unwrap();
    fs::rename(&path, path.with_file_name(format!("{:020}.jsonl", 2))).unwrap();
    let report = verified(folder.path());
    assert!(report.findings[0].problem.contains("called after record 2"), "{report:#?}");
}

#[tokio::test]
async fn a_change_into_a_log_that_was_removed_meanwhile_is_refused_and_shown_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (trail, task) = start(folder.path(), settings());
    trail.record(event(CHANGE, AuditOutcome::Intent, 0)).await.unwrap();
    fs::remove_file(segments(folder.path()).pop().unwrap()).unwrap();
    for n in 1..3 {
        let refused = trail.record(event(CHANGE, AuditOutcome::Intent, n)).await.unwrap_err().to_string();
        assert!(refused.contains("removed or replaced") && !refused.contains("make room"), "{refused}");
    }
    let problems = trail.problems();
    assert!(problems[0].message.contains("cannot be written"), "{problems:?}");
    assert!(problems[0].remedy.contains("jeton audit verify"), "{problems:?}");
    task.shutdown().await;
    assert!(found_at_a_start(folder.path()).await[0].contains("it was cut off or replaced"));
}

#[tokio::test]
async fn whoever_follows_is_told_of_each_event_that_is_on_disk_as_it_stands_there() {
    let folder = tempfile::tempdir().unwrap();
    let (trail, task) = start(folder.path(), settings());
    let told: Arc<Mutex<Vec<_>>> = Arc::default();
    let tell = Arc::clone(&told);
    trail.follow(Box::new(move |seq, at, event| {
        let members = event.strip_prefix('{').unwrap();
        tell.lock().unwrap().push((seq, format!(r#""at":"{}",{members}"#, at.rfc3339())));
    }));
    for n in 0..40 {
        trail.record(event(AuditKind::AdminChange, AuditOutcome::Intent, n)).await.unwrap();
        trail.note(event(AuditKind::TokenServed, AuditOutcome::Ok, n));
    }
    task.shutdown().await;
    let lines: String =
        segments(folder.path()).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 80);
    for (seq, members) in told.iter() {
        let line = lines.lines().find(|line| line.starts_with(&format!(r#"{{"seq":{seq},"#))).unwrap();
        assert!(line.ends_with(members.as_str()), "{line}: {members}");
    }
}

#[tokio::test]
async fn nobody_is_told_of_what_could_not_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (trail, task) = start(folder.path(), settings());
    let told: Arc<Mutex<u64>> = Arc::default();
    let tell = Arc::clone(&told);
    trail.follow(Box::new(move |_, _, _| *tell.lock().unwrap() += 1));
    fs::rename(folder.path().join(FOLDER), folder.path().join("gone")).unwrap();
    trail.record(event(AuditKind::AdminChange, AuditOutcome::Intent, 1)).await.unwrap_err();
    assert_eq!(*told.lock().unwrap(), 0);
    task.shutdown().await;
}
