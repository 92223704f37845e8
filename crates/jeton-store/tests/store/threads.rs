//! Sealing stays off the threads that serve.

use std::fs;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use jeton_core::Wall;
use jeton_engine::{
    StoredToken, TokenStore, TokenWrite,
    testing::{issued, key},
};

use crate::open;

const TOKENS: u64 = 8;
/// Far longer than real ones, so that sealing is what counts.
const BYTES: usize = 8 << 20;

/// What this thread has had of a processor, in nanoseconds.
fn own_time() -> u64 {
    let times = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split(' ').next().unwrap().parse().unwrap()
}

fn put(n: u64) -> TokenWrite {
    let (key, at) = (key(n, "a"), Wall::from_secs(1_767_225_600));
    let mut token = issued(&key, 1, std::time::Duration::from_secs(3_600));
    token.access_token = "x".repeat(BYTES).into();
    TokenWrite::Put(Box::new(StoredToken { key, token, issued_at: at, refresh_at: at, last_used: at }))
}

#[tokio::test]
async fn whoever_has_tokens_written_does_not_seal_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    store.write(vec![put(0)]).await.unwrap();
    let batch = (1..=TOKENS).map(put).collect();
    let before = own_time();
    store.write(batch).await.unwrap();
    let writing = own_time() - before;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    let plain = vec![7; BYTES];
    let before = own_time();
    for _ in 0..TOKENS {
        let nonce = Nonce::assume_unique_for_key([7; 12]);
        // In a place of its own, as there.
        key.seal_in_place_append_tag(nonce, Aad::empty(), &mut plain.clone()).unwrap();
    }
    let sealing = own_time() - before;
    assert!(writing < sealing / 3, "{writing} ns to have them written, {sealing} ns to seal them");
    store.close().await;
}
