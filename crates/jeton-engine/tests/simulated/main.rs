//! The engine in simulated time, against a scripted source. An oracle looks at every reply: it is for the asked identity and has
//! at least `min(30 s, lifetime / 4)` of life.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use jeton_engine::testing::MemoryTokenStore;

mod answers;
mod callers;
mod counts;
mod fairness;
mod many;
mod refresh;
mod revoke;
mod room;
mod spans;
mod standing;
mod world;

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_the_contract() {
    let store = MemoryTokenStore::default();
    jeton_engine::testing::token_store_contract(async || store.clone()).await;
}
