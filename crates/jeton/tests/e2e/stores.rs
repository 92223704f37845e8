//! What is on disk, and what happens when somebody tampers with it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jeton_core::{SystemClock, Uid};
use jeton_lifecycle::{IdentityStore, SecretId, SecretKind};
use jeton_proto::v1::DeleteIdentityRequest;
use jeton_store::{SealingKey, Store};
use secrecy::ExposeSecret;
use serde_json::json;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    logs::Collector,
    support::{VAULT, World, reason, request, token, until},
};

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

/// What must stand nowhere: its name, and at least twenty bytes of it.
type Canary = (&'static str, Vec<u8>);

fn canary(name: &'static str) -> Canary {
    (name, format!("canary-3f9a1c7e5b2d4860-{name}").into_bytes())
}

/// Every byte a character: so text and bytes are looked for in one way.
fn characters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn forms(secret: &[u8]) -> Vec<String> {
    let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
    let mut forms = vec![characters(secret), hex.to_uppercase(), hex];
    // Base64 of bytes that stand anywhere: their middle is the same for one of three alignments.
    for skip in 0..3 {
        let whole = (secret.len() - skip) / 3 * 3;
        let part = &secret[skip..skip + whole];
        forms.extend([STANDARD.encode(part), URL_SAFE_NO_PAD.encode(part)]);
    }
    forms
}

fn matches(bytes: &[u8], canaries: &[Canary]) -> Vec<&'static str> {
    let text = characters(bytes);
    let is_token = |part: &str| {
        let head: String =
            part.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect();
        head.len() >= 20 && part[head.len()..].starts_with('.')
    };
    let mut found = vec![];
    if text
        .split("-----BEGIN ")
        .skip(1)
        .any(|rest| rest.split("-----").next().unwrap_or_default().contains("PRIVATE"))
    {
        found.push("a private key");
    }
    if text.split("eyJ").skip(1).any(is_token) {
        found.push("a JWT");
    }
    let stands = |(_, secret): &&Canary| forms(secret).iter().any(|form| text.contains(form));
    found.extend(canaries.iter().filter(stands).map(|(name, _)| *name));
    found
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let canary @ (_, secret) = &canary("x");
    let text = std::str::from_utf8(secret).unwrap();
    let found = |bytes: &[u8]| matches(bytes, std::slice::from_ref(canary));
    assert_eq!(found(b"x-----BEGIN RSA PRIVATE KEY-----"), ["a private key"]);
    assert_eq!(found(b"\x00eyJhbGciOiJSUzI1NiIsInR5cCI6.eyJ"), ["a JWT"]);
    assert_eq!(found(format!("..{text}").as_bytes()), ["x"]);
    for before in ["", "a", "ab"] {
        assert_eq!(found(STANDARD.encode(format!("{before}{text}:")).as_bytes()), ["x"]);
    }
    let hex: String = secret.iter().map(|b| format!("{b:02X}")).collect();
    assert_eq!(found(hex.as_bytes()), ["x"]);
    assert_eq!(matches(&[[0xff; 4], [1; 4]].concat(), &[("bytes", vec![0xff, 0xff, 1, 1])]), ["bytes"]);
    assert!(found(b"eyJ short. -----BEGIN CERTIFICATE-----").is_empty());
}

/// A certificate and its key in files, and a canary for the key.
fn pair(folder: &Path, name: &'static str) -> ([String; 2], Canary) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let params = rcgen::CertificateParams::new(vec!["canary.example".into()]).unwrap();
    let contents = [params.self_signed(&key).unwrap().pem(), key.serialize_pem()];
    let paths = ["certificate", "key"].map(|part| folder.join(format!("{name}.{part}")));
    paths.iter().zip(contents).for_each(|(path, text)| fs::write(path, text).unwrap());
    (paths.map(|path| path.display().to_string()), private_part(name, &key.serialize_der()))
}

/// From the middle of a key, where nothing is public; on one line of its PEM.
fn private_part(name: &'static str, der: &[u8]) -> Canary {
    let start = if der.len() > 1_000 { 480 } else { 38 };
    (name, der[start..start + 24].to_vec())
}

/// Brings along every kind of secret that there is, and has each used where that is possible.
async fn bring_secrets(world: &World) -> (Vec<Canary>, Vec<u8>) {
    let (broker, folder) = (&world.broker, world.folder());
    let mut canaries = ["body", "basic", "initial"].map(canary).to_vec();
    let file = |(name, secret): &Canary| {
        let path = folder.join(name);
        fs::write(&path, secret).unwrap();
        path.display().to_string()
    };
    for (canary, authority) in canaries.iter().zip(["entra", "oidc"]) {
        let secret = file(canary);
        let attach = ["identity", "attach", canary.0, "--authority", authority, "--no-wait"];
        broker.json(&[&attach[..], &["--client-id", canary.0, "--secret-file", &secret]].concat());
    }
    let ([certificate, key], attached) = pair(folder, "attached");
    let attach = ["identity", "attach", "attached", "--authority", "entra", "--no-wait"];
    let files = ["--client-id", "attached", "--certificate", &certificate, "--private-key", &key];
    broker.json(&[&attach[..], &files].concat());
    let start = Instant::now();
    for client in ["body", "basic", "attached"] {
        let asked = || {
            let identity = broker.json(&["identity", "get", client]);
            identity["state"] == "FAILED" || identity["operation"]["attempts"].as_u64() > Some(0)
        };
        while !asked() {
            assert!(start.elapsed() < Duration::from_secs(60), "nothing was sent for {client}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    for identity in ["billing", "orders"] {
        broker.json(&["identity", "rotate", identity]);
    }
    // At last, because these do not register anybody.
    let ([certificate, key], registrar) = pair(folder, "registrar");
    let update = ["authority", "update", "entra", "--registrar-client-id", "registrar"];
    let files = ["--registrar-certificate", &certificate, "--registrar-key", &key];
    broker.json(&[&update[..], &files].concat());
    broker.json(&["authority", "update", "oidc", "--initial-access-token-file", &file(&canaries[2])]);
    let mut said = vec![];
    for authority in ["entra", "oidc"] {
        said.extend(broker.jeton(&["authority", "test", authority]).stdout);
        let create = ["identity", "create", authority, "--authority", authority, "--timeout", "3"];
        let refused = broker.jeton(&create);
        assert!(!refused.status.success(), "{authority} takes the canary of a registrar");
        said.extend(refused.stderr);
    }
    canaries.extend([attached, registrar]);
    (canaries, said)
}

/// What the broker made and keeps for itself, by its own sealing key.
async fn own_secrets(world: &World) -> Vec<Canary> {
    let folder = &world.broker.data_dir;
    let sealing = SealingKey::load(&folder.join("sealing.key")).unwrap();
    let store = Store::open(folder, sealing, Arc::new(SystemClock)).await.unwrap();
    let identities = IdentityStore::load(&store).await.unwrap().identities;
    let found = |name: &str| identities.iter().find(|i| i.name.as_str() == name).unwrap();
    let secret = async |owner: Uid, subject: Uid, kind| {
        store.secret(SecretId { owner, subject, kind }).await.unwrap().unwrap().expose_secret().to_vec()
    };
    let audit = secret(Uid::LEAST, Uid::LEAST, SecretKind::AuditKey).await;
    let (billing, orders) = (found("identities/billing"), found("identities/orders"));
    let key = secret(billing.uid, billing.current().unwrap().uid, SecretKind::PrivateKey).await;
    let registration = secret(orders.uid, orders.uid, SecretKind::RegistrationAccessToken).await;
    store.close().await;
    vec![
        private_part("an identity's key", &key),
        ("the registration access token", registration),
        // The seed of an Ed25519 key in PKCS#8; what follows it is public.
        ("the audit log's key", audit[20..44].to_vec()),
    ]
}

/// What callers send along, to every door, in requests that are carried out and in some that are not.
async fn send_secrets(world: &World) -> (Vec<Canary>, Vec<u8>) {
    let [bearer, claims] = ["bearer", "claims"].map(canary);
    let [token, value] = [&bearer, &claims].map(|(_, secret)| String::from_utf8(secret.clone()).unwrap());
    let wanted = json!({"access_token": {"acrs": {"values": [value]}}}).to_string();
    let with = |identity: &str, scope: &str, claims: &str| {
        let mut asked = request(identity, scope);
        asked.claims = claims.into();
        let mut asked = tonic::Request::new(asked);
        asked.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        asked
    };
    let mut said = vec![];
    for mut client in [world.broker.tokens().await, world.broker.local_tokens().await] {
        for (identity, scope, claims) in [
            ("identities/billing", VAULT, wanted.as_str()),
            ("identities/orders", "orders.read", &wanted),
            ("identities/nobody", VAULT, &wanted),
            ("identities/billing", "no scope at all", &wanted),
            ("identities/billing", VAULT, &value),
            ("identities/billing", VAULT, &format!("{{\"{value}\"")),
        ] {
            if let Err(status) = client.get_token(with(identity, scope, claims)).await {
                said.extend(format!("{status:?}").into_bytes());
            }
        }
    }
    let mut identities = world.broker.identities().await;
    for name in ["identities/billing", "identities/nobody", "nobody"] {
        let mut asked =
            tonic::Request::new(DeleteIdentityRequest { name: name.into(), request_id: "wrong id".into() });
        asked.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let refused = identities.delete_identity(asked).await.unwrap_err();
        said.extend(format!("{refused:?}").into_bytes());
    }
    for show in [&["status"][..], &["identity", "list"], &["identity", "get", "billing"], &["audit", "list"]]
    {
        said.extend(world.broker.jeton(&[show, &["-o", "json"]].concat()).stdout);
    }
    (vec![bearer, claims], said)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_clear_in_the_stores_the_logs_or_what_is_exported_while_it_runs_or_after_a_kill() {
    let collector = Collector::start();
    let settings = collector.settings();
    let filter = ["--set", "log.filter=trace"];
    let arguments: Vec<_> = filter.into_iter().chain(settings.iter().map(String::as_str)).collect();
    let mut world = World::with(&arguments, serde_json::json!({})).await;
    let issued = token(&mut world.broker.tokens().await, "identities/billing", VAULT).await.unwrap();
    let (sent, answered) = send_secrets(&world).await;
    let (mut canaries, said) = bring_secrets(&world).await;
    canaries.extend(sent);
    // What was done with them is exported in batches.
    let before = collector.count("/v1/traces");
    until("the spans of it are exported", || collector.count("/v1/traces") > before);
    let mut scanned = vec![
        (PathBuf::from("what commands said"), said),
        (PathBuf::from("what callers were told"), answered),
    ];
    let log = world.broker.data_dir.with_extension("log");
    let read = |path: PathBuf| fs::read(&path).ok().map(|bytes| (path, bytes));
    let audit = world.broker.data_dir.join("audit");
    scanned.extend(files(&world.broker.data_dir).into_iter().filter_map(read));
    world.broker.process.kill();
    let left = files(&world.broker.data_dir).into_iter().chain(files(&audit)).chain([log]);
    scanned.extend(left.filter_map(read));
    scanned.extend(collector.bodies().into_iter().map(|(path, body)| (PathBuf::from(path), body)));
    for name in [
        "v1/logs",
        "v1/traces",
        "registry.db",
        "registry.db-wal",
        "tokens.db",
        "tokens.db-wal",
        "uses.db",
        "head.json",
        "data.log",
    ] {
        assert!(scanned.iter().any(|(p, bytes)| p.ends_with(name) && !bytes.is_empty()), "{name}");
    }
    canaries.extend(own_secrets(&world).await);
    let signature = issued.access_token.rsplit('.').next().unwrap();
    canaries.push(("an issued token", signature.as_bytes()[..40].to_vec()));
    for (path, bytes) in scanned {
        let mut found = matches(&bytes, &canaries);
        // A token is kept under the claims with which it was asked for.
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tokens.db")) {
            found.retain(|name| *name != "claims");
        }
        // `dev` makes certificates for its own doors, and their keys are files as those of any server.
        if ["grpc-ca.key", "grpc-server.key"].iter().any(|name| path.ends_with(name)) {
            found.retain(|name| *name != "a private key");
        }
        assert!(found.is_empty(), "{}: {found:?}", path.display());
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

/// A secret of an identity, as it is stored: its subject, nonce and bytes.
async fn sealed(
    db: &mut SqliteConnection,
    world: &World,
    identity: &str,
    kind: &str,
) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let identity = world.broker.json(&["identity", "get", identity]);
    let owner = uuid::Uuid::parse_str(identity["uid"].as_str().unwrap()).unwrap().as_bytes().to_vec();
    let row = sqlx::query("SELECT subject, nonce, sealed FROM secrets WHERE owner = ? AND kind = ?")
        .bind(&owner)
        .bind(kind)
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
    let billing = sealed(&mut db, &world, "billing", "private-key").await;
    let reports = sealed(&mut db, &world, "reports", "private-key").await;
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
async fn a_key_of_before_the_rotation_fails_by_name_in_the_place_of_the_new_one() {
    let mut world =
        World::with(&["--set", "lifecycle.rotation.overlap_seconds=0"], serde_json::json!({})).await;
    let path = world.broker.data_dir.join("registry.db");
    let mut db = open(&path).await;
    let before = sealed(&mut db, &world, "billing", "private-key").await;
    world.broker.json(&["identity", "rotate", "billing"]);
    for _ in 0..200 {
        if world.broker.json(&["identity", "get", "billing"])["operation"].is_null() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let after = sealed(&mut db, &world, "billing", "private-key").await;
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

#[tokio::test(flavor = "multi_thread")]
async fn an_older_blob_under_a_newer_version_does_not_open_and_exactly_its_identity_is_registered_anew() {
    const KIND: &str = "registration-access-token";
    let mut world =
        World::with(&["--set", "lifecycle.rotation.overlap_seconds=0"], serde_json::json!({})).await;
    let mut db = open(&world.broker.data_dir.join("registry.db")).await;
    let before = sealed(&mut db, &world, "orders", KIND).await;
    world.broker.json(&["identity", "rotate", "orders"]);
    let start = Instant::now();
    while !world.broker.json(&["identity", "get", "orders"])["operation"].is_null() {
        assert!(start.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(world.broker.process.stop().success());
    let put_back = "UPDATE secrets SET nonce = ?, sealed = ? WHERE subject = ? AND kind = ? AND version > 1";
    let query = sqlx::query(put_back).bind(&before.1).bind(&before.2).bind(&before.0).bind(KIND);
    assert_eq!(query.execute(&mut db).await.unwrap().rows_affected(), 1, "a rotation makes a newer version");
    db.close().await.unwrap();
    world.restart(&[]);
    // Its key is another secret, and the others are untouched.
    token(&mut world.broker.tokens().await, "identities/orders", "orders.read").await.unwrap();
    let before = world.broker.client_id("identities/orders");
    world.broker.json(&["identity", "rotate", "orders"]);
    let after = world.broker.json(&["identity", "get", "orders"])["client_id"].clone();
    assert_ne!(
        after,
        before.as_str(),
        "an older token would have been refused by the authority, and no client made"
    );
    let status = world.broker.jeton(&["status", "-o", "json"]).stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    let told = status["problems"].to_string();
    assert!(told.contains(&before) && told.contains("authorities/oidc"), "{status}");
    world.broker.json(&["identity", "rotate", "billing"]);
    assert_eq!(status["suspected_orphans"].as_array().unwrap().len(), 1, "{status}");
}
