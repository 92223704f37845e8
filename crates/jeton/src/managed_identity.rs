//! Opening the endpoints that SDKs of managed identities know.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use jeton_core::{Principal, Problem};
use jeton_server::{
    door::{Authenticate, Certificates, Configured, Listen, Listener, UnixPeers},
    managed_identity::{
        Challenges, Endpoint, EndpointSettings, Flavour, Hosts, ManagedIdentitySettings, Place,
    },
};
use serde::{Deserialize, Serialize};

use crate::supervisor::HandedOver;

const TLS: &str = "managed_identity.service_fabric_tls";

/// A listener before it is opened.
pub(crate) struct Opening {
    pub(crate) flavour: Flavour,
    pub(crate) listener: Listener,
    pub(crate) certificates: Option<Certificates>,
    principal: Option<Principal>,
}

/// How programs find an endpoint: in `endpoints.json`, under its flavour's key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket: Option<PathBuf>,
    /// Whose requests come there, where no secret says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) principal: Option<Principal>,
    /// The certificate that it shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<PathBuf>,
    /// In `dev`, which makes its own certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

pub(crate) type AllFound = BTreeMap<String, Found>;

/// What is wrong with the files of the endpoint that has TLS, or that there are none.
pub(crate) fn problems(settings: &ManagedIdentitySettings) -> Vec<Problem> {
    let (listens, tls) = (!settings.service_fabric.listen.is_empty(), &settings.service_fabric_tls);
    match (listens, tls.is_given()) {
        (true, false) => {
            let text = "name the certificate that managed_identity.service_fabric shows, and its key_file";
            vec![Problem::new("cert_file", text).within(TLS)]
        }
        (false, true) => {
            let text = "is of no use without managed_identity.service_fabric.listen";
            vec![Problem::new(TLS, text)]
        }
        (true, true) if tls.validate().is_empty() => {
            let read = Certificates::load(TLS, tls).err().into_iter().flatten();
            read.map(|problem| problem.within(TLS)).collect()
        }
        _ => vec![],
    }
}

impl Opening {
    /// With its certificate, if it has TLS.
    pub(crate) fn new(
        flavour: Flavour,
        settings: &ManagedIdentitySettings,
        listener: Listener,
    ) -> anyhow::Result<Self> {
        let tls = || {
            Certificates::load(TLS, &settings.service_fabric_tls)
                .map_err(|problems| anyhow::anyhow!("the files of [{TLS}]: {problems:?}"))
        };
        let certificates = (flavour == Flavour::ServiceFabric).then(tls).transpose()?;
        let principal = settings.endpoint(flavour).principal();
        Ok(Self { flavour, listener, certificates, principal })
    }

    /// All that are configured, each bound before anything is started, or handed over.
    pub(crate) async fn all(
        settings: &ManagedIdentitySettings,
        sockets: &mut HandedOver,
    ) -> anyhow::Result<Vec<Self>> {
        let mut openings = vec![];
        for flavour in Flavour::ALL {
            let endpoint = settings.endpoint(flavour);
            let handed = match endpoint.place() {
                Some(Place::Tcp(address)) => sockets.tcp(flavour.name(), address)?,
                Some(Place::Unix(path)) => sockets.unix(flavour.name(), Path::new(&path))?,
                None => None,
            };
            let listener = match handed {
                Some(listener) => Some(listener),
                None => bind(endpoint, flavour).await?,
            };
            if let Some(listener) = listener {
                openings.push(Self::new(flavour, settings, listener)?);
            }
        }
        Ok(openings)
    }

    /// Who peers are by their place. None: the secret says it.
    pub(crate) fn authenticate(&self, users: &Arc<UnixPeers>) -> Option<Arc<dyn Authenticate>> {
        if self.flavour.by_secret() {
            return None;
        }
        Some(match &self.principal {
            Some(principal) => Arc::new(Configured(principal.clone())),
            None => Arc::<UnixPeers>::clone(users),
        })
    }

    /// What stands behind the listener.
    pub(crate) fn endpoint(&self, settings: &ManagedIdentitySettings) -> Endpoint {
        let also = &settings.endpoint(self.flavour).hosts;
        let address = self.listener.tcp_address();
        Endpoint {
            flavour: self.flavour,
            hosts: address.map_or_else(Hosts::any, |address| Hosts::of(self.flavour, address, also)),
            challenges: (self.flavour == Flavour::Arc).then(|| Challenges::new(&settings.arc_tokens_dir)),
            default_scopes: settings.gce_scopes.clone(),
            project: settings.gce_project.clone(),
        }
    }

    /// Where it is. `ca_file`: whom its callers have to trust, if it has TLS.
    pub(crate) fn found(&self, settings: &ManagedIdentitySettings, ca_file: Option<&PathBuf>) -> Found {
        let secured = self.certificates.is_some();
        let url = self.listener.tcp_address().map(|mut address| {
            if address.ip().is_unspecified() {
                address.set_ip(IpAddr::from([127, 0, 0, 1]));
            }
            let path = self.flavour.path();
            match self.flavour {
                // Its certificate names the host.
                Flavour::ServiceFabric => format!("https://localhost:{}{path}", address.port()),
                // Clients append the rest.
                Flavour::Imds | Flavour::Arc | Flavour::Gce => format!("http://{address}"),
                _ => format!("http://{address}{path}"),
            }
        });
        let socket = match settings.endpoint(self.flavour).place() {
            Some(Place::Unix(path)) => Some(path.into()),
            _ => None,
        };
        let cert_file = secured.then(|| settings.service_fabric_tls.cert_file.clone());
        Found {
            url,
            socket,
            principal: self.principal.clone(),
            cert_file: cert_file.filter(|file| !file.is_empty()).map(PathBuf::from),
            ca_file: ca_file.filter(|_| secured).cloned(),
        }
    }
}

/// The dotted key of an endpoint's address.
pub(crate) fn key(flavour: Flavour) -> String {
    format!("managed_identity.{}.listen", flavour.key())
}

/// The listener of an endpoint, if it has an address.
pub(crate) async fn bind(settings: &EndpointSettings, flavour: Flavour) -> anyhow::Result<Option<Listener>> {
    let listen = match settings.place() {
        None => return Ok(None),
        Some(Place::Tcp(address)) => Listen::Tcp(address),
        Some(Place::Unix(path)) => Listen::Unix { path: path.into(), mode: settings.mode().unwrap_or(0o660) },
    };
    Listener::bind(&listen).await.map(Some).with_context(|| key(flavour))
}

/// The places of all, for `endpoints.json`.
pub(crate) fn found(
    openings: &[Opening],
    settings: &ManagedIdentitySettings,
    ca_file: Option<&PathBuf>,
) -> AllFound {
    let one = |opening: &Opening| (opening.flavour.key().to_owned(), opening.found(settings, ca_file));
    openings.iter().map(one).collect()
}
