//! What may be known of a key and its certificate: references, public JWK, validity.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jeton_core::{CertificateFacts, KeyKind, KeyReferences, Wall};
use jeton_lifecycle::KeyError;
use serde_json::json;

use crate::key::ParsedKey;

pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The facts of a certificate whose key is given.
pub(crate) fn facts(
    key: &ParsedKey,
    kind: KeyKind,
    certificate: &[u8],
) -> Result<CertificateFacts, KeyError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| KeyError::Invalid("the certificate is not a readable X.509 certificate".into()))?;
    let (kid, jwk) = jwk(key);
    Ok(CertificateFacts {
        key: kind,
        references: KeyReferences {
            // x5t is SHA-1 by its definition (RFC 7515 section 4.1.7): a name, not a proof.
            x5t: base64url(digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate).as_ref()).into(),
            x5t_s256: base64url(digest(&SHA256, certificate).as_ref()).into(),
            kid: kid.into(),
        },
        certificate: STANDARD.encode(certificate).into(),
        jwk: jwk.into(),
        not_before: Wall::from_secs(parsed.validity().not_before.timestamp()),
        not_after: Wall::from_secs(parsed.validity().not_after.timestamp()),
    })
}

/// The JWK thumbprint (RFC 7638) and the public JWK that carries it as `kid`. Registration puts the profile's `alg` in place of
/// the one here; the thumbprint does not cover it.
fn jwk(key: &ParsedKey) -> (String, String) {
    let (required, mut jwk, algorithm) = match key.rsa_numbers() {
        Some((n, e)) => {
            let (n, e) = (base64url(&n), base64url(&e));
            (
                format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
                json!({"kty": "RSA", "n": n, "e": e}),
                "PS256",
            )
        }
        None => {
            // The uncompressed point: a format byte, then x and y of 32 bytes each.
            let (x, y) = key.public().get(1..).unwrap_or_default().split_at(32);
            let (x, y) = (base64url(x), base64url(y));
            let required = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
            (required, json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}), "ES256")
        }
    };
    let kid = base64url(digest(&SHA256, required.as_bytes()).as_ref());
    jwk["kid"] = kid.as_str().into();
    jwk["use"] = "sig".into();
    jwk["alg"] = algorithm.into();
    (kid, jwk.to_string())
}
