//! What an assertion says (RFC 7523 section 3), and how it is put together.

use std::time::Duration;

use aws_lc_rs::rand::fill;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jeton_core::{
    Assertion, AssertionRequest, ProofRequest, SigningAlgorithm, Wall,
    profile::{IssuedAt, MAX_ASSERTION_LIFETIME_SECONDS},
};
use secrecy::SecretString;
use serde::{Serialize, Serializer};

use crate::{facts::base64url, key::ParsedKey};

/// Graph takes proofs of at most ten minutes.
const PROOF_LIFETIME_SECONDS: i64 = 300;

/// Of an assertion with an RSA key and a long audience; one that is longer grows.
const USUAL_BYTES: usize = 1_024;

/// Those of an assertion, and of a proof.
#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    jti: String,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
}

/// The algorithm, and the key by one of its references.
struct Header<'a>(SigningAlgorithm, (&'static str, &'a str));

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([("alg", self.0.as_str()), ("typ", "JWT"), self.1])
    }
}

/// Signs an assertion. None: the key cannot make this algorithm.
pub(crate) fn assertion(key: &ParsedKey, request: &AssertionRequest, now: Wall) -> Option<Assertion> {
    let profile = &request.profile;
    let (issued, expires) = times(request, now);
    let claims = Claims {
        aud: &profile.audience,
        iss: &request.client_id,
        sub: Some(&request.client_id),
        jti: jti()?,
        exp: expires,
        iat: matches!(profile.issued_at, IssuedAt::SecondsAgo(_)).then(|| issued.as_secs()),
        nbf: profile.not_before.then(|| issued.as_secs()),
    };
    let header = Header(profile.algorithm, request.references.header(profile.key_reference));
    let jwt = signed(key, &header, &claims)?;
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
    let claims = Claims {
        aud: &request.audience,
        iss: &request.issuer,
        sub: None,
        jti: jti()?,
        exp: theirs + PROOF_LIFETIME_SECONDS,
        iat: None,
        nbf: Some(theirs - 5),
    };
    signed(key, &Header(SigningAlgorithm::Rs256, ("x5t", &request.references.x5t)), &claims)
}

fn jti() -> Option<String> {
    let mut random = [0_u8; 16];
    fill(&mut random).ok()?;
    Some(base64url(&random))
}

fn signed(key: &ParsedKey, header: &Header<'_>, claims: &Claims<'_>) -> Option<SecretString> {
    let (mut jwt, mut json) = (String::with_capacity(USUAL_BYTES), Vec::with_capacity(USUAL_BYTES));
    serde_json::to_writer(&mut json, header).ok()?;
    URL_SAFE_NO_PAD.encode_string(&json, &mut jwt);
    jwt.push('.');
    json.clear();
    serde_json::to_writer(&mut json, claims).ok()?;
    URL_SAFE_NO_PAD.encode_string(&json, &mut jwt);
    let signature = key.sign(header.0, jwt.as_bytes())?;
    jwt.push('.');
    URL_SAFE_NO_PAD.encode_string(&signature, &mut jwt);
    Some(jwt.into())
}
