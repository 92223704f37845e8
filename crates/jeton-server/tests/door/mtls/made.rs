//! Certificates by the command line of OpenSSL, and peers that show them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use jeton_access::{NameKind, Naming};
use jeton_server::door::{Bundle, ClientCertificates, Tls};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::Peer;

/// The usual caller.
pub(super) const API: &str = "URI:spiffe://prod.example/api";

/// A folder with authorities and what they signed.
pub(super) struct Made {
    folder: TempDir,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// What a certificate is to be.
pub(super) struct Wanted<'a> {
    pub(super) names: &'a str,
    pub(super) subject: &'a str,
    pub(super) usage: &'a str,
    /// From when to when, as OpenSSL writes it.
    pub(super) from: &'a str,
    pub(super) until: &'a str,
    pub(super) more: &'a str,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        let (from, until) = ("20200101000000Z", "20991231235959Z");
        Self {
            names: API,
            subject: "/CN=api",
            usage: "clientAuth",
            from,
            until,
            more: "keyUsage=critical,digitalSignature",
        }
    }
}

impl Made {
    pub(super) fn new() -> Self {
        let made = Self { folder: tempfile::tempdir().unwrap() };
        made.authority("ca");
        made
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An authority of its own.
    pub(super) fn authority(&self, name: &str) -> PathBuf {
        let text = "[req]\ndistinguished_name=dn\nprompt=no\nx509_extensions=ca\n[dn]\nCN=Authority\n[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";
        fs::write(self.path("ca.cnf"), text).unwrap();
        let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "3650",
            "-config",
            "ca.cnf",
            "-keyout",
            &key,
            "-out",
            &cert,
        ]);
        fs::create_dir_all(self.path(&format!("{name}.db"))).unwrap();
        fs::write(self.path(&format!("{name}.db/index.txt")), "").unwrap();
        fs::write(self.path(&format!("{name}.db/index.txt.attr")), "unique_subject = no\n").unwrap();
        self.path(&cert)
    }

    /// A certificate of an authority.
    pub(super) fn signed(&self, name: &str, by: &str, wanted: &Wanted<'_>) -> Pair {
        let names = if wanted.names.is_empty() {
            String::new()
        } else {
            format!("subjectAltName={}\n", wanted.names)
        };
        let usage = if wanted.usage.is_empty() {
            String::new()
        } else {
            format!("extendedKeyUsage={}\n", wanted.usage)
        };
        let text = format!(
            "[ca]\ndefault_ca=one\n[one]\ndatabase={by}.db/index.txt\nnew_certs_dir={by}.db\ncertificate={by}.pem\nprivate_key={by}.key\nrand_serial=yes\ndefault_md=sha256\npolicy=any\nx509_extensions=ext\n[any]\norganizationName=optional\ncommonName=optional\n[ext]\n{names}{usage}{}\n",
            wanted.more
        );
        fs::write(self.path("leaf.cnf"), text).unwrap();
        let (key, csr, cert) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        self.openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            wanted.subject,
            "-keyout",
            &key,
            "-out",
            &csr,
        ]);
        self.openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            "leaf.cnf",
            "-startdate",
            wanted.from,
            "-enddate",
            wanted.until,
            "-in",
            &csr,
            "-out",
            &cert,
        ]);
        Pair { cert: self.path(&cert), key: self.path(&key) }
    }

    /// A certificate that nobody signed but its holder.
    pub(super) fn self_signed(&self, name: &str) -> Pair {
        let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
        let names = format!("subjectAltName={API}");
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "9",
            "-subj",
            "/CN=api",
            "-addext",
            &names,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-addext",
            "keyUsage=critical,digitalSignature",
            "-keyout",
            &key,
            "-out",
            &cert,
        ]);
        Pair { cert: self.path(&cert), key: self.path(&key) }
    }

    /// The server's.
    pub(super) fn server(&self, name: &str) -> Pair {
        self.signed(name, "ca", &Wanted { names: "DNS:localhost", usage: "serverAuth", ..Wanted::default() })
    }

    fn openssl(&self, arguments: &[&str]) {
        let done = Command::new("openssl").args(arguments).current_dir(self.folder.path()).output();
        let done = done.expect("openssl is installed");
        assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Pair {
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.cert)
    }

    pub(super) fn secret(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key).unwrap()
    }
}

pub(super) fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().collect::<Result<_, _>>().unwrap()
}

pub(super) fn spiffe(domain: &str) -> Naming {
    Naming::Spiffe(domain.parse().unwrap())
}

pub(super) fn x509(kind: NameKind) -> Naming {
    Naming::X509 { bundle: "corp".into(), kind }
}

/// A listener's TLS that shows the server's certificate and trusts these.
pub(super) fn trusting(made: &Made, clients: ClientCertificates, trust: &[(&Path, Naming)]) -> Arc<Tls> {
    let tls = Tls::new(clients, trust.len());
    let server = made.server("server");
    tls.show(server.chain(), server.secret()).unwrap();
    for (place, (file, naming)) in trust.iter().enumerate() {
        tls.trust(place, Some(Bundle::new("corp", naming.clone(), certificates(file)).unwrap()));
    }
    tls
}

/// Whether the server's certificates are looked at at all is the client's business, and tested elsewhere.
pub(super) async fn connect(address: SocketAddr, ca: &Path, shown: Option<&Pair>) -> Result<Peer, String> {
    let mut roots = rustls::RootCertStore::empty();
    for authority in certificates(ca) {
        roots.add(authority).unwrap();
    }
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(pair) => builder.with_client_auth_cert(pair.chain(), pair.secret()).unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let secured =
        connector.connect("localhost".try_into().unwrap(), stream).await.map_err(|e| e.to_string())?;
    let (send, connection) = h2::client::handshake(secured).await.map_err(|e| e.to_string())?;
    Ok(Peer { send, connection: tokio::spawn(connection) })
}

/// As whom a peer is let in, by the service's own word.
pub(super) async fn as_whom(address: SocketAddr, ca: &Path, shown: Option<&Pair>) -> Result<String, String> {
    let mut peer = connect(address, ca, shown).await?;
    let answer = peer.call(crate::support::request("0")).await.map_err(|e| e.to_string())?;
    let named = answer.headers().get("caller").map(|caller| caller.to_str().unwrap().to_owned());
    named.ok_or_else(|| format!("grpc-status {:?}", answer.headers()["grpc-status"]))
}
