//! TLS to the broker. Files are read at every handshake, so whatever replaces them (cert-manager, a SPIFFE helper) counts from the next
//! connection on; files that are of no use at that moment leave the last good ones in use.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::TLS13,
};

use crate::error::Error;

pub(crate) struct Tls {
    pub(crate) files: TlsFiles,
    pub(crate) server_name: ServerName<'static>,
    last_good: Mutex<Option<Arc<ClientConfig>>>,
}

/// What is trusted, and the certificate and key that are shown.
pub(crate) struct TlsFiles {
    pub(crate) ca: PathBuf,
    pub(crate) client: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Fails where the files are of no use from the start.
    pub(crate) fn new(files: TlsFiles, server_name: ServerName<'static>) -> Result<Self, Error> {
        let first = Arc::new(files.load()?);
        Ok(Self { files, server_name, last_good: Mutex::new(Some(first)) })
    }

    /// What the files say now.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        let mut last_good = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.files.load(), &*last_good) {
            (Ok(config), _) => Ok(Arc::clone(last_good.insert(Arc::new(config)))),
            (Err(error), Some(config)) => {
                tracing::warn!(%error, "the last good certificates stay in use");
                Ok(Arc::clone(config))
            }
            (Err(error), None) => Err(error),
        }
    }
}

impl TlsFiles {
    fn load(&self) -> Result<ClientConfig, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|e| Error::file(&self.ca, e))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| Error::setting("tls", e.to_string()))?
            .with_root_certificates(roots);
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((cert_file, key_file)) => {
                let key = PrivateKeyDer::from_pem_file(key_file).map_err(|e| Error::file(key_file, e))?;
                builder
                    .with_client_auth_cert(certificates(cert_file)?, key)
                    .map_err(|e| Error::file(cert_file, e))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

fn certificates(file: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).map_err(|e| Error::file(file, e))?.collect();
    match all.map_err(|e| Error::file(file, e))? {
        none if none.is_empty() => Err(Error::file(file, "it holds no certificate in PEM")),
        some => Ok(some),
    }
}
