//! Certificates in files. They are read every two seconds, and when the process is told to (SIGHUP): what counts is what is in them, so
//! it does not matter how they are replaced.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use jeton_access::Naming;
use jeton_core::Problem;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};
use zeroize::Zeroizing;

use super::{TlsSettings, say_if_it_ends};
use crate::{
    Alarms,
    door::{Bundle, Tls},
};

const INTERVAL: Duration = Duration::from_secs(2);
/// Longer files are no certificates.
const MOST_BYTES: u64 = 1 << 20;

/// The files of a listener.
#[derive(Debug, Default)]
pub(super) struct Files(Vec<Followed>);

#[derive(Debug)]
struct Followed {
    part: Part,
    /// The hash of what was there when it was looked at last, be it good or bad; none: it could not be read.
    seen: Option<[u8; 32]>,
}

#[derive(Debug, Clone)]
enum Part {
    /// The server's certificate and key: only together are they of use.
    Certificate {
        cert: PathBuf,
        key: PathBuf,
    },
    Bundle {
        place: usize,
        name: String,
        naming: Naming,
        file: PathBuf,
    },
}

/// What is in a part's files.
type Contents = Vec<Zeroizing<Vec<u8>>>;

impl Files {
    /// Of settings that are valid.
    pub(super) fn of(settings: &TlsSettings) -> Self {
        let mut parts = vec![];
        if !settings.cert_file.is_empty() {
            let (cert, key) = (settings.cert_file.clone().into(), settings.key_file.clone().into());
            parts.push(Part::Certificate { cert, key });
        }
        for (place, trust) in settings.client_trust.iter().enumerate() {
            if let (false, Some(naming)) = (trust.bundle_file.is_empty(), trust.naming()) {
                let (name, file) = (trust.name.clone(), trust.bundle_file.clone().into());
                parts.push(Part::Bundle { place, name, naming, file });
            }
        }
        Self(parts.into_iter().map(|part| Followed { part, seen: None }).collect())
    }

    /// Reads all for the first time. What is wrong then is a fault of the configuration.
    pub(super) fn first(&mut self, tls: &Tls) -> Vec<Problem> {
        let looked = self.0.iter_mut().filter_map(|followed| {
            let wrong = followed.look(tls)?.err()?;
            Some(Problem::new(followed.part.key(), wrong))
        });
        looked.collect()
    }

    /// What has changed is used from now on, or said to be of no use.
    fn look(&mut self, section: &str, tls: &Tls, alarms: &Alarms) {
        for followed in &mut self.0 {
            let subject = format!("{section}.{}", followed.part.subject());
            match followed.look(tls) {
                None => {}
                Some(Ok(())) => {
                    alarms.clear(&subject);
                    tracing::info!(subject, "replaced");
                }
                Some(Err(wrong)) => {
                    let remedy = "mend the file: it is read again every two seconds. What was there before is still in use";
                    alarms.raise(&subject, wrong, remedy);
                }
            }
        }
        say_if_it_ends(tls, section, alarms);
    }

    /// Looks again and again.
    pub(super) async fn follow(mut self, section: &'static str, tls: Arc<Tls>, alarms: Alarms) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hangups = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP cannot be listened to; files are read again every two seconds all the same"))
            .ok();
        loop {
            let told = async {
                match &mut hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = ticks.tick() => {}
                _ = told => {}
            }
            let (own, told) = (Arc::clone(&tls), alarms.clone());
            // A file may lie on a disk that does not answer.
            let looked = tokio::task::spawn_blocking(move || {
                self.look(section, &own, &told);
                self
            });
            let Ok(files) = looked.await else { return };
            self = files;
        }
    }
}

impl Followed {
    /// None: nothing has changed.
    fn look(&mut self, tls: &Tls) -> Option<Result<(), String>> {
        let contents = match self.part.read() {
            Ok(contents) => contents,
            Err(error) => {
                self.seen = None;
                return Some(Err(error));
            }
        };
        let hashes = contents.iter().flat_map(|bytes| digest(&SHA256, bytes).as_ref().to_vec());
        let hash = digest(&SHA256, &hashes.collect::<Vec<_>>()).as_ref().try_into().ok();
        if hash.is_some() && hash == self.seen {
            return None;
        }
        self.seen = hash;
        Some(self.part.apply(&contents, tls))
    }
}

impl Part {
    fn key(&self) -> &'static str {
        match self {
            Self::Certificate { .. } => "cert_file",
            Self::Bundle { .. } => "client_trust",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::Certificate { .. } => "cert_file".into(),
            Self::Bundle { name, .. } => format!("client_trust.{name}"),
        }
    }

    fn read(&self) -> Result<Contents, String> {
        match self {
            Self::Certificate { cert, key } => Ok(vec![read(cert)?, read(key)?]),
            Self::Bundle { file, .. } => Ok(vec![read(file)?]),
        }
    }

    fn apply(&self, contents: &Contents, tls: &Tls) -> Result<(), String> {
        match (self, contents.as_slice()) {
            (Self::Certificate { cert, key }, [chain, secret]) => {
                let in_cert =
                    |error: &dyn std::fmt::Display| format!("{} cannot be used: {error}", cert.display());
                let chain = certificates(chain).map_err(|e| in_cert(&e))?;
                let secret = PrivateKeyDer::from_pem_slice(secret).map_err(|_| {
                    format!("{} cannot be used: there is no private key in it (PEM)", key.display())
                })?;
                tls.show(chain, secret)
                    .map_err(|error| format!("{} and {}: {error}", cert.display(), key.display()))
            }
            (Self::Bundle { place, name, naming, file }, [bundle]) => {
                let wrong =
                    |error: &dyn std::fmt::Display| format!("{} cannot be used: {error}", file.display());
                let authorities = certificates(bundle).map_err(|e| wrong(&e))?;
                let bundle = Bundle::new(name, naming.clone(), authorities).map_err(|e| wrong(&e))?;
                tls.trust(*place, Some(bundle));
                Ok(())
            }
            _ => Err("it has another number of files".into()),
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| format!("{error:?}"))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let whole = || -> io::Result<_> {
        let file = File::open(path)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
        let length = file.take(MOST_BYTES + 1).read_to_end(&mut bytes)? as u64;
        if length > MOST_BYTES { Err(io::Error::other("it has more than 1 MiB")) } else { Ok(bytes) }
    };
    whole().map_err(|error| format!("{} cannot be read: {error}", path.display()))
}
