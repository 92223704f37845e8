//! Workload secrets by the command line.

use serde_json::json;

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_printed_once_and_nothing_else_ever_shows_it() {
    let mut world = World::start().await;
    let printed = world.broker.jeton(&["workload", "rotate-secret", "demo"]);
    assert!(printed.status.success(), "{printed:?}");
    let secret = String::from_utf8(printed.stdout).unwrap();
    let secret = secret.strip_suffix('\n').unwrap();
    assert!(secret.starts_with("jws_") && secret.len() == 68, "one line and nothing else");
    let rotated = world.broker.json(&["workload", "rotate-secret", "demo", "--overlap", "1h"]);
    let second = rotated["secret"].as_str().unwrap();
    assert_eq!(rotated, json!({ "secret": second }));
    assert_ne!(second, secret);
    let shown = world.broker.json(&["workload", "get", "demo"]);
    let secrets = shown["secrets"].as_array().unwrap().clone();
    assert_eq!(secrets.len(), 2);
    assert!(secrets[0]["expire_time"].is_string() && secrets[1]["expire_time"].is_null(), "{shown}");
    world.broker.process.kill();
    world.restart(&[]);
    let broker = &world.broker;
    assert_eq!(broker.json(&["workload", "get", "demo"])["secrets"], json!(secrets));
    let table = broker.jeton(&["workload", "get", "demo"]);
    let exported = broker.jeton(&["export"]);
    let mut everything = [table.stdout, exported.stdout].concat();
    for file in std::fs::read_dir(&broker.data_dir).unwrap().flatten().filter(|f| f.path().is_file()) {
        everything.extend(std::fs::read(file.path()).unwrap());
    }
    everything.extend(broker.process.log().into_bytes());
    for secret in [secret, second] {
        let found = everything.windows(secret.len() - 4).any(|part| part == &secret.as_bytes()[4..]);
        assert!(!found, "a secret was kept or shown");
    }
    let uid = secrets[1]["uid"].as_str().unwrap();
    let left = broker.json(&["workload", "revoke-secret", "demo", "--secret", uid]);
    assert_eq!(left["secrets"].as_array().unwrap().len(), 1);
    assert_eq!(broker.json(&["workload", "revoke-secret", "demo", "--all"])["secrets"], json!([]));
    let wrong = broker.jeton(&["workload", "rotate-secret", "demo", "--overlap", "soon"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("no length of time"), "{wrong:?}");
}
