//! Each port's own contract, as the one in memory passes it.

use crate::open;

#[tokio::test]
async fn the_store_of_identities_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    jeton_lifecycle::testing::identity_store_contract(async || open(folder.path()).await).await;
}

#[tokio::test]
async fn the_store_of_assignments_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    jeton_access::testing::access_store_contract(async || open(folder.path()).await).await;
}

#[tokio::test]
async fn the_store_of_tokens_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    jeton_engine::testing::token_store_contract(async || open(folder.path()).await).await;
}

#[tokio::test]
async fn the_store_of_uses_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    jeton_access::testing::use_store_contract(async || open(folder.path()).await).await;
}
