//! A certificate authority and a server certificate for `dev --tls`. Callers trust the file that `endpoints.json` names.

use std::{fs, path::Path, sync::Arc};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::TLS13,
};

use crate::data_dir::write_private;

pub(super) const CA_FILE: &str = "grpc-ca.pem";
const CA_KEY: &str = "grpc-ca.key";
const SERVER_FILE: &str = "grpc-server.pem";
const SERVER_KEY: &str = "grpc-server.key";

/// The listener's TLS: the authority stays, the server's certificate is made anew at each start.
pub(super) fn server(data_dir: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let authority = authority(data_dir).context("the certificate authority of the gRPC listener")?;
    let key = KeyPair::generate()?;
    let certificate = leaf()?.signed_by(&key, &authority)?;
    write_private(&data_dir.join(SERVER_FILE), certificate.pem().as_bytes())?;
    write_private(&data_dir.join(SERVER_KEY), key.serialize_pem().as_bytes())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn authority(data_dir: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Jeton dev");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let (file, key_file) = (data_dir.join(CA_FILE), data_dir.join(CA_KEY));
    let key = if file.exists() {
        KeyPair::from_pem(&fs::read_to_string(&key_file)?)?
    } else {
        let key = KeyPair::generate()?;
        write_private(&key_file, key.serialize_pem().as_bytes())?;
        // Last: it is there only when its key is.
        write_private(&file, params.self_signed(&key)?.pem().as_bytes())?;
        key
    };
    Ok(Issuer::new(params, key))
}

fn leaf() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(["localhost", "127.0.0.1", "::1"].map(str::to_owned))?;
    params.distinguished_name.push(DnType::CommonName, "jeton dev");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
