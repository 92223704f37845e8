//! The sandbox's own certificate authority, one a data directory, and the certificate of its listeners.

use std::{io, path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::files::{kept, write_private};

pub(crate) const CA_FILE: &str = "sandbox-ca.pem";

/// The TLS settings of every listener. The leaf is made anew at each start; the authority stays.
pub(crate) fn server_config(data_dir: &Path) -> io::Result<Arc<ServerConfig>> {
    let key_pem = kept(&data_dir.join("sandbox-ca.key"), || {
        KeyPair::generate().map(|k| k.serialize_pem()).unwrap_or_default()
    })?;
    let ca_key = KeyPair::from_pem(&key_pem).map_err(io::Error::other)?;
    let params = authority();
    if !data_dir.join(CA_FILE).exists() {
        let certificate = params.self_signed(&ca_key).map_err(io::Error::other)?;
        write_private(&data_dir.join(CA_FILE), certificate.pem().as_bytes())?;
    }
    let leaf_key = KeyPair::generate().map_err(io::Error::other)?;
    let leaf = leaf()
        .and_then(|leaf| leaf.signed_by(&leaf_key, &Issuer::new(params, ca_key)))
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key))
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Jeton sandbox authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf() -> Result<CertificateParams, rcgen::Error> {
    let names = ["localhost", "127.0.0.1", "*.vault.localhost", "vault.localhost"].map(str::to_owned);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Jeton sandbox");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
