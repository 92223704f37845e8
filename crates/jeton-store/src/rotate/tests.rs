//! Kills at every commit of a rotation, and between them, while others write.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use jeton_core::{Uid, Wall};
use jeton_engine::{StoredToken, TokenStore, TokenWrite, testing};
use jeton_lifecycle::{IdentityStore, SecretId, SecretKind, StoreError, Write};
use jeton_testkit::ManualClock;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use secrecy::ExposeSecret;

use super::*;
use crate::{OpenError, SealingKeys};

const FOLDER: &str = "JETON_TEST_ROTATES_IN";
const KEYS: &str = "JETON_TEST_ROTATES_FROM_AND_TO";
const STOPS: &str = "JETON_TEST_ROTATES_UNTIL";
const FIRST: &str = "JETON_TEST_ROTATES_WRITING_FROM";
const SEED: u64 = 11;
const PATIENCE: Duration = Duration::from_secs(60);
/// Where a rotation is stopped: after one of the first three batches, the switch, or the sweep.
const STEPS: [u64; 5] = [1, 2, 3, IN_FORCE, SWEPT];
const IN_FORCE: u64 = 1_000;
const SWEPT: u64 = 1_001;
/// Where it is not.
const ANYWHERE: u64 = 0;
const OWNERS: u64 = 2 * BATCH as u64 + 100;
const TOKENS: u64 = 3;

fn uid(n: u64) -> Uid {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    Uid::new(Wall::from_secs(1_767_225_600), random)
}

fn id(n: u64) -> SecretId {
    SecretId { owner: uid(n), subject: uid(n), kind: SecretKind::PrivateKey }
}

fn secret(n: u64) -> Write {
    Write::Secret(id(n), format!("key of {n}").into_bytes().into())
}

fn token(n: u64) -> TokenWrite {
    let (key, at) = (testing::key(n, "a"), Wall::from_secs(1_767_225_600));
    let token = testing::issued(&key, 1, Duration::from_secs(3_600));
    TokenWrite::Put(Box::new(StoredToken {
        key,
        token,
        issued_at: at,
        refresh_at: at,
        last_used: at,
        earlier_until: None,
    }))
}

/// The n-th sealing key.
fn key(folder: &Path, n: u64) -> SealingKey {
    let path = folder.join(format!("{n}.key"));
    if path.exists() { SealingKey::load(&path).unwrap() } else { SealingKey::create(&path).unwrap() }
}

async fn open(folder: &Path, keys: impl Into<SealingKeys>) -> Result<Store, OpenError> {
    Store::open(folder, keys, Arc::new(ManualClock::default())).await
}

async fn filled(folder: &Path) {
    let store = open(folder, key(folder, 0)).await.unwrap();
    IdentityStore::commit(&store, (1..=OWNERS).map(secret).collect()).await.unwrap();
    TokenStore::write(&store, (1..=TOKENS).map(token).collect()).await.unwrap();
    store.close().await;
}

/// Whoever each row opens with must be the one that it names, and whoever the registry names must open one row of every owner.
async fn rows_fit(database: &crate::database::Database, keys: [&SealingKey; 2]) -> (String, usize) {
    let row = sqlx::query("SELECT key_id FROM sealing").fetch_one(&database.reader).await.unwrap();
    let named: String = row.get(0);
    let (mut owners, mut by_named) = (BTreeSet::new(), BTreeSet::new());
    for row in sqlx::query("SELECT * FROM data_keys").fetch_all(&database.reader).await.unwrap() {
        let (owner, by): (Vec<u8>, String) = (row.get("owner"), row.get("key_id"));
        let (place, wrapped) = (key_place(uid_of(&owner).unwrap()), sealed(&row).unwrap());
        let opens = keys.iter().filter(|key| key.unwrap(&place, &wrapped).is_ok());
        assert_eq!(opens.map(|key| key.id()).collect::<Vec<_>>(), [by.as_str()], "exactly one opens a row");
        if by == named {
            by_named.insert(owner.clone());
        }
        owners.insert(owner);
    }
    assert_eq!(owners, by_named, "the key in force opens everything");
    (named, owners.len())
}

/// Not a test by itself: the process that is killed. It says each commit of the rotation, and what was written meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_process_that_rotates() {
    let variable = |name| std::env::var(name).ok();
    let (Some(folder), Some(keys), Some(until)) = (variable(FOLDER), variable(KEYS), variable(STOPS)) else {
        return;
    };
    let folder = Path::new(&folder);
    let (old, new) = keys.split_once(' ').unwrap();
    let [old, new] = [old, new].map(|n| key(folder, n.parse().unwrap()));
    let until: u64 = until.parse().unwrap();
    let store = open(folder, SealingKeys { key: new, previous: Some(old) }).await.unwrap();
    let Some(wanted) = store.wanted_sealing_key().await else { panic!("nothing is to be done") };
    let writer = store.clone();
    tokio::spawn(async move {
        for n in variable(FIRST).unwrap().parse::<u64>().unwrap().. {
            IdentityStore::commit(&writer, vec![secret(n)]).await.unwrap();
            TokenStore::write(&writer, vec![token(n % TOKENS + 1)]).await.unwrap();
            say(&format!("acknowledged {n}"));
        }
    });
    let batches = std::sync::atomic::AtomicU64::new(0);
    say("begins");
    let told = move |what| {
        let step = match what {
            Rotating::Wrapped(_) => batches.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1,
            Rotating::InForce => IN_FORCE,
            Rotating::Swept => SWEPT,
        };
        say(&format!("step {step}"));
        if step == until {
            loop {
                std::thread::park();
            }
        }
    };
    store.rotate_sealing(wanted, told).await.unwrap();
    say("ends");
    std::future::pending::<()>().await;
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nsaid: {text}").unwrap();
    out.flush().unwrap();
}

/// Until a step was said, or for a time from the beginning. What was acknowledged.
fn rotate_until_killed(
    folder: &Path,
    keys: (u64, u64),
    first: u64,
    until: u64,
    after: Duration,
) -> BTreeSet<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "rotate::tests::the_process_that_rotates", "--nocapture"])
        .env(FOLDER, folder)
        .env(KEYS, format!("{} {}", keys.0, keys.1))
        .env(STOPS, until.to_string())
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (say, said) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let lines = out.lines().map_while(Result::ok);
        let words = lines.filter_map(|line| line.strip_prefix("said: ").map(str::to_owned));
        words.for_each(|words| _ = say.send(words));
    });
    let (mut heard, stops) =
        (vec![], if until == ANYWHERE { "begins".to_owned() } else { format!("step {until}") });
    while heard.last() != Some(&stops) {
        heard.push(said.recv_timeout(PATIENCE).expect("it goes on"));
    }
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap();
    heard.extend(said);
    heard.iter().filter_map(|words| words.strip_prefix("acknowledged ")?.parse().ok()).collect()
}

/// In so many kills a store becomes large enough; then another begins, because everything in it is looked at after each.
const KILLS: u64 = 30;

/// `JETON_KILLS` makes it longer.
#[tokio::test]
async fn at_any_kill_each_row_opens_with_exactly_one_key_and_the_one_in_force_opens_everything() {
    let kills = std::env::var("JETON_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let (mut random, mut ends) = (SmallRng::seed_from_u64(SEED), [0, 0]);
    for begun in (0..kills).step_by(usize::try_from(KILLS).unwrap()) {
        survive(KILLS.min(kills - begun), &mut random, &mut ends).await;
    }
    assert!(kills < 10 || ends.iter().all(|n| *n > 0), "{ends:?}");
}

/// One store, killed and looked at so many times. Counts how often the old key, and the new one, was in force afterwards.
async fn survive(kills: u64, random: &mut SmallRng, ends: &mut [u32; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    filled(folder).await;
    let (mut in_force, mut all) = (0, (1..=OWNERS).collect::<BTreeSet<_>>());
    for kill in 0..kills {
        // At each commit in turn, then anywhere.
        let until =
            if kill % 3 == 2 { ANYWHERE } else { STEPS[usize::try_from(kill).unwrap() % STEPS.len()] };
        let longest = if until == ANYWHERE { 400 } else { 20 };
        let after = Duration::from_millis(random.random_range(0..longest));
        let first = (kill + 2) * 1_000_000;
        let acknowledged = rotate_until_killed(folder, (in_force, in_force + 1), first, until, after);
        let [old, new] = [key(folder, in_force), key(folder, in_force + 1)];
        let registry = folder.join("registry.db");
        let database =
            crate::database::Database::open(&registry, SqliteSynchronous::Full, &[""; 4]).await.unwrap();
        let (named, owners) = rows_fit(&database, [&old, &new]).await;
        database.close().await;
        all.extend(&acknowledged);
        // One more may have been written whose acknowledgement nobody heard.
        assert!((all.len()..=all.len() + 1).contains(&owners), "{owners} owners, {} acknowledged", all.len());
        if owners > all.len() {
            all.insert(acknowledged.last().map_or(first, |last| last + 1));
        }
        let finished = named == new.id();
        assert!(until == ANYWHERE || finished == (until >= IN_FORCE), "after step {until}");
        ends[usize::from(finished)] += 1;
        let (right, wrong) = if finished { (new, old) } else { (old, new) };
        nothing_is_lost(folder, right, wrong, &all).await;
        in_force += u64::from(finished);
    }
}

/// One key alone opens what there is, and the other alone is refused.
async fn nothing_is_lost(folder: &Path, right: SealingKey, wrong: SealingKey, all: &BTreeSet<u64>) {
    let refused = open(folder, wrong).await.unwrap_err();
    assert!(refused.to_string().contains(right.id()), "{refused}");
    let store = open(folder, right).await.unwrap();
    for n in all.iter().filter(|n| **n > OWNERS || **n % 100 == 1) {
        let opened = store.secret(id(*n)).await.unwrap().unwrap();
        assert_eq!(opened.expose_secret(), format!("key of {n}").as_bytes());
    }
    let kept = TokenStore::load(&store).await.unwrap();
    assert_eq!((kept.tokens.len() as u64, kept.unreadable), (TOKENS, 0));
    let rows = sqlx::query("SELECT count(*) FROM data_keys").fetch_one(&store.0.registry.reader).await;
    assert_eq!(rows.unwrap().get::<i64, _>(0), i64::try_from(all.len()).unwrap(), "each is wrapped once");
    store.close().await;
}

#[tokio::test]
async fn a_rotation_counts_what_it_wrapped_and_may_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    filled(folder).await;
    let store =
        open(folder, SealingKeys { key: key(folder, 1), previous: Some(key(folder, 0)) }).await.unwrap();
    let wanted = store.wanted_sealing_key().await.unwrap();
    let new = Arc::clone(&wanted);
    let done = store.rotate_sealing(wanted, drop).await.unwrap();
    let expected = Rotated {
        key_id: new.id().into(),
        previous: Some(key(folder, 0).id().into()),
        wrapped: OWNERS + 1,
        unreadable: vec![],
    };
    assert_eq!(done, expected);
    assert!(store.wanted_sealing_key().await.is_none());
    let again = store.rotate_sealing(new, drop).await.unwrap();
    assert_eq!(again, Rotated { previous: None, ..expected });
    assert!(store.secret(id(1)).await.unwrap().is_some());
    IdentityStore::commit(&store, vec![secret(OWNERS + 1)]).await.unwrap();
    let kept = TokenStore::load(&store).await.unwrap();
    assert_eq!((kept.tokens.len() as u64, kept.unreadable), (TOKENS, 0));
    store.close().await;
    // With a previous key that nothing needs any more.
    let store =
        open(folder, SealingKeys { key: key(folder, 1), previous: Some(key(folder, 0)) }).await.unwrap();
    assert!(store.wanted_sealing_key().await.is_none());
    assert!(store.secret(id(OWNERS + 1)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_row_that_does_not_open_is_named_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    filled(folder).await;
    let store = open(folder, key(folder, 0)).await.unwrap();
    let mut transaction = store.0.registry.begin().await.unwrap();
    let broken = sqlx::query("UPDATE data_keys SET wrapped = zeroblob(48) WHERE owner = ?");
    broken.bind(uid(7).as_bytes().to_vec()).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    for n in [1, 2] {
        let done = store.rotate_sealing(Arc::new(key(folder, n)), drop).await.unwrap();
        assert_eq!((done.wrapped, done.unreadable), (OWNERS, vec![uid(7).to_string()]), "rotation {n}");
        assert!(matches!(store.secret(id(7)).await, Err(StoreError::Sealed(_))), "as before");
        assert!(matches!(IdentityStore::commit(&store, vec![secret(7)]).await, Err(StoreError::Sealed(_))));
        assert!(store.secret(id(8)).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn one_rotation_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), key(folder.path(), 0)).await.unwrap();
    let _other = store.0.rotating.lock().await;
    let refused = store.rotate_sealing(Arc::new(key(folder.path(), 1)), drop).await.unwrap_err();
    assert!(matches!(refused, RotateError::UnderWay), "{refused}");
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_counts_and_the_next_key_takes_over_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    filled(folder).await;
    let store = open(folder, key(folder, 0)).await.unwrap();
    let [old, lost] = [0, 1].map(|n| Arc::new(key(folder, n)));
    store.0.ring.write().await.next = Some(Arc::clone(&lost));
    store.0.wrap_days(&old, &lost).await.unwrap();
    store.0.wrap_owners(&old, &lost, &drop).await.unwrap();
    let mut transaction = store.0.registry.begin().await.unwrap();
    let named = sqlx::query("UPDATE sealing SET key_id = ?").bind(lost.id());
    named.execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let done = store.rotate_sealing(Arc::new(key(folder, 2)), drop).await.unwrap();
    assert_eq!((done.previous.as_deref(), done.wrapped), (Some(lost.id()), OWNERS + 1));
    store.close().await;
    open(folder, key(folder, 2)).await.unwrap();
}

#[tokio::test]
async fn a_wrapping_that_does_not_open_keeps_the_old_key_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    filled(folder).await;
    let store = open(folder, key(folder, 0)).await.unwrap();
    let new = Arc::new(key(folder, 1));
    let mut transaction = store.0.registry.begin().await.unwrap();
    let broken = "INSERT INTO data_keys SELECT owner, ?, nonce, wrapped FROM data_keys WHERE owner = ?";
    let broken = sqlx::query(broken).bind(new.id()).bind(uid(7).as_bytes().to_vec());
    broken.execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let refused = store.rotate_sealing(new, drop).await.unwrap_err();
    assert!(refused.to_string().contains(&uid(7).to_string()), "{refused}");
    assert_eq!(store.sealing_key().await, key(folder, 0).id());
    store.close().await;
    let store = open(folder, key(folder, 0)).await.unwrap();
    assert!(store.secret(id(7)).await.unwrap().is_some());
    // The start removed what was left of it.
    store.rotate_sealing(Arc::new(key(folder, 1)), drop).await.unwrap();
}

#[tokio::test]
async fn a_store_of_the_schema_before_opens_with_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    filled(folder).await;
    for (file, version, sql) in [
        ("registry.db", 3, include_str!("before/registry_3.sql")),
        ("tokens.db", 2, include_str!("before/tokens_2.sql")),
    ] {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.join(file));
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        let row = sqlx::query("PRAGMA user_version").fetch_one(&mut connection).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), version);
        connection.close().await.unwrap();
    }
    assert!(fs::exists(folder.join("0.key")).unwrap());
    let store = open(folder, key(folder, 0)).await.unwrap();
    for n in [1, OWNERS] {
        assert!(store.secret(id(n)).await.unwrap().is_some());
    }
    let kept = TokenStore::load(&store).await.unwrap();
    assert_eq!((kept.tokens.len() as u64, kept.unreadable), (TOKENS, 0));
}
