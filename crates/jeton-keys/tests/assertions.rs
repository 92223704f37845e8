//! Assertions as an authority sees them, verified by a library that did not make them; and the pool's promises.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use jeton_core::{
    AssertionError, AssertionRequest, Assertions, CertificateFacts, Clock, KeyKind, ProofRequest,
    SigningAlgorithm, Uid, Wall,
    profile::{AssertionProfile, IssuedAt, KeyReference},
};
use jeton_keys::{Keys, KeysSettings};
use jeton_lifecycle::{
    IdentityStore, KeyError, KeyRequest, KeyRing, SecretId, SecretKind, Write, testing::MemoryIdentityStore,
};
use jeton_testkit::ManualClock;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, jwk::Jwk};
use secrecy::ExposeSecret;
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
        let (clock, store) = (ManualClock::default(), MemoryIdentityStore::default());
        let settings = KeysSettings { max_presigned: 4, ..KeysSettings::default() };
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

    /// Lets signatures that were asked for ahead arrive, by looking until they are there.
    async fn presigned(&self, expected: usize) {
        for _ in 0..2_000 {
            if self.keys.stats().presigned == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{:?}", self.keys.stats());
    }
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

#[tokio::test]
async fn every_algorithm_verifies_and_every_field_of_the_profile_shows() {
    let world = World::new();
    let (rsa, ec) = (world.credential(KeyKind::Rsa2048).await, world.credential(KeyKind::P256).await);
    for (credential, algorithm) in
        [(&rsa, SigningAlgorithm::Ps256), (&rsa, SigningAlgorithm::Rs256), (&ec, SigningAlgorithm::Es256)]
    {
        for (reference, name) in
            [(KeyReference::X5tS256, "x5t#S256"), (KeyReference::X5t, "x5t"), (KeyReference::Kid, "kid")]
        {
            let mut request = world.request(credential, algorithm);
            let mut profile = request.profile.as_ref().clone();
            profile.key_reference = reference;
            profile.lifetime_seconds = 60;
            profile.not_before = reference == KeyReference::Kid;
            request.profile = profile.into();
            request.skew_millis = 90_000;
            let assertion = world.keys.take(request.clone()).await.unwrap();
            let jwt = assertion.jwt.expose_secret();
            assert!(!jwt.contains('='), "no padding");
            let now = world.clock.now().wall.as_secs() + 90;
            let claims = claims(jwt, &credential.1, "https://login.example/token");
            assert_eq!((&claims["iss"], &claims["sub"]), (&"client-1".into(), &"client-1".into()));
            assert_eq!((claims["iat"].as_i64(), claims["exp"].as_i64()), (Some(now - 5), Some(now + 55)));
            assert_eq!(claims.get("nbf").is_some(), reference == KeyReference::Kid);
            let header = jwt.split('.').next().unwrap();
            let header: Value = serde_json::from_slice(
                &base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header).unwrap(),
            )
            .unwrap();
            assert_eq!(header["alg"], algorithm.as_str());
            assert_eq!(header[name], credential.1.references.header(reference).1);
            assert_eq!(header.as_object().unwrap().len(), 3, "{header}");
        }
    }
}

#[tokio::test]
async fn without_iat_the_lifetime_counts_from_now_and_no_assertion_lives_beyond_ten_minutes() {
    let world = World::new();
    let credential = world.credential(KeyKind::P256).await;
    let mut request = world.request(&credential, SigningAlgorithm::Es256);
    let profile = AssertionProfile {
        issued_at: IssuedAt::Absent,
        lifetime_seconds: 9_000,
        ..request.profile.as_ref().clone()
    };
    request.profile = profile.into();
    let assertion = world.keys.take(request).await.unwrap();
    let claims = claims(assertion.jwt.expose_secret(), &credential.1, "https://login.example/token");
    let now = world.clock.now().wall.as_secs();
    assert!(claims.get("iat").is_none(), "{claims}");
    assert_eq!((claims["nbf"].as_i64(), claims["exp"].as_i64()), (Some(now), Some(now + 600)));
}

#[tokio::test]
async fn an_assertion_is_handed_out_once_however_many_ask_at_the_same_time() {
    let world = World::new();
    let request = world.request(&world.credential(KeyKind::P256).await, SigningAlgorithm::Es256);
    let takers: Vec<_> = (0..500)
        .map(|_| {
            let (keys, request) = (world.keys.clone(), request.clone());
            tokio::spawn(async move { keys.take(request).await.unwrap().jwt.expose_secret().to_owned() })
        })
        .collect();
    let mut seen = HashSet::new();
    for taker in takers {
        assert!(seen.insert(taker.await.unwrap()), "the same assertion twice");
    }
}

#[tokio::test]
async fn what_was_signed_ahead_is_taken_and_never_with_too_little_life() {
    let world = World::new();
    let request = world.request(&world.credential(KeyKind::P256).await, SigningAlgorithm::Es256);
    world.keys.prepare(&request);
    world.keys.prepare(&request);
    world.presigned(1).await;
    world.keys.take(request.clone()).await.unwrap();
    assert_eq!(world.keys.stats().taken_from_pool, 1);
    world.keys.prepare(&request);
    world.presigned(1).await;
    // 600 s of life, 5 s of them gone at signing; under 120 s it is not sent any more.
    world.clock.suspend(Duration::from_secs(476));
    let assertion = world.keys.take(request).await.unwrap();
    let left = assertion.expires_at.saturating_since(world.clock.now().wall);
    assert_eq!((world.keys.stats().taken_from_pool, world.keys.stats().expired_unused), (1, 1));
    assert!(left >= Duration::from_secs(590), "{left:?}");
}

#[tokio::test]
async fn the_pool_is_emptied_by_a_new_profile_a_changed_skew_and_a_discard() {
    let world = World::new();
    let request = world.request(&world.credential(KeyKind::P256).await, SigningAlgorithm::Es256);
    let mut other_profile = request.clone();
    other_profile.profile =
        Arc::new(AssertionProfile { lifetime_seconds: 300, ..request.profile.as_ref().clone() });
    let other_skew = AssertionRequest { skew_millis: 2_001, ..request.clone() };
    for changed in [other_profile, other_skew] {
        world.keys.prepare(&request);
        world.presigned(1).await;
        world.keys.take(changed.clone()).await.unwrap();
        assert_eq!(world.keys.stats().taken_from_pool, 0);
        world.keys.discard(changed.credential);
    }
    let near = AssertionRequest { skew_millis: 1_999, ..request.clone() };
    world.keys.prepare(&request);
    world.presigned(1).await;
    world.keys.take(near).await.unwrap();
    assert_eq!(world.keys.stats().taken_from_pool, 1);
    world.keys.prepare(&request);
    world.presigned(1).await;
    world.keys.discard(request.credential);
    assert_eq!(world.keys.stats().presigned, 0);
}

#[tokio::test]
async fn the_pool_is_bounded() {
    let world = World::new();
    let mut requests = vec![];
    for _ in 0..8 {
        requests.push(world.request(&world.credential(KeyKind::P256).await, SigningAlgorithm::Es256));
    }
    for request in &requests[..4] {
        world.keys.prepare(request);
    }
    world.presigned(4).await;
    requests[4..].iter().for_each(|request| world.keys.prepare(request));
    let all: Vec<_> = requests.iter().map(|request| world.keys.take(request.clone())).collect();
    assert_eq!(world.keys.stats().presigned, 4);
    for taken in all {
        taken.await.unwrap();
    }
    assert_eq!(world.keys.stats().taken_from_pool, 4);
}

#[tokio::test]
async fn a_key_signs_only_what_it_can_and_a_lost_key_says_what_to_do() {
    let world = World::new();
    let credential = world.credential(KeyKind::P256).await;
    let wrong = world.keys.take(world.request(&credential, SigningAlgorithm::Ps256)).await;
    assert!(matches!(wrong, Err(AssertionError::Algorithm { algorithm: "PS256", .. })));
    let lost = (Uid::new(Wall::from_secs(9), [9; 10]), credential.1);
    let error = world.keys.take(world.request(&lost, SigningAlgorithm::Es256)).await.unwrap_err().to_string();
    assert!(error.contains("rotate the credential"), "{error}");
}

#[tokio::test]
async fn a_proof_of_possession_names_the_application_and_ends_within_ten_minutes() {
    let world = World::new();
    let (credential, facts) = world.credential(KeyKind::Rsa2048).await;
    let request = ProofRequest {
        owner: credential,
        credential,
        references: facts.references.clone(),
        issuer: "object-1".into(),
        audience: "00000002-0000-0000-c000-000000000000".into(),
        skew_millis: 0,
    };
    let jwt = world.keys.proof(request).await.unwrap();
    let claims = claims(jwt.expose_secret(), &facts, "00000002-0000-0000-c000-000000000000");
    assert_eq!(claims["iss"], "object-1");
    assert!(claims["exp"].as_i64().unwrap() - claims["nbf"].as_i64().unwrap() <= 600);
}

#[tokio::test]
async fn an_import_takes_a_matching_pair_and_says_what_is_wrong_with_any_other() {
    let world = World::new();
    let now = world.clock.now().wall;
    let pem = |kind: &'static rcgen::SignatureAlgorithm| {
        let key = rcgen::KeyPair::generate_for(kind).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let (p256, p384) = (pem(&rcgen::PKCS_ECDSA_P256_SHA256), pem(&rcgen::PKCS_ECDSA_P384_SHA384));
    let rsa = pem(&rcgen::PKCS_RSA_SHA256);
    for (certificate, key) in [&p256, &rsa] {
        let made = world.keys.import(certificate.clone(), key.clone().into(), now).await.unwrap();
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }
    let late = now + Duration::from_secs(400 * 86_400);
    let early = now - Duration::from_secs(400 * 86_400);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let cases = [
        (p256.0.as_str(), rsa.1.as_str(), now, "does not belong"),
        (p256.0.as_str(), p256.1.as_str(), late, "expired"),
        (p256.0.as_str(), p256.1.as_str(), early, "not valid yet"),
        (p384.0.as_str(), p384.1.as_str(), now, "cannot be read"),
        (p256.0.as_str(), encrypted, now, "decrypt"),
        (p256.1.as_str(), p256.1.as_str(), now, "no CERTIFICATE block"),
        (p256.0.as_str(), p256.0.as_str(), now, "no PRIVATE KEY block"),
        ("hello", p256.1.as_str(), now, "CERTIFICATE"),
    ];
    for (certificate, key, at, expected) in cases {
        let refused = world.keys.import(certificate.to_owned(), key.to_owned().into(), at).await;
        let Err(KeyError::Invalid(text)) = refused else { panic!("{expected}: {refused:?}") };
        assert!(text.contains(expected), "{expected}: {text}");
    }
}
