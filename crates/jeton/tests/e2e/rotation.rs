//! Rotation of certificates under load.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use jeton_proto::v1::token_service_client::TokenServiceClient;
use serde_json::json;

use crate::support::{World, token};

/// An identity that a hundred callers use, rotated three times.
async fn rotated_under_load(identity: &'static str, scope: &'static str) {
    let world = World::with(
        &["--set", "lifecycle.rotation.overlap_seconds=1"],
        json!({"token_lifetime_seconds": 12}),
    )
    .await;
    let client_id = world.broker.client_id(identity);
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut callers = vec![];
    for _ in 0..4 {
        let channel = world.broker.tcp().await;
        for _ in 0..25 {
            let (mut client, stop, answers) =
                (TokenServiceClient::new(channel.clone()), Arc::clone(&stop), Arc::clone(&answers));
            callers.push(tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    token(&mut client, identity, scope).await?;
                    answers.fetch_add(1, Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok::<_, tonic::Status>(())
            }));
        }
    }
    let mut signed_with = HashSet::new();
    for _ in 0..3 {
        let rotating = tokio::task::spawn_blocking({
            let data_dir = world.broker.data_dir.clone();
            move || {
                let data_dir = data_dir.to_str().unwrap();
                std::process::Command::new(crate::support::JETON)
                    .args(["identity", "rotate", identity, "--data-dir", data_dir])
                    .output()
                    .unwrap()
            }
        });
        // Longer than the overlap: the old key goes in this time as well.
        for _ in 0..60 {
            let stats = world.sandbox.stats().await;
            let client = &stats["by_client"][&client_id];
            let keys = client["keys"].as_array().unwrap().len();
            assert!((1..=2).contains(&keys), "{keys} keys registered");
            signed_with.extend(
                client["signed_with"].as_array().unwrap().iter().map(|k| k.as_str().unwrap().to_owned()),
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let done = rotating.await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    stop.store(true, Relaxed);
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert!(answers.load(Relaxed) > 1_000);
    assert!(signed_with.len() >= 4, "signed with {signed_with:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_rotations_at_the_entra_shaped_tenant_cost_no_caller_an_error() {
    rotated_under_load("identities/billing", crate::support::VAULT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_rotations_at_the_oidc_shaped_tenant_cost_no_caller_an_error() {
    rotated_under_load("identities/orders", "orders.read").await;
}
