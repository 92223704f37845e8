//! Right tokens of every kind, and wrong ones of every sort.

use std::time::Duration;

use jeton_access::{BearerTokens, IssuerKind};
use serde_json::{Value, json};

use crate::world::{ISSUER, Key, World, hmac_token, issuer, message};

#[tokio::test(start_paused = true)]
async fn a_right_token_proves_its_subject_until_it_ends() {
    let world = World::oidc();
    let proven = world.verify(&world.token(&json!({}))).await.unwrap();
    assert_eq!(proven.principal.as_str(), "oidc://https://issuer.example/t/user-1");
    assert_eq!(proven.until, Some(world.now() + Duration::from_secs(630)));
}

#[tokio::test(start_paused = true)]
async fn a_key_of_each_kind_verifies_with_its_own_algorithm() {
    let world = World::oidc();
    let (p384, ed) = (Key::p384(), Key::ed());
    let mut pss = Key::rsa().jwk("pss");
    pss["alg"] = "PS256".into();
    world.keys.publish(&[Key::rsa().jwk("rsa"), pss, p384.jwk("p384"), ed.jwk("ed")]);
    for (key, kid, alg) in [
        (Key::rsa(), "rsa", "RS256"),
        (Key::rsa(), "pss", "PS256"),
        (&p384, "p384", "ES384"),
        (&ed, "ed", "EdDSA"),
    ] {
        let token = key.token(&json!({"alg": alg, "kid": kid}), &world.claims().to_string());
        assert!(world.verify(&token).await.is_ok(), "{alg}");
    }
    // The signature itself would be right: the key is an RSA key.
    let token = Key::rsa().token(&json!({"alg": "PS256", "kid": "rsa"}), &world.claims().to_string());
    assert!(world.refused(&token).await.contains("does not sign"));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_service_account_or_a_workload_proves_its_principal() {
    let world = World::new(issuer(IssuerKind::Kubernetes));
    let bound = json!({"namespace": "pay", "serviceaccount": {"name": "api", "uid": "u1"}});
    let subject = json!({"sub": "system:serviceaccount:pay:api", "aud": ["jeton"], "kubernetes.io": bound});
    assert_eq!(world.principal(&world.token(&subject)).await, "k8s://east/pay/api");
    let subject = json!({"sub": "system:serviceaccount:pay:admin", "kubernetes.io": bound});
    assert!(world.refused(&world.token(&subject)).await.contains("does not name"));

    let mut spiffe = issuer(IssuerKind::Spiffe);
    spiffe.issuer.clear();
    spiffe.jwks_file = "bundle.json".into();
    let world = World::new(spiffe);
    let mut key = world.key.jwk("k1");
    key["use"] = "jwt-svid".into();
    world.keys.publish(&[key]);
    let svid = |subject: &str| world.token(&json!({"iss": null, "iat": null, "nbf": null, "sub": subject}));
    assert_eq!(
        world.principal(&svid("spiffe://prod.example/pay/api")).await,
        "spiffe://prod.example/pay/api"
    );
    assert!(
        world.refused(&svid("spiffe://prod.example.evil/pay/api")).await.contains("no configured issuer")
    );
    assert!(world.refused(&svid("spiffe://prod.example/pay//api")).await.contains("SPIFFE ID"));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_claim_is_refused_with_its_reason() {
    let world = World::oidc();
    let now = world.now().as_secs();
    for (changes, reason) in [
        (json!({"iss": "https://issuer.example/t/"}), "no configured issuer"),
        (json!({"iss": "https://other.example"}), "no configured issuer"),
        (json!({"iss": ["https://issuer.example/t"]}), "no configured issuer"),
        (json!({"iss": null}), "no configured issuer"),
        (json!({"aud": "vault"}), "not for \"jeton\""),
        (json!({"aud": ["vault", "jeton"]}), "2 audiences"),
        (json!({"aud": []}), "not for \"jeton\""),
        (json!({"aud": null}), "no aud"),
        (json!({"sub": null}), "no sub"),
        (json!({"sub": ""}), "sub is not a text"),
        (json!({"sub": 5}), "no sub"),
        (json!({"exp": now - 30}), "expired 30 s ago"),
        (json!({"exp": "2000000000"}), "no exp, or a malformed one"),
        (json!({"exp": 1e300}), "exp"),
        (json!({"exp": -5}), "exp"),
        (json!({"exp": null}), "no exp"),
        (json!({"exp": [now + 60]}), "malformed"),
        (json!({"nbf": now + 31}), "not valid before 31 s"),
        (json!({"nbf": "0"}), "nbf is not a time"),
        (json!({"nbf": true}), "nbf is not a time"),
        (json!({"iat": now + 31}), "issued in the future"),
        (json!({"iat": "now"}), "iat is not a time"),
    ] {
        let said = world.refused(&world.token(&changes)).await;
        assert!(said.contains(reason), "{changes}: {reason:?} in {said:?}");
    }
    for changes in [
        json!({"exp": now - 29, "iat": now - 600, "nbf": null}),
        json!({"exp": now as f64 + 0.5}),
        json!({"nbf": now + 30, "iat": now + 30}),
    ] {
        assert!(world.verify(&world.token(&changes)).await.is_ok(), "{changes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_stands_twice_is_refused() {
    let world = World::oidc();
    let payload = world.claims().to_string();
    for (twice, reason) in
        [(r#""aud":"vault","#, "malformed"), (r#""exp":1,"#, "malformed"), (r#""iss":"x","#, "JSON")]
    {
        let payload = payload.replacen('{', &format!("{{{twice}"), 1);
        let token = world.key.token(&json!({"alg": "ES256", "kid": "k1"}), &payload);
        let said = world.refused(&token).await;
        assert!(said.contains(reason), "{twice} {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_signature_of_anybody_else_is_refused() {
    let world = World::oidc();
    let header = json!({"alg": "ES256", "kid": "k1"});
    let payload = world.claims().to_string();
    let other = Key::p256();
    assert!(world.refused(&other.token(&header, &payload)).await.contains("signature is not"));
    // What is in the header does not say how a token is verified.
    for (name, value) in [
        ("jwk", other.jwk("k1")),
        ("jku", "https://evil.example/keys".into()),
        ("x5u", "https://evil.example/chain".into()),
        ("x5c", json!(["MIIB"])),
    ] {
        let mut with_key = header.clone();
        with_key[name] = value;
        assert!(
            world.refused(&other.token(&with_key, &payload)).await.contains("signature is not"),
            "{name}"
        );
        assert!(world.verify(&world.key.token(&with_key, &payload)).await.is_ok(), "{name} is ignored");
    }
    let good = world.key.token(&header, &payload);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    for bad in [
        format!("{signed}."),
        format!("{signed}.{}", &signature[..signature.len() - 4]),
        format!("{signed}.{}", signature.replace(|_| true, "A")),
        format!("{}.{signature}", message(&header, &payload.replace("user-1", "admin"))),
    ] {
        assert!(world.refused(&bad).await.contains("signature is not"), "{bad}");
    }
    for bad in [format!("{good}="), format!("{signed}.***"), format!(" {good}"), format!("{good}\n")] {
        assert!(world.refused(&bad).await.contains("base64url"), "{bad}");
    }
    assert_eq!(world.keys.fetches(), 1, "a bad signature makes nobody ask the issuer");
}

#[tokio::test(start_paused = true)]
async fn neither_none_nor_a_secret_signs_a_token() {
    let world = World::oidc();
    let mut secret = Key::rsa().jwk("secret");
    (secret["kty"], secret["k"], secret["alg"]) = ("oct".into(), "c2VjcmV0".into(), "HS256".into());
    world.keys.publish(&[world.key.jwk("k1"), Key::rsa().jwk("rsa"), secret]);
    let payload = world.claims().to_string();
    for alg in ["none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512"] {
        for kid in ["k1", "rsa", "secret"] {
            let unsigned = format!("{}.", message(&json!({"alg": alg, "kid": kid}), &payload));
            assert!(world.refused(&unsigned).await.contains("ever accepted"), "{alg} {kid}");
        }
    }
    // The public key as everybody knows it, as the secret.
    let known = Key::rsa().jwk("rsa");
    for secret in [known.to_string(), known["n"].as_str().unwrap().to_owned(), "secret".into(), String::new()]
    {
        for kid in ["rsa", "secret"] {
            let token = hmac_token(secret.as_bytes(), &json!({"alg": "HS256", "kid": kid}), &payload);
            assert!(world.refused(&token).await.contains("ever accepted"));
            let token = hmac_token(secret.as_bytes(), &json!({"alg": "RS256", "kid": kid}), &payload);
            assert!(world.verify(&token).await.is_err());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_that_wants_more_than_we_understand_is_refused() {
    let world = World::oidc();
    let payload = world.claims().to_string();
    for (header, reason) in [
        (json!({"alg": "ES256", "kid": "k1", "crit": ["exp"]}), "crit"),
        (json!({"alg": "ES256", "kid": "k1", "crit": ["b64"], "b64": false}), "crit"),
        (json!({"alg": "ES256", "kid": "k1", "crit": null}), "crit"),
        (json!({"alg": "ES256", "kid": "k1", "typ": "logout+jwt"}), "typ"),
        (json!({"alg": "ES256", "kid": 1}), "header"),
        (json!({"alg": ["ES256"], "kid": "k1"}), "header"),
        (json!({"kid": "k1"}), "header"),
    ] {
        let said = world.refused(&world.key.token(&header, &payload)).await;
        assert!(said.contains(reason), "{header} {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_too_long_is_neither_read_nor_remembered() {
    let world = World::oidc();
    let long = world.token(&json!({"filling": "x".repeat(16 << 10)}));
    assert!(world.refused(&long).await.contains("at most 16384"));
    assert!(world.tokens.remembered(&long, world.now()).is_none());
    assert!(world.verify(&world.token(&json!({"filling": "x".repeat(8 << 10)}))).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_token_is_remembered_for_a_minute_and_verified_again_after_it() {
    let world = World::oidc();
    let token = world.token(&json!({}));
    assert!(!world.remembers(&token));
    let proven = world.verify(&token).await.unwrap();
    assert_eq!(world.tokens.remembered(&token, world.now()), Some(proven));
    assert!(!world.remembers(&world.token(&json!({"jti": "another"}))));
    world.clock.advance(Duration::from_secs(59)).await;
    assert!(world.remembers(&token));
    world.clock.step_wall(-60_000);
    assert!(!world.remembers(&token), "a clock that was set back prolongs nothing");
    world.clock.step_wall(60_000);
    world.clock.advance(Duration::from_secs(1)).await;
    assert!(!world.remembers(&token));
    assert!(world.verify(&token).await.is_ok() && world.remembers(&token));
    world.clock.suspend(Duration::from_secs(600));
    assert!(!world.remembers(&token));
    assert!(world.refused(&token).await.contains("expired"));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_remembered_no_longer_than_it_lives() {
    let world = World::oidc();
    let token = world.token(&json!({"exp": world.now().as_secs() + 10}));
    assert!(world.verify(&token).await.is_ok() && world.remembers(&token));
    world.clock.advance(Duration::from_secs(10)).await;
    assert!(!world.remembers(&token));
    assert!(world.verify(&token).await.is_ok(), "the leeway is for the issuer's clock");
    assert!(!world.remembers(&token));
    world.clock.advance(Duration::from_secs(30)).await;
    assert!(world.refused(&token).await.contains("expired"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_remembered_as_a_yes() {
    let world = World::oidc();
    let token = world.token(&json!({"aud": "vault"}));
    assert!(world.verify(&token).await.is_err() && !world.remembers(&token));
}

#[tokio::test(start_paused = true)]
async fn debug_shows_neither_tokens_nor_keys() {
    let world = World::oidc();
    let token = world.token(&json!({}));
    world.verify(&token).await.unwrap();
    let shown = format!("{:?}", world.tokens);
    let key: Value = world.key.jwk("k1");
    assert!(shown.contains(ISSUER) && !shown.contains(key["x"].as_str().unwrap()), "{shown}");
}
