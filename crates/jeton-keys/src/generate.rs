//! A new key with a self-signed certificate. The certificate only carries the public key to the authority; nobody builds a chain
//! on it.

use aws_lc_rs::rand::fill;
use jeton_core::Wall;
use jeton_lifecycle::{KeyError, KeyRequest, NewKey};
use rcgen::{CertificateParams, DnType, KeyPair, KeyUsagePurpose, SerialNumber};
use secrecy::ExposeSecret;

use crate::{facts::facts, key::ParsedKey};

pub(crate) fn generate(request: &KeyRequest) -> Result<NewKey, KeyError> {
    let key = ParsedKey::generate(request.kind)?;
    let private = key.to_pkcs8()?;
    let certificate =
        self_signed(private.expose_secret(), request).map_err(|e| KeyError::Failed(e.to_string()))?;
    let facts = facts(&key, request.kind, &certificate)?;
    Ok(NewKey { facts, private })
}

fn self_signed(private: &[u8], request: &KeyRequest) -> Result<Vec<u8>, rcgen::Error> {
    let pair = KeyPair::try_from(private)?;
    let mut serial = [0_u8; 16];
    fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    // A serial number is positive (RFC 5280 section 4.1.2.2).
    serial[0] &= 0x7f;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, request.subject.as_str());
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = date(request.not_before)?;
    params.not_after = date(request.not_before + request.valid_for)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params.self_signed(&pair)?.der().to_vec())
}

fn date(at: Wall) -> Result<time::OffsetDateTime, rcgen::Error> {
    time::OffsetDateTime::from_unix_timestamp(at.as_secs()).map_err(|_| rcgen::Error::Time)
}
