//! TLS over real sockets: whose certificates are trusted, which one is shown, and files that are replaced.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jeton_client::{Builder, Client, Error};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::broker::{BILLING, Broker, SCOPE};

/// A certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key in PEM.
struct Leaf(String, String);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn leaf(&self, name: &str) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        Leaf(certificate.pem(), key.serialize_pem())
    }
}

impl Leaf {
    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.0.as_bytes()).unwrap()
    }
}

/// A scripted broker behind TLS, with the client certificate of each connection.
struct Secured {
    broker: Broker,
    address: SocketAddr,
    server: Arc<Mutex<TlsAcceptor>>,
    shown: Arc<Mutex<Vec<CertificateDer<'static>>>>,
}

impl Secured {
    async fn start(server: &Leaf, clients: &Authority) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, broker, shown) =
            (listener.local_addr().unwrap(), Broker::start(), Arc::<Mutex<Vec<_>>>::default());
        let server = Arc::new(Mutex::new(acceptor(server, clients)));
        let (ours, accepts, names) = (Arc::clone(&server), broker.clone(), Arc::clone(&shown));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = ours.lock().unwrap().clone();
                if let Ok(stream) = acceptor.accept(stream).await {
                    let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
                    names.lock().unwrap().push(leaf.into_owned());
                    accepts.accept(stream);
                }
            }
        });
        Self { broker, address, server, shown }
    }

    fn rotate(&self, server: &Leaf, clients: &Authority) {
        *self.server.lock().unwrap() = acceptor(server, clients);
    }

    /// Breaks the connection; which certificate the client shows when it is back.
    async fn reconnected(&self) -> CertificateDer<'static> {
        let before = self.shown.lock().unwrap().len();
        self.broker.kill();
        self.broker.restart();
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(leaf) = self.shown.lock().unwrap().get(before) {
                return leaf.clone();
            }
            assert!(Instant::now() < end, "it does not come back");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn acceptor(server: &Leaf, clients: &Authority) -> TlsAcceptor {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let key = PrivateKeyDer::from_pem_slice(server.1.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.der()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// The files of a client.
struct Files {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(folder: &Path, trusted: &Authority, leaf: &Leaf) -> Self {
        let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
        let files = Self { ca, cert, key };
        fs::write(&files.ca, &trusted.pem).unwrap();
        files.show(leaf);
        files
    }

    fn show(&self, leaf: &Leaf) {
        fs::write(&self.cert, &leaf.0).unwrap();
        fs::write(&self.key, &leaf.1).unwrap();
    }

    fn builder(&self, address: SocketAddr) -> Builder {
        Client::builder()
            .endpoint(format!("https://localhost:{}", address.port()))
            .ca_file(&self.ca)
            .client_certificate(&self.cert, &self.key)
    }
}

#[tokio::test]
async fn files_that_are_replaced_count_from_the_next_connection_on_and_useless_ones_change_nothing() {
    let (folder, first, second) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let leaves = [first.leaf("client-a"), first.leaf("client-b")];
    let files = Files::new(folder.path(), &first, &leaves[0]);
    let secured = Secured::start(&first.leaf("localhost"), &first).await;
    let client = files.builder(secured.address).build().unwrap();
    client.token(BILLING, SCOPE).await.unwrap();
    assert_eq!(*secured.shown.lock().unwrap(), [leaves[0].der()]);
    files.show(&leaves[1]);
    assert_eq!(secured.reconnected().await, leaves[1].der());
    fs::write(&files.cert, "half a certifi").unwrap();
    assert_eq!(secured.reconnected().await, leaves[1].der());
    files.show(&leaves[0]);
    secured.rotate(&first.leaf("localhost"), &first);
    assert_eq!(secured.reconnected().await, leaves[0].der());
    // The server's authority goes too, and whoever follows the bundle's file goes along.
    secured.rotate(&second.leaf("localhost"), &first);
    fs::write(&files.ca, &second.pem).unwrap();
    assert_eq!(secured.reconnected().await, leaves[0].der());
    client.token("identities/new", SCOPE).await.unwrap();
}

#[tokio::test]
async fn a_server_whose_certificate_is_not_trusted_or_names_another_is_sent_nothing() {
    let (folder, ours, foreign) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let files = Files::new(folder.path(), &ours, &ours.leaf("client"));
    let secured = Secured::start(&foreign.leaf("localhost"), &ours).await;
    let client = files.builder(secured.address).timeout(Duration::from_secs(1)).build().unwrap();
    let error = unreachable(&client).await;
    assert!(error.to_string().contains("certificate"), "{error}");
    secured.rotate(&ours.leaf("broker.example"), &ours);
    let error = unreachable(&client).await;
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(secured.broker.asked(), 0);
    let named = files.builder(secured.address).server_name("broker.example").build().unwrap();
    named.token(BILLING, SCOPE).await.unwrap();
}

/// Why there is no connection. On a busy machine a handshake may take longer than a call.
async fn unreachable(client: &Client) -> Error {
    for _ in 0..60 {
        match client.token(BILLING, SCOPE).await.unwrap_err() {
            Error::TimedOut { .. } => {}
            error => {
                assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
                return error;
            }
        }
    }
    panic!("no handshake within a minute");
}
