//! kill -9 of a process that writes, at seeded moments. What it acknowledged to another process is there afterwards.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use jeton_access::{AccessStore, AccessWrite};
use jeton_core::{
    AssignmentName, AssignmentScope, Identity, IdentityKind, IdentityState, Member, Principal, Role,
    RoleAssignment, TargetRule, Uid, Wall,
};
use jeton_lifecycle::{IdentityStore, SecretId, SecretKind, Write};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use secrecy::ExposeSecret;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::open;

const FOLDER: &str = "JETON_TEST_WRITES_TO";
const FIRST: &str = "JETON_TEST_WRITES_FROM";
const SEED: u64 = 7;
const PATIENCE: Duration = Duration::from_secs(60);
const AT: Wall = Wall::from_secs(1_767_225_600);

fn uid(n: u64) -> Uid {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    Uid::new(AT, random)
}

fn identity(n: u64) -> Identity {
    Identity {
        uid: uid(n),
        name: format!("identities/n{n}").parse().unwrap(),
        display_name: String::new(),
        labels: Default::default(),
        kind: IdentityKind::Created,
        workload: None,
        authority: uid(0),
        state: IdentityState::Active,
        client_id: None,
        registration: None,
        credentials: vec![],
        operation: None,
        created_at: AT,
        updated_at: AT,
        version: 1,
    }
}

fn secret(n: u64) -> SecretId {
    SecretId { owner: uid(n), subject: uid(n), kind: SecretKind::PrivateKey }
}

fn assignment(n: u64) -> RoleAssignment {
    RoleAssignment {
        uid: uid(n),
        name: AssignmentName::from_id(&format!("a{n}")).unwrap(),
        member: Member::Principal(Principal::loopback_dev()),
        role: Role::TokenUser,
        scope: AssignmentScope::Identity(uid(n)),
        targets: TargetRule::Any,
        keep_warm: false,
        expires_at: None,
        max_token_lifetime: None,
        limits: Default::default(),
        created_at: AT,
    }
}

/// Not a test by itself: the process that is killed. It writes for ever and says a number when that one is acknowledged.
#[tokio::test]
async fn the_process_that_writes() {
    let (Ok(folder), Ok(first)) = (std::env::var(FOLDER), std::env::var(FIRST)) else { return };
    let store = open(&PathBuf::from(folder)).await;
    let mut out = std::io::stdout();
    for n in first.parse::<u64>().unwrap().. {
        let key = Write::Secret(secret(n), format!("key of {n}").into_bytes().into());
        IdentityStore::commit(&store, vec![Write::Identity(Box::new(identity(n))), key]).await.unwrap();
        AccessStore::commit(&store, vec![AccessWrite::Put(Box::new(assignment(n)))]).await.unwrap();
        writeln!(out, "acknowledged {n}").unwrap();
        out.flush().unwrap();
    }
}

/// `working`: the time counts from its first acknowledgement, which a busy machine may take long to reach; otherwise from its start, so
/// that the opening of a store is killed too.
fn write_until_killed(folder: &Path, first: u64, after: Duration, working: bool) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crashes::the_process_that_writes", "--nocapture"])
        .env(FOLDER, folder)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (say, said) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let lines = out.lines().map_while(Result::ok);
        let numbers = lines.filter_map(|line| line.split("acknowledged ").nth(1)?.parse::<u64>().ok());
        // Nobody listens any more when a test has failed.
        numbers.for_each(|number| _ = say.send(number));
    });
    let begun = working.then(|| said.recv_timeout(PATIENCE).expect("it acknowledges something"));
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap();
    begun.into_iter().chain(said).collect()
}

/// In so many kills a store becomes large enough; then another begins, because everything in it is looked at after each.
const KILLS: usize = 50;

/// `JETON_KILLS` makes it longer.
#[tokio::test]
async fn nothing_acknowledged_is_lost_in_fifty_kills() {
    let kills = std::env::var("JETON_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let mut random = SmallRng::seed_from_u64(SEED);
    for begun in (0..kills).step_by(KILLS) {
        survive(KILLS.min(kills - begun), &mut random).await;
    }
}

/// One store, killed and looked at so many times.
async fn survive(kills: usize, random: &mut SmallRng) {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.close().await;
    let (mut acknowledged, mut next) = (BTreeSet::new(), 1);
    for kill in 0..kills {
        let after = Duration::from_millis(random.random_range(20..220));
        let said = write_until_killed(folder.path(), next, after, kill % 2 == 0);
        next += 1_000;
        acknowledged.extend(said);
        let path = folder.path().join("registry.db");
        let mut db =
            SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await.unwrap();
        let check: String = sqlx::query("PRAGMA integrity_check").fetch_one(&mut db).await.unwrap().get(0);
        assert_eq!(check, "ok", "after kill {kill}");
        db.close().await.unwrap();
        let store = open(folder.path()).await;
        let there: BTreeSet<_> =
            IdentityStore::load(&store).await.unwrap().identities.into_iter().map(|i| i.uid).collect();
        let granted: BTreeSet<_> =
            AccessStore::load(&store).await.unwrap().into_iter().map(|a| a.uid).collect();
        for n in &acknowledged {
            assert!(
                there.contains(&uid(*n)) && granted.contains(&uid(*n)),
                "{n} was acknowledged before kill {kill} and is gone"
            );
        }
        // No half-written key: an identity that is there has its key, and the key opens.
        for identity in there {
            let id = SecretId { owner: identity, subject: identity, kind: SecretKind::PrivateKey };
            let key = store.secret(id).await.unwrap().expect("written in the same commit");
            assert!(key.expose_secret().starts_with(b"key of "));
        }
        store.close().await;
    }
    assert!(acknowledged.len() >= kills / 2, "{} acknowledged in {kills} lives", acknowledged.len());
}
