//! The key that signs heads: Ed25519, made by the broker, sealed in its store.

use std::fmt;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::SecretSlice;

use crate::chain::hex;

/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const LABEL: &str = "PUBLIC KEY";

/// Signs heads.
pub struct AuditKey {
    pair: Ed25519KeyPair,
    public: AuditPublicKey,
}

/// Verifies heads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPublicKey([u8; 32]);

/// A text or bytes that are no such key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The private key.
    #[error("the key of the audit log is not readable, or cannot be made")]
    Private,
    /// The public key.
    #[error("expected an Ed25519 public key in PEM, as `jeton audit key` prints it")]
    Public,
}

impl AuditKey {
    /// Makes a key.
    pub fn generate() -> Result<Self, KeyError> {
        Self::from_pair(Ed25519KeyPair::generate().map_err(|_| KeyError::Private)?)
    }

    /// Makes a key, in the form in which it is kept (PKCS#8, DER).
    pub fn generate_pkcs8() -> Result<SecretSlice<u8>, KeyError> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Private)?;
        Ok(made.as_ref().to_vec().into())
    }

    /// Reads a key that was kept.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Self::from_pair(Ed25519KeyPair::from_pkcs8(der).map_err(|_| KeyError::Private)?)
    }

    fn from_pair(pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Private)?;
        Ok(Self { pair, public: AuditPublicKey(public) })
    }

    /// What verifies its signatures.
    pub fn public(&self) -> &AuditPublicKey {
        &self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditKey").field("public", &self.public.id()).finish_non_exhaustive()
    }
}

impl AuditPublicKey {
    /// The first 64 bits of its SHA-256, in hexadecimal.
    pub fn id(&self) -> String {
        hex(&digest(&SHA256, &self.0).as_ref()[..8])
    }

    /// SubjectPublicKeyInfo (RFC 8410) in PEM.
    pub fn to_pem(&self) -> String {
        jeton_core::pem(LABEL, &STANDARD.encode([SPKI.as_slice(), &self.0].concat()))
    }

    /// The same, read.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let base64 = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----").ok_or(KeyError::Public)?;
        let base64 = base64.strip_suffix("-----END PUBLIC KEY-----").ok_or(KeyError::Public)?;
        let der =
            STANDARD.decode(base64.split_whitespace().collect::<String>()).map_err(|_| KeyError::Public)?;
        let bytes = der.strip_prefix(&SPKI).ok_or(KeyError::Public)?;
        bytes.try_into().map(Self).map_err(|_| KeyError::Public)
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_key_that_was_kept_signs_as_before_and_does_not_show_itself() {
        let kept = AuditKey::generate_pkcs8().unwrap();
        let [one, two] = [(); 2].map(|()| AuditKey::from_pkcs8(kept.expose_secret()).unwrap());
        assert!(
            one.public().verifies(b"m", &two.sign(b"m")) && !one.public().verifies(b"n", &two.sign(b"m"))
        );
        assert_eq!(AuditPublicKey::from_pem(&one.public().to_pem()).as_ref(), Ok(two.public()));
        assert!(
            AuditPublicKey::from_pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----").is_err()
        );
        let shown = format!("{one:?}");
        assert!(shown.len() < 80 && shown.contains(&one.public().id()), "{shown}");
    }
}
