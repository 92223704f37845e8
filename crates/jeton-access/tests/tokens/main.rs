//! Callers' bearer tokens: what gets in, and everything that must not. Keys are made here, and tokens are put together byte by byte.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

mod forged;
mod keys;
mod reviewed;
mod settings;
mod world;

use jeton_access::testing::{MemoryKeySet, key_set_source_contract};
use serde_json::Value;

#[tokio::test]
async fn the_keys_in_memory_keep_the_contract() {
    let keys = MemoryKeySet::default();
    key_set_source_contract(&keys, async |set: Value| keys.publish(set["keys"].as_array().unwrap())).await;
}
