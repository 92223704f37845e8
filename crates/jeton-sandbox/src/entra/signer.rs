//! The key that signs the tokens of both tenants.

use std::{io, path::Path};

use aws_lc_rs::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, digest},
    signature::{KeyPair as _, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::{files::kept, jwt::base64url};

pub(crate) struct Signer {
    signing: EncodingKey,
    verifying: DecodingKey,
    kid: String,
    jwk: Value,
}

impl Signer {
    /// The key of a data directory; made and kept if there is none.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let pem = kept(&data_dir.join("signing.key"), || {
            KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).map(|k| k.serialize_pem()).unwrap_or_default()
        })?;
        let pair = KeyPair::from_pem(&pem).map_err(io::Error::other)?;
        let certificate = kept(&data_dir.join("signing.der.b64"), || {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "Jeton sandbox signing");
            params.self_signed(&pair).map(|c| STANDARD.encode(c.der())).unwrap_or_default()
        })?;
        let der = STANDARD.decode(&certificate).map_err(io::Error::other)?;
        let x5t = base64url(digest(&SHA1_FOR_LEGACY_USE_ONLY, &der).as_ref());
        let rsa = RsaKeyPair::from_pkcs8(pair.serialized_der()).map_err(io::Error::other)?;
        let number = |n: &[u8]| base64url(n);
        let (n, e) = (rsa.public_key().modulus(), rsa.public_key().exponent());
        let jwk = json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": x5t, "x5t": x5t, "x5c": [certificate],
            "n": number(n.big_endian_without_leading_zero()), "e": number(e.big_endian_without_leading_zero()),
        });
        Ok(Self {
            signing: EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(io::Error::other)?,
            verifying: DecodingKey::from_rsa_components(
                jwk["n"].as_str().unwrap_or_default(),
                jwk["e"].as_str().unwrap_or_default(),
            )
            .map_err(io::Error::other)?,
            kid: x5t,
            jwk,
        })
    }

    pub(crate) fn sign(&self, claims: &Value, kind: &str) -> Option<String> {
        let mut header = Header::new(Algorithm::RS256);
        header.typ = Some(kind.to_owned());
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.signing).ok()
    }

    pub(crate) fn jwks(&self, issuer: &str) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["issuer"] = issuer.into();
        json!({"keys": [jwk]})
    }

    /// The claims of a token that we signed, for this issuer and audience. Whether it expired is for the tenant's clock to say.
    pub(crate) fn claims(&self, token: &str, issuer: &str, audience: &str) -> Option<Value> {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&[audience]);
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.validate_exp = false;
        jsonwebtoken::decode::<Value>(token, &self.verifying, &validation).ok().map(|data| data.claims)
    }
}
