//! An issuer with keys, and a broker that trusts it.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jeton_access::{
    AccessSettings, Authenticated, BearerTokens, IssuerKind, IssuerPorts, IssuerSettings, Rejected,
    TokenTasks, Tokens,
    testing::{MemoryKeySet, MemoryTokenReview},
};
use jeton_core::{Clock, Wall};
use jeton_testkit::{ManualClock, START};
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://issuer.example/t";

/// A key of an issuer.
pub(crate) enum Key {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

static RSA: LazyLock<Key> = LazyLock::new(|| Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));

impl Key {
    pub(crate) fn rsa() -> &'static Self {
        &RSA
    }

    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    /// The public key as it is published.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let of = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(pair) => {
                let parts = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "kid": kid, "use": "sig", "n": of(&parts.n), "e": of(&parts.e)})
            }
            Self::P256(pair) | Self::P384(pair) => {
                let (curve, half) = if matches!(self, Self::P256(_)) { ("P-256", 32) } else { ("P-384", 48) };
                let (x, y) = pair.public_key().as_ref()[1..].split_at(half);
                json!({"kty": "EC", "kid": kid, "crv": curve, "x": of(x), "y": of(y)})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": of(pair.public_key().as_ref())})
            }
        }
    }

    fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let scheme: &dyn aws_lc_rs::signature::RsaEncoding =
                    if alg == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                pair.sign(scheme, &random, message, &mut signature).unwrap();
                signature
            }
            Self::P256(pair) | Self::P384(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with any header and any payload, well made or not.
    pub(crate) fn token(&self, header: &Value, payload: &str) -> String {
        let message = message(header, payload);
        let signature = self.sign(header["alg"].as_str().unwrap_or_default(), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A token that is signed with a secret.
pub(crate) fn hmac_token(secret: &[u8], header: &Value, payload: &str) -> String {
    let message = message(header, payload);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

pub(crate) fn message(header: &Value, payload: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(payload))
}

/// An issuer of this kind, before a test changes it.
pub(crate) fn issuer(kind: IssuerKind) -> IssuerSettings {
    let mut issuer: IssuerSettings =
        serde_json::from_value(json!({"kind": kind, "issuer": ISSUER, "audience": "jeton"})).unwrap();
    match kind {
        IssuerKind::Kubernetes => issuer.cluster = "east".into(),
        IssuerKind::Spiffe => issuer.trust_domain = "prod.example".into(),
        _ => {}
    }
    issuer
}

/// A broker that trusts one issuer.
pub(crate) struct World {
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) keys: MemoryKeySet,
    pub(crate) review: MemoryTokenReview,
    pub(crate) clock: ManualClock,
    pub(crate) key: Key,
    pub(crate) _tasks: TokenTasks,
}

impl World {
    /// With one key on P-256, called k1.
    pub(crate) fn new(issuer: IssuerSettings) -> Self {
        let (keys, review, clock, key) =
            (MemoryKeySet::default(), MemoryTokenReview::default(), ManualClock::default(), Key::p256());
        keys.publish(&[key.jwk("k1")]);
        let reviewer: Option<Arc<dyn jeton_access::TokenReview>> = match &issuer.token_review {
            Some(_) => Some(Arc::new(review.clone())),
            None => None,
        };
        let settings = AccessSettings { issuers: vec![issuer], ..AccessSettings::default() };
        assert_eq!(settings.validate(), []);
        let ports = vec![IssuerPorts { keys: Arc::new(keys.clone()), review: reviewer }];
        let (tokens, tasks) = Tokens::start(&settings, ports, Arc::new(clock.clone()));
        Self { tokens, keys, review, clock, key, _tasks: tasks }
    }

    pub(crate) fn oidc() -> Self {
        Self::new(issuer(IssuerKind::Oidc))
    }

    pub(crate) fn now(&self) -> Wall {
        self.clock.now().wall
    }

    /// What a right token says.
    pub(crate) fn claims(&self) -> Value {
        let now = self.now().as_secs();
        json!({"iss": ISSUER, "sub": "user-1", "aud": "jeton", "iat": now, "nbf": now, "exp": now + 600})
    }

    /// A right token, but for what is said here; null takes a claim away.
    pub(crate) fn token(&self, changes: &Value) -> String {
        let mut claims = self.claims();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        self.key.token(&json!({"alg": "ES256", "kid": "k1", "typ": "JWT"}), &claims.to_string())
    }

    pub(crate) async fn verify(&self, token: &str) -> Result<Authenticated, Rejected> {
        let verdict = self.tokens.verify(token).await;
        if let Err(rejected) = &verdict {
            // No reason repeats a token, or a part of one that could be used.
            let said = rejected.to_string();
            assert!(said.len() < 400, "{said}");
            for part in token.split('.').filter(|part| part.len() > 20) {
                assert!(!said.contains(&part[..20]), "{said}");
            }
        }
        verdict
    }

    /// The principal that a token proves.
    pub(crate) async fn principal(&self, token: &str) -> String {
        self.verify(token).await.unwrap().principal.to_string()
    }

    /// Why a token proves nothing, and will not.
    pub(crate) async fn refused(&self, token: &str) -> String {
        match self.verify(token).await {
            Err(Rejected::Credential(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    /// Why a token cannot be judged now.
    pub(crate) async fn undecided(&self, token: &str) -> String {
        match self.verify(token).await {
            Err(Rejected::Unavailable(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn remembers(&self, token: &str) -> bool {
        self.tokens.remembered(token, self.now()).is_some()
    }
}

#[test]
fn the_clock_begins_where_tests_think() {
    assert_eq!(ManualClock::default().now().wall, START);
}
