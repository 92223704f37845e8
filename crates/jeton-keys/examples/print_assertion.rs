//! Prints assertions as JSON lines, so that other software can verify them: of every algorithm and key reference, or by the profile
//! that is given as JSON.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for tests")]

use std::{sync::Arc, time::Duration};

use jeton_core::{
    AssertionRequest, Assertions, Clock, KeyKind, SigningAlgorithm, SystemClock, Uid,
    profile::{AssertionProfile, IssuedAt, KeyReference},
};
use jeton_keys::{Keys, KeysSettings};
use jeton_lifecycle::{
    IdentityStore, KeyRequest, KeyRing, SecretId, SecretKind, Write, testing::MemoryIdentityStore,
};
use secrecy::ExposeSecret;

const AUDIENCE: &str = "https://login.example/tenant/oauth2/v2.0/token";

/// What an assertion is made of: the two members of a profile that say so.
#[derive(serde::Deserialize)]
struct Recipe {
    key: KeyKind,
    assertion: AssertionProfile,
}

#[tokio::main]
async fn main() {
    let store = Arc::new(MemoryIdentityStore::default());
    let keys = Keys::start(KeysSettings::default(), store.clone(), Arc::new(SystemClock)).unwrap();
    let recipes = match std::env::args().nth(1) {
        Some(profile) => vec![serde_json::from_str(&profile).unwrap()],
        None => all(),
    };
    for (n, Recipe { key, assertion }) in recipes.into_iter().enumerate() {
        let now = SystemClock.now().wall;
        let request = KeyRequest {
            kind: key,
            subject: "identities/printed".into(),
            not_before: now - Duration::from_secs(300),
            valid_for: Duration::from_secs(86_400),
        };
        let made = keys.make(request).await.unwrap();
        let uid = Uid::new(now, [u8::try_from(n).unwrap(); 10]);
        let id = SecretId { owner: uid, subject: uid, kind: SecretKind::PrivateKey };
        store.commit(vec![Write::Secret(id, made.private)]).await.unwrap();
        let audience = assertion.audience.clone();
        let request = AssertionRequest {
            owner: uid,
            credential: uid,
            references: made.facts.references.clone(),
            client_id: "11111111-2222-3333-4444-555555555555".into(),
            profile: assertion.into(),
            skew_millis: 0,
        };
        let assertion = keys.take(request).await.unwrap();
        let line = serde_json::json!({
            "assertion": assertion.jwt.expose_secret(), "certificate_pem": made.facts.certificate_pem(),
            "jwk": &*made.facts.jwk, "audience": audience,
        });
        println!("{line}");
    }
}

/// Every kind of key with every algorithm that it signs and every way to name it.
fn all() -> Vec<Recipe> {
    let mut recipes = vec![];
    for key in [KeyKind::Rsa2048, KeyKind::Rsa3072, KeyKind::P256] {
        let algorithms = [SigningAlgorithm::Ps256, SigningAlgorithm::Rs256, SigningAlgorithm::Es256];
        for algorithm in algorithms.into_iter().filter(|a| key.signs(*a)) {
            for key_reference in [KeyReference::X5tS256, KeyReference::X5t, KeyReference::Kid] {
                let assertion = AssertionProfile {
                    algorithm,
                    key_reference,
                    audience: AUDIENCE.into(),
                    lifetime_seconds: 600,
                    issued_at: IssuedAt::SecondsAgo(5),
                    not_before: true,
                };
                recipes.push(Recipe { key, assertion });
            }
        }
    }
    recipes
}
