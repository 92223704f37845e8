//! Registrations that cannot be managed, are not allowed, or have to wait; records that cannot be read.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::support::{VAULT, World, token};

async fn open(world: &World) -> SqliteConnection {
    let path = world.broker.data_dir.join("registry.db");
    SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(Path::new(&path))).await.unwrap()
}

fn uid(world: &World, identity: &str) -> Vec<u8> {
    let identity = world.broker.json(&["identity", "get", identity]);
    uuid::Uuid::parse_str(identity["uid"].as_str().unwrap()).unwrap().as_bytes().to_vec()
}

async fn until(world: &World, identity: &str, holds: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..600 {
        let found = world.broker.json(&["identity", "get", identity]);
        if holds(&found) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{}", world.broker.json(&["identity", "get", identity]));
}

fn status(world: &World) -> Value {
    serde_json::from_slice(&world.broker.jeton(&["status", "-o", "json"]).stdout).unwrap()
}

/// The registration access token of before is put in the place of the one that replaced it.
async fn with_older_access_tokens(world: &mut World, identities: &[&str]) {
    let mut db = open(world).await;
    let select = "SELECT nonce, sealed FROM secrets WHERE owner = ? AND kind = 'registration-access-token'";
    let mut before = vec![];
    for identity in identities {
        let owner = uid(world, identity);
        let row = sqlx::query(select).bind(&owner).fetch_one(&mut db).await.unwrap();
        before.push((owner, row.get::<Vec<u8>, _>("nonce"), row.get::<Vec<u8>, _>("sealed")));
        world.broker.json(&["identity", "rotate", identity]);
        until(world, identity, |i| i["operation"].is_null()).await;
    }
    assert!(world.broker.process.stop().success());
    let update =
        "UPDATE secrets SET nonce = ?, sealed = ? WHERE owner = ? AND kind = 'registration-access-token'";
    for (owner, nonce, sealed) in before {
        sqlx::query(update).bind(nonce).bind(sealed).bind(owner).execute(&mut db).await.unwrap();
    }
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_registration_access_token_is_mended_by_a_rotation_and_hides_no_client() {
    let arguments = ["--set", "lifecycle.rotation.overlap_seconds=0"];
    let mut world = World::with(&arguments, json!({})).await;
    world.broker.json(&["identity", "create", "leaves", "--authority", "oidc"]);
    with_older_access_tokens(&mut world, &["orders", "leaves"]).await;
    world.restart(&arguments);
    let client_of = |name: &str| world.broker.json(&["identity", "get", name])["client_id"].clone();
    let (orders, leaves) = (client_of("orders"), client_of("leaves"));

    world.broker.json(&["identity", "rotate", "orders"]);
    until(&world, "orders", |i| i["operation"].is_null()).await;
    assert_ne!(client_of("orders"), orders, "it is registered anew");
    token(&mut world.broker.tokens().await, "identities/orders", "orders.read").await.unwrap();
    assert!(world.broker.jeton(&["identity", "delete", "leaves", "--yes"]).status.success());

    let status = status(&world);
    assert_eq!(status["suspected_orphans"].as_array().unwrap().len(), 2, "{status}");
    let there = world.sandbox.stats().await;
    for client in [orders, leaves] {
        let client = client.as_str().unwrap();
        assert_ne!(there["by_client"][client]["keys"], json!([]), "{client} is still there");
        assert!(status["problems"].to_string().contains(client), "{client} is not named: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registrar_identities_are_only_attached() {
    let world = World::start().await;
    let (url, ca_file) = (world.sandbox.text("/oidc/issuer"), world.sandbox.text("/ca_file"));
    let create = ["authority", "create", "bare", "--kind", "oidc", "--url", url, "--ca-file", ca_file];
    world.broker.json(&create);
    let refused = world.broker.jeton(&["identity", "create", "never", "--authority", "bare"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(6), "{told}");
    assert!(told.contains("no registrar") && told.contains("attach"), "{told}");
    assert_eq!(world.broker.jeton(&["identity", "get", "never"]).status.code(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrar_that_is_told_to_wait_asks_for_nobody_meanwhile() {
    let mut world = World::start().await;
    // Started again, it has no token of the registrar's.
    assert!(world.broker.process.stop().success());
    world.restart(&[]);
    let registrar = world.broker.json(&["authority", "get", "entra"])["registrar_client_id"].clone();
    let registrar = registrar.as_str().unwrap();
    let wait = json!({"rate": 1.0, "status": 429, "retry_after_seconds": 60});
    world.sandbox.settings(json!({"client_id": registrar, "error": wait})).await;
    let before = world.sandbox.stats().await["by_client"][registrar]["total"].as_u64().unwrap_or(0);
    for name in ["w1", "w2", "w3", "w4"] {
        world.broker.json(&["identity", "create", name, "--authority", "entra", "--no-wait"]);
    }
    for name in ["w1", "w2", "w3", "w4"] {
        until(&world, name, |i| i["operation"]["attempts"].as_u64() > Some(0)).await;
    }
    let after = world.sandbox.stats().await["by_client"][registrar]["total"].as_u64().unwrap_or(0);
    assert_eq!(after - before, 1, "asked again inside Retry-After");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_keeps_its_role_assignments() {
    let mut world = World::start().await;
    world.broker.json(&["identity", "create", "kept", "--authority", "entra"]);
    let assign =
        ["access", "assign", "--member", "workloads/demo", "--identity", "identities/kept", "--target", "*"];
    world.broker.json(&assign);
    let count = |world: &World| world.broker.json(&["access", "list"]).as_array().unwrap().len();
    let (kept, assignments) = (uid(&world, "kept"), count(&world));
    let mut db = open(&world).await;
    let select = sqlx::query("SELECT body FROM identities WHERE uid = ?").bind(&kept);
    let body: String = select.fetch_one(&mut db).await.unwrap().get("body");
    for text in ["unreadable", &body] {
        assert!(world.broker.process.stop().success());
        let update = sqlx::query("UPDATE identities SET body = ? WHERE uid = ?").bind(text).bind(&kept);
        update.execute(&mut db).await.unwrap();
        world.restart(&[]);
        let is_read = world.broker.jeton(&["identity", "get", "kept"]).status.success();
        assert_eq!(is_read, text == body);
    }
    assert_eq!(count(&world), assignments);
    token(&mut world.broker.tokens().await, "identities/kept", VAULT).await.unwrap();
}
