//! A certificate and its private key that were brought along. Every refusal says what is wrong and what to do; none repeats any
//! part of the key.

use jeton_core::{KeyKind, Wall};
use jeton_lifecycle::{KeyError, NewKey};
use secrecy::{ExposeSecret, SecretString};
use x509_parser::pem::Pem;
use zeroize::Zeroize;

use crate::{facts::facts, key::ParsedKey};

/// PEM files are small; whatever is larger is a mistake.
const MAX_PEM_BYTES: usize = 64 * 1024;

pub(crate) fn import(
    certificate_pem: &str,
    private_key_pem: &SecretString,
    now: Wall,
) -> Result<NewKey, KeyError> {
    let certificate = first_certificate(certificate_pem)?;
    let key = private_key(private_key_pem.expose_secret())?;
    let kind = kind_of(&key)?;
    let facts = facts(&key, kind, &certificate)?;
    belongs(&certificate, &key)?;
    if facts.not_after <= now {
        return invalid("the certificate has expired: bring one that is valid");
    }
    if facts.not_before > now {
        return invalid("the certificate is not valid yet: check its dates and this machine's clock");
    }
    Ok(NewKey { facts, private: key.to_pkcs8()? })
}

fn first_certificate(pem: &str) -> Result<Vec<u8>, KeyError> {
    let blocks = blocks(pem, "certificate")?;
    match blocks.into_iter().find(|block| block.label == "CERTIFICATE") {
        Some(block) => Ok(block.contents),
        None => invalid(
            "the certificate file has no CERTIFICATE block: pass the PEM file with the certificate, leaf first",
        ),
    }
}

fn private_key(pem: &str) -> Result<ParsedKey, KeyError> {
    if pem.contains("ENCRYPTED") {
        return invalid(
            "the private key is encrypted: decrypt it first, for example with `openssl pkcs8 -in key.pem -out plain.pem`",
        );
    }
    let mut blocks = blocks(pem, "private key")?;
    let block = blocks.iter().find(|block| block.label.ends_with("PRIVATE KEY"));
    let parsed = block.map(|block| ParsedKey::from_any(&block.contents));
    blocks.iter_mut().for_each(|block| block.contents.zeroize());
    match parsed {
        Some(Some(key)) => Ok(key),
        None => invalid(
            "the key file has no PRIVATE KEY block: pass the PEM file with the certificate's private key",
        ),
        Some(None) => invalid(
            "the private key cannot be read: expected RSA of 2048 bits or more, or ECDSA P-256, as PKCS#8, PKCS#1 or SEC1",
        ),
    }
}

fn blocks(pem: &str, what: &str) -> Result<Vec<Pem>, KeyError> {
    if pem.len() > MAX_PEM_BYTES {
        return invalid(&format!("the {what} file is larger than 64 KiB: that is no PEM of one {what}"));
    }
    let parsed: Result<Vec<_>, _> = Pem::iter_from_buffer(pem.as_bytes()).collect();
    parsed.or_else(|_| invalid(&format!("the {what} is not PEM: expected -----BEGIN ...----- and base64")))
}

fn kind_of(key: &ParsedKey) -> Result<KeyKind, KeyError> {
    match key.modulus_bits() {
        None => Ok(KeyKind::P256),
        Some(bits) if bits >= 3072 => Ok(KeyKind::Rsa3072),
        Some(bits) if bits >= 2048 => Ok(KeyKind::Rsa2048),
        Some(bits) => invalid(&format!("the RSA key has {bits} bits; at least 2048 are needed")),
    }
}

fn belongs(certificate: &[u8], key: &ParsedKey) -> Result<(), KeyError> {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    let same = parsed.is_ok_and(|(_, c)| c.public_key().subject_public_key.data.as_ref() == key.public());
    if same {
        Ok(())
    } else {
        invalid("the private key does not belong to the certificate: pass a pair that was made together")
    }
}

fn invalid<T>(message: &str) -> Result<T, KeyError> {
    Err(KeyError::Invalid(message.to_owned()))
}
