//! kill -9 of a process that writes, at seeded moments. What it acknowledged to another process is there afterwards, in a chain that
//! holds.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use jeton_audit::{FOLDER, Reader, Wanted};
use jeton_core::{AuditKind, AuditOutcome, AuditTrail};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::{event, settings, start, verified};

const WRITES_TO: &str = "JETON_TEST_AUDITS_TO";
const FIRST: &str = "JETON_TEST_AUDITS_FROM";
const SEED: u64 = 11;

/// Not a test by itself: the process that is killed. It writes for ever and says a number when that one is acknowledged.
#[tokio::test]
async fn the_process_that_writes() {
    let (Ok(folder), Ok(first)) = (std::env::var(WRITES_TO), std::env::var(FIRST)) else { return };
    let (trail, _task) = start(&PathBuf::from(folder), settings());
    let mut out = std::io::stdout();
    for n in first.parse::<u64>().unwrap().. {
        trail.note(event(AuditKind::TokenServed, AuditOutcome::Ok, 0));
        trail.record(event(AuditKind::AdminChange, AuditOutcome::Intent, n)).await.unwrap();
        writeln!(out, "acknowledged {n}").unwrap();
        out.flush().unwrap();
    }
}

fn write_until_killed(folder: &Path, first: u64, after: Duration) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crashes::the_process_that_writes", "--nocapture"])
        .env(WRITES_TO, folder)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let reading = std::thread::spawn(move || {
        let lines = out.lines().map_while(Result::ok);
        lines.filter_map(|line| line.split("acknowledged ").nth(1)?.parse().ok()).collect::<Vec<u64>>()
    });
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap()
}

fn written(folder: &Path) -> BTreeSet<u64> {
    let mut numbers = BTreeSet::new();
    let wanted = Wanted { kind: Some("admin.change".into()), ..Wanted::default() };
    let add = |record: serde_json::Value| {
        numbers.extend(record["method"].as_str().and_then(|n| n[1..].parse::<u64>().ok()));
        true
    };
    Reader::new(&folder.join(FOLDER)).read(&wanted, add).unwrap();
    numbers
}

/// In so many kills a log becomes large enough; then another begins, because everything in it is looked at after each.
const KILLS: usize = 50;

/// `JETON_KILLS` makes it longer.
#[test]
fn the_chain_holds_and_nothing_acknowledged_is_lost_in_fifty_kills() {
    let kills = std::env::var("JETON_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let mut random = SmallRng::seed_from_u64(SEED);
    for begun in (0..kills).step_by(KILLS) {
        survive(KILLS.min(kills - begun), &mut random);
    }
}

/// One log, killed and looked at so many times.
fn survive(kills: usize, random: &mut SmallRng) {
    let folder = tempfile::tempdir().unwrap();
    crate::key(folder.path());
    let (mut acknowledged, mut next) = (BTreeSet::new(), 1);
    for kill in 0..kills {
        let after = Duration::from_millis(random.random_range(5..120));
        acknowledged.extend(write_until_killed(folder.path(), next, after));
        next += 100_000;
        if acknowledged.is_empty() {
            continue;
        }
        let report = verified(folder.path());
        assert!(report.intact, "after kill {kill}: {report:#?}");
        let there = written(folder.path());
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "acknowledged before kill {kill} and gone: {lost:?}");
    }
    assert!(acknowledged.len() > kills, "{} acknowledged in {kills} lives", acknowledged.len());
}
