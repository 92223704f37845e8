//! A door's certificates and a client's, of one authority that lives as long as the process.

use std::sync::Arc;

use jeton_access::Naming;
use jeton_server::door::{Bundle, ClientCertificates, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, string::Ia5String,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};

/// Whom the client's certificate names.
pub const CLIENT: &str = "spiffe://bench.example/caller";
const TRUST_DOMAIN: &str = "bench.example";

/// The two sides. `mutual`: the client has a certificate, and the door asks for it.
pub fn sides(mutual: bool) -> (Arc<Tls>, Arc<ClientConfig>) {
    let authority = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = params.self_signed(&authority).expect("a certificate").der().clone();
    let issuer = Issuer::new(params, authority);
    let asks = if mutual { ClientCertificates::Required } else { ClientCertificates::Ignored };
    let tls = Tls::new(asks, usize::from(mutual));
    let name = SanType::DnsName(ia5("localhost"));
    let (certificate, key) = leaf(&issuer, name, ExtendedKeyUsagePurpose::ServerAuth);
    tls.show(vec![certificate], key).expect("it is usable");
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("it is usable");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let mut client = if mutual {
        let naming = Naming::Spiffe(TRUST_DOMAIN.parse().expect("a trust domain"));
        tls.trust(0, Some(Bundle::new("bench", naming, [root]).expect("it is usable")));
        let (certificate, key) =
            leaf(&issuer, SanType::URI(ia5(CLIENT)), ExtendedKeyUsagePurpose::ClientAuth);
        builder.with_client_auth_cert(vec![certificate], key).expect("it is usable")
    } else {
        builder.with_no_client_auth()
    };
    client.alpn_protocols = vec![b"h2".to_vec()];
    (tls, Arc::new(client))
}

fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    name: SanType,
    usage: ExtendedKeyUsagePurpose,
) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![name];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    let certificate = params.signed_by(&key, issuer).expect("a certificate").der().clone();
    (certificate, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

fn ia5(text: &str) -> Ia5String {
    text.try_into().expect("ASCII")
}
