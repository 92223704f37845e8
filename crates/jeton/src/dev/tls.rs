//! Certificates for `dev --tls` and `dev --mtls`: an authority, the server's, and those of two callers. Callers trust the file that
//! `endpoints.json` names; the broker lets in whom the same authority names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use jeton_core::Principal;
use jeton_server::door::{TlsSettings, TrustSettings};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::{data_dir::write_private, endpoints::TlsClient};

const CA_FILE: &str = "grpc-ca.pem";
const CA_KEY: &str = "grpc-ca.key";
const TRUST_DOMAIN: &str = "dev.example";
/// The callers: the demo workload, and one that nobody gave anything.
const CLIENTS: [(&str, bool); 2] = [("demo", true), ("stranger", false)];

/// What was made.
pub(super) struct Made {
    pub(super) settings: TlsSettings,
    pub(super) ca_file: PathBuf,
    pub(super) clients: Vec<TlsClient>,
}

/// The authority stays; the other certificates are made anew at each start. `mutual`: callers have certificates too.
pub(super) fn make(data_dir: &Path, mutual: bool) -> anyhow::Result<Made> {
    let authority = authority(data_dir).context("the certificate authority of the gRPC listener")?;
    let server = CertificateParams::new(["localhost", "127.0.0.1", "::1"].map(str::to_owned))?;
    let (cert, key) = leaf(data_dir, "server", server, ExtendedKeyUsagePurpose::ServerAuth, &authority)?;
    let shown = |path: &Path| path.display().to_string();
    let (cert_file, key_file) = (shown(&cert), shown(&key));
    let mut settings = TlsSettings { cert_file, key_file, ..TlsSettings::default() };
    let (ca_file, mut clients) = (data_dir.join(CA_FILE), vec![]);
    if mutual {
        settings.client_trust.push(TrustSettings {
            name: "dev".into(),
            bundle_file: shown(&ca_file),
            trust_domain: TRUST_DOMAIN.into(),
            names: None,
        });
        for (name, allowed) in CLIENTS {
            clients.push(client(data_dir, name, allowed, &authority)?);
        }
    }
    Ok(Made { settings, ca_file, clients })
}

fn client(
    data_dir: &Path,
    name: &str,
    allowed: bool,
    authority: &Issuer<'_, KeyPair>,
) -> anyhow::Result<TlsClient> {
    let principal: Principal = format!("spiffe://{TRUST_DOMAIN}/{name}").parse()?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(principal.as_str().try_into()?)];
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    let (cert_file, key_file) = leaf(data_dir, &format!("client-{name}"), params, usage, authority)?;
    Ok(TlsClient { cert_file, key_file, principal, allowed })
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

/// A certificate and its key, in files.
fn leaf(
    data_dir: &Path,
    name: &str,
    mut params: CertificateParams,
    usage: ExtendedKeyUsagePurpose,
    authority: &Issuer<'_, KeyPair>,
) -> anyhow::Result<(PathBuf, PathBuf)> {
    params.distinguished_name.push(DnType::CommonName, format!("jeton dev {name}"));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    let [cert_file, key_file] = ["pem", "key"].map(|end| data_dir.join(format!("grpc-{name}.{end}")));
    write_private(&cert_file, certificate.pem().as_bytes())?;
    write_private(&key_file, key.serialize_pem().as_bytes())?;
    Ok((cert_file, key_file))
}
