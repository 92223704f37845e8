//! JWTs: reading those of others with all their oddities, checking signatures, and signing our own.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::dates::LAST_SECOND;

/// A JWT as it came.
pub(crate) struct Received {
    pub(crate) header: Value,
    pub(crate) claims: Value,
    /// What was signed: the segments as received, padding and all.
    message: String,
    signature: Vec<u8>,
}

impl Received {
    /// Reads the three segments. Real clients pad them, or use the standard alphabet, or append a line's end.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let [header, claims, signature]: [&str; 3] = text.split('.').collect::<Vec<_>>().try_into().ok()?;
        Some(Self {
            header: serde_json::from_slice(&decode(header)?).ok().filter(Value::is_object)?,
            claims: serde_json::from_slice(&decode(claims)?).ok().filter(Value::is_object)?,
            message: format!("{header}.{claims}"),
            signature: decode(signature)?,
        })
    }

    pub(crate) fn algorithm(&self) -> &str {
        self.header["alg"].as_str().unwrap_or_default()
    }

    pub(crate) fn text(&self, claim: &str) -> &str {
        self.claims[claim].as_str().unwrap_or_default()
    }

    /// NumericDate as an integer, a float or a numeric string.
    pub(crate) fn time(&self, claim: &str) -> Option<i64> {
        match &self.claims[claim] {
            Value::String(text) => within(text.trim().parse().ok()?),
            value => numeric_date(value),
        }
    }

    /// Checks the signature with the public key of a certificate.
    pub(crate) fn verifies_with_certificate(&self, der: &[u8]) -> bool {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else { return false };
        let key = &certificate.public_key().subject_public_key.data;
        let Some(parameters) = rsa_parameters(self.algorithm()) else { return false };
        UnparsedPublicKey::new(parameters, key).verify(self.message.as_bytes(), &self.signature).is_ok()
    }

    /// Checks the signature with a JWK (RFC 7517).
    pub(crate) fn verifies_with_jwk(&self, jwk: &Value) -> bool {
        let part = |name: &str| jwk[name].as_str().and_then(decode);
        let message = self.message.as_bytes();
        match (jwk["kty"].as_str(), self.algorithm()) {
            (Some("RSA"), algorithm) => {
                let (Some(n), Some(e), Some(parameters)) = (part("n"), part("e"), rsa_parameters(algorithm))
                else {
                    return false;
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, &self.signature).is_ok()
            }
            (Some("EC"), "ES256") if jwk["crv"] == "P-256" => {
                let (Some(x), Some(y)) = (part("x"), part("y")) else { return false };
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, &self.signature)
                    .is_ok()
            }
            _ => false,
        }
    }
}

/// NumericDate (RFC 7519 section 2): a number of seconds, whole or not.
pub(crate) fn numeric_date(value: &Value) -> Option<i64> {
    within(value.as_f64()?)
}

/// Whole seconds. Further than the calendar reaches is as far as it reaches, so that no sum of dates overflows.
fn within(seconds: f64) -> Option<i64> {
    seconds.is_finite().then_some((seconds as i64).clamp(-LAST_SECOND, LAST_SECOND))
}

fn rsa_parameters(algorithm: &str) -> Option<&'static RsaParameters> {
    match algorithm {
        "PS256" => Some(&RSA_PSS_2048_8192_SHA256),
        "RS256" => Some(&RSA_PKCS1_2048_8192_SHA256),
        _ => None,
    }
}

/// Base64url without padding, whatever form it came in.
pub(crate) fn normalized(text: &str) -> String {
    text.trim_end_matches('=').replace('+', "-").replace('/', "_")
}

pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(normalized(text)).ok()
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_numeric_date_is_whole_seconds_within_the_calendar() {
        for (value, expected) in [
            (json!(12), Some(12)),
            (json!(12.9), Some(12)),
            (json!(i64::MAX), Some(LAST_SECOND)),
            (json!(i64::MIN), Some(-LAST_SECOND)),
            (json!(1e300), Some(LAST_SECOND)),
            (json!("12"), None),
            (json!(null), None),
        ] {
            assert_eq!(numeric_date(&value), expected, "{value}");
        }
    }

    #[test]
    fn an_endless_time_is_none() {
        let claims = json!({"good": "12.9", "endless": "inf", "nothing": "NaN"});
        let jwt = Received { header: json!({}), claims, message: String::new(), signature: vec![] };
        assert_eq!((jwt.time("good"), jwt.time("endless"), jwt.time("nothing")), (Some(12), None, None));
    }
}
