//! What an assertion says (RFC 7523 section 3), and how it is put together.

use std::time::Duration;

use aws_lc_rs::rand::fill;
use jeton_core::{
    Assertion, AssertionRequest, ProofRequest, SigningAlgorithm, Wall,
    profile::{IssuedAt, MAX_ASSERTION_LIFETIME_SECONDS},
};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::{facts::base64url, key::ParsedKey};

/// Graph takes proofs of at most ten minutes.
const PROOF_LIFETIME_SECONDS: i64 = 300;

/// Signs an assertion. None: the key cannot make this algorithm.
pub(crate) fn assertion(key: &ParsedKey, request: &AssertionRequest, now: Wall) -> Option<Assertion> {
    let profile = &request.profile;
    let (issued, expires) = times(request, now);
    let mut claims = json!({
        "aud": profile.audience, "iss": &*request.client_id, "sub": &*request.client_id, "jti": jti()?, "exp": expires,
    });
    if matches!(profile.issued_at, IssuedAt::SecondsAgo(_)) {
        claims["iat"] = issued.as_secs().into();
    }
    if profile.not_before {
        claims["nbf"] = issued.as_secs().into();
    }
    let header = header(profile.algorithm, request.references.header(profile.key_reference));
    let jwt = signed(key, profile.algorithm, &header, &claims)?;
    Some(Assertion { jwt, expires_at: expires_at(request, now) })
}

/// When an assertion that is signed now expires, by our clock.
pub(crate) fn expires_at(request: &AssertionRequest, now: Wall) -> Wall {
    Wall::from_secs(times(request, now).1).shifted(-request.skew_millis)
}

/// `iat` and `exp`, by the authority's clock.
fn times(request: &AssertionRequest, now: Wall) -> (Wall, i64) {
    let theirs = now.shifted(request.skew_millis);
    let issued = match request.profile.issued_at {
        IssuedAt::Absent => theirs,
        IssuedAt::SecondsAgo(ago) => theirs - Duration::from_secs(u64::from(ago)),
    };
    let lifetime = i64::from(request.profile.lifetime_seconds.min(MAX_ASSERTION_LIFETIME_SECONDS));
    (issued, issued.as_secs() + lifetime)
}

/// Signs a proof of possession. None: the key is no RSA key.
pub(crate) fn proof(key: &ParsedKey, request: &ProofRequest, now: Wall) -> Option<SecretString> {
    let theirs = now.shifted(request.skew_millis).as_secs();
    let claims = json!({
        "aud": &*request.audience, "iss": &*request.issuer, "jti": jti()?, "nbf": theirs - 5, "exp": theirs + PROOF_LIFETIME_SECONDS,
    });
    let header = header(SigningAlgorithm::Rs256, ("x5t", &request.references.x5t));
    signed(key, SigningAlgorithm::Rs256, &header, &claims)
}

fn header(algorithm: SigningAlgorithm, (name, value): (&str, &str)) -> Value {
    json!({"alg": algorithm.as_str(), "typ": "JWT", name: value})
}

fn jti() -> Option<String> {
    let mut random = [0_u8; 16];
    fill(&mut random).ok()?;
    Some(base64url(&random))
}

fn signed(
    key: &ParsedKey,
    algorithm: SigningAlgorithm,
    header: &Value,
    claims: &Value,
) -> Option<SecretString> {
    let message =
        format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let signature = key.sign(algorithm, message.as_bytes())?;
    Some(format!("{message}.{}", base64url(&signature)).into())
}
