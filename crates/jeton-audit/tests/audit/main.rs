//! The log on disk: kills, tampering, retention, restarts.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

mod crashes;
mod restarts;
mod tampering;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use jeton_audit::{AuditKey, AuditSettings, FOLDER, Report, Trail, TrailTask, verify};
use jeton_core::{AuditEvent, AuditKind, AuditOutcome, AuditResource, Principal};
use jeton_testkit::ManualClock;
use secrecy::ExposeSecret;

/// The key of a folder; made if it has none.
pub(crate) fn key(folder: &Path) -> AuditKey {
    let path = folder.join("key.der");
    if !path.exists() {
        fs::write(&path, AuditKey::generate_pkcs8().unwrap().expose_secret()).unwrap();
    }
    AuditKey::from_pkcs8(&fs::read(path).unwrap()).unwrap()
}

/// Segments so small that a few records fill one.
pub(crate) fn settings() -> AuditSettings {
    AuditSettings { max_segment_bytes: 4_096, max_segments: 10_000, batch_ms: 10, ..Default::default() }
}

pub(crate) fn start(folder: &Path, settings: AuditSettings) -> (Trail, TrailTask) {
    Trail::start(folder, key(folder), false, settings, "0", Arc::new(ManualClock::default())).unwrap()
}

pub(crate) fn event(kind: AuditKind, outcome: AuditOutcome, n: u64) -> AuditEvent {
    let mut event = AuditEvent::new(kind, outcome);
    event.principal = Some(Principal::loopback_dev());
    event.method = Some(format!("n{n}").into());
    event.resources = vec![AuditResource::new("identities/billing", None)];
    event
}

pub(crate) fn verified(folder: &Path) -> Report {
    verify(Some(&folder.join(FOLDER)), &[], None, key(folder).public()).unwrap()
}

pub(crate) fn segments(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder.join(FOLDER)).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = all.filter(|path| path.extension().is_some_and(|e| e == "jsonl")).collect();
    segments.sort();
    segments
}
