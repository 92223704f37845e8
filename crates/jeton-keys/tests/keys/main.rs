//! Keys, assertions and the pool, as the ports promise them.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

mod assertions;
mod memory;
mod pool;
mod simulated;
mod threads;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use jeton_core::{
    AssertionRequest, CertificateFacts, Clock, KeyKind, SigningAlgorithm, Uid,
    profile::{AssertionProfile, IssuedAt, KeyReference},
};
use jeton_keys::{Keys, KeysSettings, KeysStats};
use jeton_lifecycle::{
    IdentityStore, KeyRequest, KeyRing, SecretId, SecretKind, Write, testing::MemoryIdentityStore,
};
use jeton_testkit::ManualClock;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, jwk::Jwk};
use serde_json::Value;

struct World {
    keys: Keys,
    clock: ManualClock,
    store: MemoryIdentityStore,
    made: AtomicU8,
}

const SUBJECT: Duration = Duration::from_secs(90 * 86_400);

impl World {
    fn new() -> Self {
        Self::with(KeysSettings::default())
    }

    fn with(settings: KeysSettings) -> Self {
        let (clock, store) = (ManualClock::default(), MemoryIdentityStore::default());
        let keys = Keys::start(settings, Arc::new(store.clone()), Arc::new(clock.clone())).unwrap();
        Self { keys, clock, store, made: AtomicU8::new(0) }
    }

    async fn credential(&self, kind: KeyKind) -> (Uid, CertificateFacts) {
        let now = self.clock.now().wall;
        let request =
            KeyRequest { kind, subject: "identities/billing".into(), not_before: now, valid_for: SUBJECT };
        let made = self.keys.make(request).await.unwrap();
        let uid = Uid::new(now, [self.made.fetch_add(1, Relaxed); 10]);
        let id = SecretId { owner: uid, subject: uid, kind: SecretKind::PrivateKey };
        self.store.commit(vec![Write::Secret(id, made.private)]).await.unwrap();
        (uid, made.facts)
    }

    fn request(
        &self,
        (credential, facts): &(Uid, CertificateFacts),
        algorithm: SigningAlgorithm,
    ) -> AssertionRequest {
        AssertionRequest {
            owner: *credential,
            credential: *credential,
            references: facts.references.clone(),
            client_id: "client-1".into(),
            profile: Arc::new(AssertionProfile {
                algorithm,
                key_reference: KeyReference::X5tS256,
                audience: "https://login.example/token".into(),
                lifetime_seconds: 600,
                issued_at: IssuedAt::SecondsAgo(5),
                not_before: true,
            }),
            skew_millis: 0,
        }
    }

    async fn p256(&self) -> AssertionRequest {
        self.request(&self.credential(KeyKind::P256).await, SigningAlgorithm::Es256)
    }

    /// Lets signatures that were asked for ahead arrive, by looking until they are there.
    async fn presigned(&self) -> usize {
        for _ in 0..20_000 {
            let KeysStats { coming: 0, presigned, .. } = self.keys.stats() else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            return presigned;
        }
        panic!("{:?}", self.keys.stats());
    }
}

fn with_lifetime(request: &AssertionRequest, seconds: u32) -> AssertionRequest {
    let profile = AssertionProfile { lifetime_seconds: seconds, ..request.profile.as_ref().clone() };
    AssertionRequest { profile: profile.into(), ..request.clone() }
}

fn claims(jwt: &str, facts: &CertificateFacts, audience: &str) -> Value {
    let mut jwk: Value = serde_json::from_str(&facts.jwk).unwrap();
    let header = decode_header(jwt).unwrap();
    jwk["alg"] = serde_json::to_value(header.alg).unwrap();
    let key = DecodingKey::from_jwk(&serde_json::from_value::<Jwk>(jwk).unwrap()).unwrap();
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[audience]);
    // Manual time stands still in the past of the library's own clock.
    validation.validate_exp = false;
    decode::<Value>(jwt, &key, &validation).unwrap().claims
}
