//! What is on disk, and what happens when somebody tampers with it.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::support::{VAULT, World, reason, token};

const CANARY: &str = "canary-3f9a1c7e5b2d4860";

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

fn matches(text: &[u8]) -> Vec<&'static str> {
    let lossy = String::from_utf8_lossy(text);
    let is_token = |part: &str| {
        let head: String =
            part.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect();
        head.len() >= 20 && part[head.len()..].starts_with('.')
    };
    let mut found = vec![];
    if lossy
        .split("-----BEGIN ")
        .skip(1)
        .any(|rest| rest.split("-----").next().unwrap_or_default().contains("PRIVATE"))
    {
        found.push("a private key");
    }
    if lossy.split("eyJ").skip(1).any(is_token) {
        found.push("a JWT");
    }
    let hex: String = CANARY.bytes().map(|b| format!("{b:02x}")).collect();
    // Base64 of a text that stands anywhere: its middle is the same for one of three alignments.
    let base64 = (0..3).map(|skip| STANDARD.encode(&CANARY[skip..]).trim_end_matches('=')[..24].to_owned());
    if base64.chain([CANARY.to_owned(), hex]).any(|form| lossy.contains(&form)) {
        found.push("the canary");
    }
    found
}

#[test]
fn the_search_finds_what_it_looks_for() {
    assert_eq!(matches(b"x-----BEGIN RSA PRIVATE KEY-----"), ["a private key"]);
    assert_eq!(matches(b"\x00eyJhbGciOiJSUzI1NiIsInR5cCI6.eyJ"), ["a JWT"]);
    assert_eq!(matches(format!("..{CANARY}").as_bytes()), ["the canary"]);
    assert_eq!(matches(STANDARD.encode(format!("ab{CANARY}")).as_bytes()), ["the canary"]);
    assert!(matches(b"eyJ short. -----BEGIN CERTIFICATE-----").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_clear_in_the_stores_or_in_the_log() {
    let mut world = World::with(&["--set", "log.filter=trace"], serde_json::json!({})).await;
    let secret = world.folder().join("secret");
    fs::write(&secret, CANARY).unwrap();
    let arguments = [
        "identity",
        "attach",
        "canary",
        "--authority",
        "entra",
        "--client-id",
        "x",
        "--secret-file",
        secret.to_str().unwrap(),
        "--no-wait",
    ];
    world.broker.json(&arguments);
    world.broker.json(&["identity", "rotate", "billing"]);
    let issued = token(&mut world.broker.tokens().await, "identities/billing", VAULT).await.unwrap();
    assert!(world.broker.process.stop().success());
    let all: Vec<_> = files(&world.broker.data_dir)
        .into_iter()
        .chain([world.broker.data_dir.with_extension("log")])
        .collect();
    assert!(all.iter().any(|p| p.ends_with("registry.db")) && all.iter().any(|p| p.ends_with("tokens.db")));
    for path in all {
        let text = fs::read(&path).unwrap();
        assert!(matches(&text).is_empty(), "{}: {:?}", path.display(), matches(&text));
        let signature = issued.access_token.rsplit('.').next().unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(signature), "{}", path.display());
    }
}

async fn open(path: &Path) -> SqliteConnection {
    SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap()
}

/// Without the tokens of before, all must sign.
fn forget_tokens(world: &World) {
    let is_token =
        |p: &&std::path::PathBuf| p.file_name().unwrap().to_str().unwrap().starts_with("tokens.db");
    files(&world.broker.data_dir).iter().filter(is_token).for_each(|p| fs::remove_file(p).unwrap());
}

/// The private key of an identity's current credential, as it is stored.
async fn sealed(db: &mut SqliteConnection, world: &World, identity: &str) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let identity = world.broker.json(&["identity", "get", identity]);
    let owner = uuid::Uuid::parse_str(identity["uid"].as_str().unwrap()).unwrap().as_bytes().to_vec();
    let row =
        sqlx::query("SELECT subject, nonce, sealed FROM secrets WHERE owner = ? AND kind = 'private-key'")
            .bind(&owner)
            .fetch_one(db)
            .await
            .unwrap();
    (row.get("subject"), row.get("nonce"), row.get("sealed"))
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_blobs_make_exactly_their_identities_fail_by_name() {
    let mut world = World::start().await;
    let path = world.broker.data_dir.join("registry.db");
    let mut db = open(&path).await;
    let billing = sealed(&mut db, &world, "billing").await;
    let reports = sealed(&mut db, &world, "reports").await;
    assert!(world.broker.process.stop().success());
    for (to, from) in [(&billing, &reports), (&reports, &billing)] {
        let statement = sqlx::query("UPDATE secrets SET nonce = ?, sealed = ? WHERE subject = ?");
        assert_eq!(
            statement.bind(&from.1).bind(&from.2).bind(&to.0).execute(&mut db).await.unwrap().rows_affected(),
            1
        );
    }
    db.close().await.unwrap();
    forget_tokens(&world);
    world.restart(&[]);
    let mut client = world.broker.tokens().await;
    for name in ["identities/billing", "identities/reports"] {
        let refused = token(&mut client, name, VAULT).await.unwrap_err();
        assert!(
            refused.message().contains(name) && refused.message().contains("Rotate"),
            "{name}: {refused}"
        );
    }
    token(&mut client, "identities/demo-system", VAULT).await.unwrap();
    token(&mut client, "identities/orders", "orders.read").await.unwrap();
    let status = world.broker.jeton(&["status"]);
    let screen = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(1));
    assert!(
        screen.contains("identities/billing")
            && screen.contains("identities/reports")
            && !screen.contains("! identities/demo-system"),
        "{screen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_blob_under_a_newer_version_fails_by_name() {
    let mut world =
        World::with(&["--set", "lifecycle.rotation.overlap_seconds=0"], serde_json::json!({})).await;
    let path = world.broker.data_dir.join("registry.db");
    let mut db = open(&path).await;
    let before = sealed(&mut db, &world, "billing").await;
    world.broker.json(&["identity", "rotate", "billing"]);
    for _ in 0..200 {
        if world.broker.json(&["identity", "get", "billing"])["operation"].is_null() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let after = sealed(&mut db, &world, "billing").await;
    assert_ne!(before.0, after.0);
    assert!(world.broker.process.stop().success());
    sqlx::query("UPDATE secrets SET nonce = ?, sealed = ? WHERE subject = ?")
        .bind(&before.1)
        .bind(&before.2)
        .bind(&after.0)
        .execute(&mut db)
        .await
        .unwrap();
    db.close().await.unwrap();
    forget_tokens(&world);
    world.restart(&[]);
    let mut client = world.broker.tokens().await;
    let refused = token(&mut client, "identities/billing", VAULT).await.unwrap_err();
    assert!(refused.message().contains("identities/billing"), "{refused}");
    assert_eq!(reason(&refused), "SEALED_VALUE_UNREADABLE");
    token(&mut client, "identities/reports", VAULT).await.unwrap();
    // What the message says to do helps.
    world.broker.json(&["identity", "rotate", "billing"]);
    token(&mut client, "identities/billing", VAULT).await.unwrap();
}
