//! TLS at a door: the certificate that it shows, and whose certificates it takes.
//!
//! Both are replaced while the door serves. Each handshake has a configuration and a verifier of its own, of what holds when it begins: so
//! what was verified and what names the caller are one thing. No session is resumed, because the peer of a resumed one is not verified.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use jeton_access::{Authenticated, Naming, validity};
use jeton_core::Wall;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use tokio::sync::watch;

/// What a door asks of its peers in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Nothing. Who they are shows elsewhere.
    Ignored,
    /// A certificate, or else a token with each request. A certificate that is shown must be right.
    Optional,
    /// A certificate.
    Required,
}

/// Authorities whose certificates let in, and how those name their holders.
#[derive(Debug)]
pub struct Bundle {
    name: String,
    naming: Naming,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Why a certificate, a key or a bundle is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is no certificate in it.
    #[error("there is no certificate in it")]
    Empty,
    /// The library does not take it.
    #[error("{0}")]
    Unusable(String),
}

/// The TLS of a listener.
pub struct Tls {
    provider: Arc<CryptoProvider>,
    clients: ClientCertificates,
    shown: watch::Sender<Option<Shown>>,
    trust: watch::Sender<Trust>,
}

/// The bundles, in the order in which they are asked. None: not there yet.
type Trust = Arc<[Option<Arc<Bundle>>]>;

#[derive(Clone)]
struct Shown {
    key: Arc<CertifiedKey>,
    validity: Option<(Wall, Wall)>,
}

/// What a handshake goes by, and what will tell what it found.
type Handshake = (Arc<ServerConfig>, Arc<Verifier>);

/// What a client certificate proved in its handshake.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) authenticated: Authenticated,
    chain: Vec<CertificateDer<'static>>,
    trust: Trust,
}

impl Bundle {
    /// `name` is what the operator calls it.
    pub fn new(
        name: &str,
        naming: Naming,
        authorities: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| TlsError::Unusable(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(TlsError::Empty);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| TlsError::Unusable(error.to_string()))?;
        Ok(Self { name: name.to_owned(), naming, verifier })
    }
}

impl Tls {
    /// With room for so many bundles. It shows nothing yet, and trusts nobody.
    pub fn new(clients: ClientCertificates, bundles: usize) -> Arc<Self> {
        let (shown, trust) = (watch::Sender::new(None), watch::Sender::new(vec![None; bundles].into()));
        Arc::new(Self { provider: Arc::new(aws_lc_rs::default_provider()), clients, shown, trust })
    }

    /// Shows this certificate from now on.
    pub fn show(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), TlsError> {
        if chain.is_empty() {
            return Err(TlsError::Empty);
        }
        let made = CertifiedKey::from_der(chain, key, &self.provider);
        let certified = made.map_err(|error| TlsError::Unusable(error.to_string()))?;
        let validity = certified.cert.first().and_then(|leaf| validity(leaf));
        self.shown.send_replace(Some(Shown { key: Arc::new(certified), validity }));
        Ok(())
    }

    /// From when to when the certificate that it shows is valid.
    pub(crate) fn shown_validity(&self) -> Option<(Wall, Wall)> {
        self.shown.borrow().as_ref()?.validity
    }

    /// Trusts this bundle from now on, in the place of the one before; none: nobody there.
    pub fn trust(&self, place: usize, bundle: Option<Bundle>) {
        let bundle = bundle.map(Arc::new);
        self.trust.send_modify(|trust| {
            let others = trust.iter().enumerate();
            *trust =
                others.map(|(n, other)| if n == place { bundle.clone() } else { other.clone() }).collect();
        });
    }

    /// Which of its bundles are there.
    #[cfg(test)]
    pub(crate) fn trusted(&self) -> Vec<bool> {
        self.trust.borrow().iter().map(Option::is_some).collect()
    }

    /// What a handshake goes by that begins now, for this protocol; none: there is no certificate to show yet.
    pub(crate) fn handshake(&self, alpn: &[u8]) -> Result<Option<Handshake>, Error> {
        let Some(shown) = self.shown.borrow().clone() else { return Ok(None) };
        let verifier = Arc::new(Verifier {
            trust: self.trust.borrow().clone(),
            clients: self.clients,
            provider: Arc::clone(&self.provider),
            verdict: Mutex::default(),
        });
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown.key)));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Some((Arc::new(config), verifier)))
    }

    /// Ends when what it trusts has changed and this proof holds no more.
    pub(crate) async fn withdrawn(self: Arc<Self>, mut proof: Proof) {
        let mut changes = self.trust.subscribe();
        loop {
            let trust = changes.borrow_and_update().clone();
            if !Arc::ptr_eq(&trust, &proof.trust) {
                let [leaf, intermediates @ ..] = proof.chain.as_slice() else { return };
                let judged = judge(&trust, leaf, intermediates, UnixTime::now());
                if judged.is_ok_and(|it| it.principal == proof.authenticated.principal) {
                    proof.trust = trust;
                } else {
                    return;
                }
            }
            // The sender is ours.
            let _ = changes.changed().await;
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("clients", &self.clients).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Proof {
    /// Of a certificate that nobody showed: it holds as long as nothing changes.
    pub(crate) fn assumed(authenticated: Authenticated, tls: &Tls) -> Self {
        Self { authenticated, chain: vec![], trust: tls.trust.borrow().clone() }
    }
}

/// The verifier of one handshake, and what it found.
pub(crate) struct Verifier {
    trust: Trust,
    clients: ClientCertificates,
    provider: Arc<CryptoProvider>,
    verdict: Mutex<Option<Result<Proof, String>>>,
}

impl Verifier {
    /// None: no certificate was shown. An error is for the operator.
    pub(crate) fn verdict(&self) -> Option<Result<Proof, String>> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("clients", &self.clients).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.clients != ClientCertificates::Ignored
    }

    fn client_auth_mandatory(&self) -> bool {
        self.clients == ClientCertificates::Required
    }

    /// Whom the door trusts is nobody's business; a peer shows what it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let judged = judge(&self.trust, leaf, intermediates, now).map(|authenticated| {
            let chain =
                std::iter::once(leaf).chain(intermediates).map(|it| it.clone().into_owned()).collect();
            Proof { authenticated, chain, trust: Arc::clone(&self.trust) }
        });
        let proven = judged.is_ok();
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(judged);
        // The peer hears the same whatever is wrong.
        let refused = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        proven.then(ClientCertVerified::assertion).ok_or(refused)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The first bundle whose authorities signed it and whose naming names its holder.
fn judge(
    trust: &Trust,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<Authenticated, String> {
    let mut reasons = vec![];
    for bundle in trust.iter().flatten() {
        let signed = bundle.verifier.verify_client_cert(leaf, intermediates, now);
        let named = signed
            .map_err(|error| error.to_string())
            .and_then(|_| bundle.naming.authenticate(leaf).map_err(|error| error.to_string()));
        match named {
            Ok(authenticated) => return Ok(authenticated),
            Err(reason) => reasons.push(format!("by bundle {}: {reason}", bundle.name)),
        }
    }
    if reasons.is_empty() {
        Err("no bundle is there to verify it with".into())
    } else {
        Err(reasons.join("; "))
    }
}
