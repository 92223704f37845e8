//! kill -9 of the broker, at seeded moments, while identities are created and rotated. The sandbox goes on.

use std::{collections::BTreeSet, time::Duration};

use jeton_proto::v1;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use crate::support::{VAULT, World, token};

const SEED: u64 = 20_260_814;

fn from_environment(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// `JETON_KILLS`, `JETON_IDENTITIES` and `JETON_SEED` make it longer, or another one.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_both_sides_know_the_same_clients() {
    let (kills, wanted, seed) = (
        from_environment("JETON_KILLS", 4),
        from_environment("JETON_IDENTITIES", 10),
        from_environment("JETON_SEED", SEED),
    );
    println!("seed {seed}, {kills} kills, {wanted} identities");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut world = World::with(
        &["--set", "lifecycle.rotation.overlap_seconds=1"],
        json!({"propagation_delay_seconds": 0.2}),
    )
    .await;
    let mut acknowledged = BTreeSet::new();
    let mut next = 0;
    for _ in 0..kills {
        let mut admin = world.broker.identities().await;
        let (first, last) = (next, wanted.min(next + wanted.div_ceil(kills)));
        next = last;
        let known: Vec<String> = acknowledged.iter().cloned().collect();
        let rotate = known.get(random.random_range(0..known.len().max(1))).cloned();
        let work = tokio::spawn(async move {
            let mut done = vec![];
            if let Some(name) = rotate {
                let _ = admin
                    .rotate_credential(v1::RotateCredentialRequest { name, request_id: String::new() })
                    .await;
            }
            for n in first..last {
                let authority = if n % 2 == 0 { "authorities/entra" } else { "authorities/oidc" };
                let request = v1::CreateIdentityRequest {
                    identity_id: format!("killed.n{n}"),
                    authority: authority.into(),
                    request_id: format!("create-{n}"),
                    ..Default::default()
                };
                match admin.create_identity(request).await {
                    Ok(_) => done.push(format!("identities/killed.n{n}")),
                    Err(_) => break,
                }
            }
            done
        });
        tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
        world.broker.process.kill();
        acknowledged.extend(work.await.unwrap());
        world.restart(&["--set", "lifecycle.rotation.overlap_seconds=1"]);
        // Before anything is asked for again.
        let there = names(&world.broker.json(&["identity", "list"]));
        assert!(acknowledged.is_subset(&there), "lost: {:?}", acknowledged.difference(&there));
    }
    // What was not acknowledged before its kill is asked for again under the same request id.
    for n in 0..wanted {
        let authority = if n % 2 == 0 { "entra" } else { "oidc" };
        let (name, id) = (format!("killed.n{n}"), format!("create-{n}"));
        world.broker.json(&["identity", "create", &name, "--authority", authority, "--request-id", &id]);
        acknowledged.insert(format!("identities/{name}"));
    }
    everything_is_there(&world, &acknowledged, kills).await;
}

async fn everything_is_there(world: &World, acknowledged: &BTreeSet<String>, kills: u64) {
    world.broker.json(&[
        "access",
        "assign",
        "--member",
        "workloads/demo",
        "--identity",
        "identities/killed.*",
        "--target",
        "*",
    ]);
    let identities = settled(world).await;
    let mut client = world.broker.tokens().await;
    let mut known = BTreeSet::new();
    for identity in identities.as_array().unwrap() {
        let name = identity["name"].as_str().unwrap();
        assert_eq!(identity["state"], "ACTIVE", "{identity}");
        let scope = if identity["authority"] == "authorities/entra" { VAULT } else { "orders.read" };
        token(&mut client, name, scope).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        known.insert(identity["client_id"].as_str().unwrap().to_owned());
    }
    let there = names(&identities);
    assert!(acknowledged.is_subset(&there), "lost: {:?}", acknowledged.difference(&there));
    known.insert(
        world.broker.json(&["authority", "get", "entra"])["registrar_client_id"].as_str().unwrap().to_owned(),
    );
    let stats = world.sandbox.stats().await;
    let clients = stats["by_client"].as_object().unwrap().iter();
    let there: BTreeSet<_> =
        clients.filter(|(_, c)| c["keys"] != json!([])).map(|(id, _)| id.clone()).collect();
    assert_eq!(stats["applications"], there.len(), "one was made and never got its key: {stats}");
    assert!(known.is_subset(&there), "not at the sandbox: {:?}", known.difference(&there));
    // Those that are only counted, because they are gone, have no keys; those that are there all have one.
    assert_eq!(stats["applications"], there.len(), "an application was left without a key");
    // What the broker does not know can only be the fruit of a registration whose answer a kill swallowed, and is listed.
    let orphans = world.broker.jeton(&["status", "-o", "json"]);
    let orphans: Value = serde_json::from_slice(&orphans.stdout).unwrap();
    let suspected = orphans["suspected_orphans"].as_array().unwrap().len();
    let unknown: Vec<_> = there.difference(&known).collect();
    assert!(
        unknown.len() <= suspected && suspected as u64 <= kills,
        "{unknown:?} unknown, {suspected} suspected"
    );
    assert!(
        unknown.iter().all(|id| uuid::Uuid::try_parse(id).is_err()),
        "applications can be looked up, so none is forgotten: {unknown:?}"
    );
}

fn names(identities: &Value) -> BTreeSet<String> {
    identities.as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap().to_owned()).collect()
}

/// All identities, when nothing is under way any more.
async fn settled(world: &World) -> Value {
    for _ in 0..600 {
        let identities = world.broker.json(&["identity", "list"]);
        if identities.as_array().unwrap().iter().all(|i| i["operation"].is_null()) {
            return identities;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still at work: {}", world.broker.json(&["identity", "list"]));
}
