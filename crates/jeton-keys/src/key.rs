//! A parsed private key, ready to sign.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
    },
};
use jeton_core::{KeyKind, SigningAlgorithm};
use jeton_lifecycle::KeyError;
use secrecy::SecretSlice;

pub(crate) enum ParsedKey {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

impl ParsedKey {
    pub(crate) fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Failed("the random generator or the key check failed".into());
        match kind {
            KeyKind::Rsa2048 => RsaKeyPair::generate(KeySize::Rsa2048).map(Self::Rsa).map_err(failed),
            KeyKind::Rsa3072 => RsaKeyPair::generate(KeySize::Rsa3072).map(Self::Rsa).map_err(failed),
            KeyKind::P256 => {
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Self::P256).map_err(failed)
            }
        }
    }

    /// From PKCS#8 as it is stored.
    pub(crate) fn from_pkcs8(der: &[u8]) -> Option<Self> {
        RsaKeyPair::from_pkcs8(der)
            .map(Self::Rsa)
            .or_else(|_| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(Self::P256))
            .ok()
    }

    /// From any of the forms in which keys are brought along: PKCS#8, PKCS#1, SEC1.
    pub(crate) fn from_any(der: &[u8]) -> Option<Self> {
        Self::from_pkcs8(der).or_else(|| RsaKeyPair::from_der(der).map(Self::Rsa).ok()).or_else(|| {
            EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(Self::P256).ok()
        })
    }

    pub(crate) fn to_pkcs8(&self) -> Result<SecretSlice<u8>, KeyError> {
        let failed = |_| KeyError::Failed("the key cannot be encoded as PKCS#8".into());
        match self {
            Self::Rsa(key) => {
                AsDer::<Pkcs8V1Der<'_>>::as_der(key).map(|der| der.as_ref().to_vec().into()).map_err(failed)
            }
            Self::P256(key) => key.to_pkcs8v1().map(|der| der.as_ref().to_vec().into()).map_err(failed),
        }
    }

    /// RSA: RSAPublicKey (PKCS#1) in DER; P-256: the uncompressed point. As it stands in a certificate.
    pub(crate) fn public(&self) -> &[u8] {
        match self {
            Self::Rsa(key) => key.public_key().as_ref(),
            Self::P256(key) => key.public_key().as_ref(),
        }
    }

    /// RSA: modulus and exponent, big endian.
    pub(crate) fn rsa_numbers(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        match self {
            Self::Rsa(key) => {
                let public = key.public_key();
                Some((
                    public.modulus().big_endian_without_leading_zero().to_vec(),
                    public.exponent().big_endian_without_leading_zero().to_vec(),
                ))
            }
            Self::P256(_) => None,
        }
    }

    pub(crate) fn modulus_bits(&self) -> Option<usize> {
        match self {
            Self::Rsa(key) => Some(key.public_modulus_len() * 8),
            Self::P256(_) => None,
        }
    }

    /// A JWS signature (RFC 7518 section 3); none if the key cannot make it.
    pub(crate) fn sign(&self, algorithm: SigningAlgorithm, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match (self, algorithm) {
            (Self::Rsa(key), SigningAlgorithm::Ps256 | SigningAlgorithm::Rs256) => {
                let padding =
                    if algorithm == SigningAlgorithm::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            (Self::P256(key), SigningAlgorithm::Es256) => {
                Some(key.sign(&random, message).ok()?.as_ref().to_vec())
            }
            _ => None,
        }
    }
}
