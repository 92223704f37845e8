//! Backups that are made while the broker works, and what comes of them.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use serde_json::{Value, json};

use crate::support::{Broker, JETON, VAULT, World};

fn jeton(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(JETON).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// The credential in use, and whether work is under way.
fn credential(broker: &Broker, identity: &str) -> (String, Value) {
    let shown = broker.json(&["identity", "get", identity]);
    let all = shown["credentials"].as_array().unwrap();
    let current = all.iter().find(|credential| credential["state"] == "CURRENT").unwrap();
    (current["uid"].as_str().unwrap().to_owned(), shown["operation"].clone())
}

fn settled(broker: &Broker, identities: &[&str]) {
    crate::support::until("everything is verified", || {
        identities.iter().all(|identity| {
            let (_, operation) = credential(broker, identity);
            operation.is_null() || operation["step"] == "overlapped"
        })
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_broker_registers_nothing_anew_and_gives_new_keys_where_the_old_ones_are_gone() {
    let mut world = World::start().await;
    let file = world.folder().join("registry.backup");
    let path = file.to_str().unwrap();
    let made = world.broker.jeton(&["backup", path]);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!world.broker.jeton(&["backup", path]).status.success(), "a file that is there stays as it is");
    let before = ["billing", "reports"].map(|name| credential(&world.broker, name).0);
    // Twice: the second ends the overlap of the first, so that the authority knows nothing of the key in the backup.
    for _ in 0..2 {
        world.broker.json(&["identity", "rotate", "billing"]);
    }
    crate::support::until("the first key is gone", || {
        let shown = world.broker.json(&["identity", "get", "billing"]);
        shown["credentials"].as_array().unwrap().iter().all(|c| c["uid"] != before[0].as_str())
    });
    let applications = world.sandbox.stats().await["applications"].clone();
    let key = world.broker.data_dir.join("sealing.key");
    world.broker.process.kill();
    let wrong = world.folder().join("wrong.key");
    fs::write(&wrong, [9_u8; 32]).unwrap();
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600)).unwrap();
    let again = world.folder().join("again");
    let restore = |file: &str, key: &str| {
        jeton(&["restore", file, "--data-dir", again.to_str().unwrap(), "--sealing-key-file", key])
    };
    let (worked, said) = restore(path, wrong.to_str().unwrap());
    assert!(!worked && said.contains("the sealing key does not fit"), "{said}");
    let cut = world.folder().join("cut");
    fs::write(&cut, &fs::read(&file).unwrap()[..5_000]).unwrap();
    let (worked, said) = restore(cut.to_str().unwrap(), key.to_str().unwrap());
    assert!(!worked && said.contains("is no whole backup"), "{said}");
    let (worked, said) = restore(path, key.to_str().unwrap());
    assert!(worked && said.contains("4 identities restored; 4 of them prove themselves"), "{said}");
    let (worked, said) = restore(path, key.to_str().unwrap());
    assert!(!worked && said.contains("restore into an empty data directory"), "{said}");
    let sealing = format!("sealing.key_file={}", key.display());
    world.broker = Broker::start(&again, Some(&world.sandbox), &["--set", &sealing]);
    let broker = &world.broker;
    settled(broker, &["billing", "reports", "demo-system", "orders"]);
    let after = ["billing", "reports"].map(|name| credential(broker, name).0);
    assert_ne!(after[0], before[0], "the authority does not know the key in the backup");
    assert_eq!(after[1], before[1], "what proved itself keeps its key");
    assert_eq!(world.sandbox.stats().await["applications"], applications, "nothing is registered anew");
    world.sandbox.settings(json!({"client_id": null, "latency_ms": 0})).await;
    for identity in ["billing", "reports"] {
        let token = broker.json(&["token", "get", "--identity", identity, "--scope", VAULT]);
        assert!(token["access_token"].is_string(), "{token}");
    }
}
