//! Assertions and proofs as an authority sees them, verified by a library that did not make them; and keys that are brought along.

use std::time::Duration;

use jeton_core::{
    AssertionError, Assertions, Clock, KeyKind, ProofRequest, SigningAlgorithm, Uid, Wall,
    profile::KeyReference,
};
use jeton_lifecycle::{KeyError, KeyRing};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::{World, claims};

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
async fn a_key_signs_only_what_it_can_and_a_lost_key_says_what_to_do() {
    let world = World::new();
    let credential = world.credential(KeyKind::P256).await;
    let wrong = world.keys.take(world.request(&credential, SigningAlgorithm::Ps256)).await;
    assert!(matches!(wrong, Err(AssertionError::Algorithm { algorithm: "PS256", .. })));
    let lost = (Uid::new(Wall::from_secs(9), [9; 10]), credential.1);
    let error = world.keys.take(world.request(&lost, SigningAlgorithm::Es256)).await.unwrap_err().to_string();
    assert!(error.contains("rotate the credential"), "{error}");
    assert_eq!(world.keys.stats().signed, 0, "what was not signed does not count");
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

#[tokio::test]
async fn keys_in_the_older_forms_are_taken_too() {
    let world = World::new();
    for (algorithm, label) in
        [(&rcgen::PKCS_RSA_SHA256, "RSA PRIVATE KEY"), (&rcgen::PKCS_ECDSA_P256_SHA256, "EC PRIVATE KEY")]
    {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let certificate = params.self_signed(&key).unwrap().pem();
        // PKCS#1 and SEC1 stand whole inside PKCS#8, as its last member (RFC 5208 section 5).
        let pkcs8 = key.serialize_der();
        let (_, info) = x509_parser::der_parser::parse_der(&pkcs8).unwrap();
        let inner = info.as_sequence().unwrap()[2].as_slice().unwrap();
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, inner);
        let pem = format!("-----BEGIN {label}-----\n{encoded}\n-----END {label}-----\n");
        world.keys.import(certificate, pem.into(), world.clock.now().wall).await.unwrap();
    }
}

#[tokio::test]
async fn without_iat_the_lifetime_counts_from_now_and_no_assertion_lives_beyond_ten_minutes() {
    let world = World::new();
    let credential = world.credential(KeyKind::P256).await;
    let mut request = world.request(&credential, SigningAlgorithm::Es256);
    let profile = jeton_core::profile::AssertionProfile {
        issued_at: jeton_core::profile::IssuedAt::Absent,
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
