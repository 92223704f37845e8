//! What is asked, and where: from a broker's `endpoints.json`, or from the command line.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context, bail, ensure};
use jeton_proto::v1;
use prost::Message;
use rand::{Rng, distr::weighted::WeightedIndex, prelude::Distribution};
use serde::Deserialize;

use crate::{
    bounds::{number, whole},
    cpu, listener,
    wire::Request,
};

/// The call that is measured.
pub(crate) const PATH: &str = "/jeton.v1.TokenService/GetToken";

/// What to ask, of whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TargetArguments {
    /// The data directory of a running broker; its endpoints.json says where it listens and what may be asked
    #[arg(long, default_value = "./.jeton", env = "JETON_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
    /// A TCP address instead
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) endpoint: Option<String>,
    /// A unix socket instead
    #[arg(long, value_name = "PATH", conflicts_with = "endpoint")]
    pub(crate) socket: Option<PathBuf>,
    /// Use the broker's unix socket from endpoints.json
    #[arg(long, conflicts_with_all = ["endpoint", "socket"])]
    pub(crate) unix: bool,
    /// Speak TLS, and trust the certificates in this PEM file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["unix", "socket"])]
    pub(crate) ca: Option<PathBuf>,
    /// A client certificate (PEM) for TLS; repeat it, with --key, for several callers
    #[arg(long, value_name = "FILE", requires_all = ["key", "ca"])]
    pub(crate) cert: Vec<PathBuf>,
    /// The key (PEM) of the client certificate at the same place
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Vec<PathBuf>,
    /// An identity to ask for; repeat it for several. Default: those of endpoints.json
    #[arg(long)]
    pub(crate) identity: Vec<String>,
    /// A scope to ask for; repeat it for several. Default: the first of endpoints.json
    #[arg(long)]
    pub(crate) scope: Vec<String>,
    /// All scopes of endpoints.json, and not only the first
    #[arg(long, conflicts_with = "scope")]
    pub(crate) all_scopes: bool,
    /// How unevenly identities are asked for: the exponent of a Zipf distribution; 0: evenly
    #[arg(long, default_value_t = 1.0, value_parser = number(0.0..=100.0))]
    pub(crate) skew: f64,
    /// The server's process, to tell whether it was at its limit. Default: the one that endpoints.json names, or that listens at the
    /// address, if exactly one does and this user may look into it
    #[arg(long, value_name = "PID", value_parser = whole(1..=u32::MAX))]
    pub(crate) server_pid: Option<u32>,
}

/// Where to connect.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    /// A host and a port.
    Tcp(String),
    /// A path.
    Unix(PathBuf),
}

/// One thing that is asked.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// The identity that the token must be of.
    pub(crate) identity: String,
    /// Its client id, where it is known: the token itself must name it.
    pub(crate) client_id: Option<String>,
    /// The request, encoded.
    pub(crate) request: Request,
}

/// Everything that connections need to know.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Where.
    pub(crate) address: Address,
    /// One configuration for each caller; none: plain text.
    pub(crate) tls: Vec<Arc<rustls::ClientConfig>>,
    /// What.
    pub(crate) asks: Vec<Ask>,
    /// How often each.
    pub(crate) mix: WeightedIndex<f64>,
    /// The scopes that are asked for.
    pub(crate) scopes: Vec<String>,
    /// The server's process, if it is known.
    pub(crate) pid: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Endpoints {
    pid: u32,
    grpc: Option<String>,
    grpc_tls: Option<GrpcTls>,
    grpc_socket: PathBuf,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    identities: Vec<Identity>,
}

#[derive(Debug, Deserialize)]
struct GrpcTls {
    address: String,
}

#[derive(Debug, Deserialize)]
struct Identity {
    name: String,
    client_id: String,
}

impl TargetArguments {
    /// Everything by default, at the broker of this data directory.
    pub(crate) fn of(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            endpoint: None,
            socket: None,
            unix: false,
            ca: None,
            cert: vec![],
            key: vec![],
            identity: vec![],
            scope: vec![],
            all_scopes: false,
            skew: 1.0,
            server_pid: None,
        }
    }

    /// Reads files and puts everything together.
    pub(crate) fn resolve(&self) -> anyhow::Result<Target> {
        let file = self.data_dir.join("endpoints.json");
        let known: Option<Endpoints> = match fs::read(&file) {
            Ok(bytes) => Some(
                serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", file.display()))?,
            ),
            Err(_) if self.endpoint.is_some() || self.socket.is_some() => None,
            Err(error) => bail!(
                "{}: {error}; start a broker (jeton dev), or say where one listens with --endpoint or --socket",
                file.display()
            ),
        };
        let address = self.address(known.as_ref())?;
        let authority = match &address {
            Address::Tcp(address) => address.as_str(),
            Address::Unix(_) => "localhost",
        };
        let (scopes, asks) = self.asks(known.as_ref(), authority)?;
        let weights = (1..=asks.len()).map(|rank| (rank as f64).powf(-self.skew));
        let mix = WeightedIndex::new(weights).context("--skew")?;
        let announced =
            known.filter(|_| self.endpoint.is_none() && self.socket.is_none()).map(|known| known.pid);
        let pid = match (self.server_pid, announced) {
            (Some(pid), _) => {
                cpu::used(pid).with_context(|| format!("--server-pid {pid}: there is no such process"))?;
                Some(pid)
            }
            (None, Some(pid)) => Some(pid),
            (None, None) => listener::process(&address),
        };
        Ok(Target { address, tls: self.tls()?, asks, mix, scopes, pid })
    }

    fn address(&self, known: Option<&Endpoints>) -> anyhow::Result<Address> {
        let found = match (&self.endpoint, &self.socket, known) {
            (Some(endpoint), ..) => Address::Tcp(endpoint.clone()),
            (None, Some(path), _) => Address::Unix(path.clone()),
            (None, None, Some(known)) if self.unix => Address::Unix(known.grpc_socket.clone()),
            (None, None, Some(known)) if self.ca.is_some() => Address::Tcp(
                known
                    .grpc_tls
                    .as_ref()
                    .context("this broker does not speak TLS: start it with --tls")?
                    .address
                    .clone(),
            ),
            (None, None, Some(known)) => match &known.grpc {
                Some(address) => Address::Tcp(address.clone()),
                None => Address::Unix(known.grpc_socket.clone()),
            },
            (None, None, None) => bail!("no broker: use --data-dir, --endpoint or --socket"),
        };
        if let Address::Tcp(text) = &found {
            let host = text.rsplit_once(':').map_or(text.as_str(), |(host, _)| host).trim_matches(['[', ']']);
            let loopback =
                host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
            ensure!(loopback, "{text}: load goes to this machine alone");
        }
        Ok(found)
    }

    fn asks(&self, known: Option<&Endpoints>, authority: &str) -> anyhow::Result<(Vec<String>, Vec<Ask>)> {
        let identities: Vec<_> = match (self.identity.as_slice(), known) {
            ([], Some(known)) => {
                known.identities.iter().map(|i| (i.name.clone(), Some(i.client_id.clone()))).collect()
            }
            (named, _) => {
                let client_id = |name: &String| {
                    known?.identities.iter().find(|i| i.name == *name).map(|i| i.client_id.clone())
                };
                named.iter().map(|name| (name.clone(), client_id(name))).collect()
            }
        };
        let scopes: &[String] = match (self.scope.as_slice(), known) {
            ([], Some(known)) if self.all_scopes => &known.scopes,
            ([], Some(known)) => known.scopes.get(..1).unwrap_or_default(),
            (named, _) => named,
        };
        ensure!(
            !identities.is_empty() && !scopes.is_empty(),
            "nothing to ask for: use --identity and --scope"
        );
        let secure = self.ca.is_some();
        let ask = |(identity, client_id): &(String, Option<String>), scope: &String| {
            let wanted = v1::GetTokenRequest {
                identity: identity.clone(),
                scopes: vec![scope.clone()],
                ..Default::default()
            };
            let request = Request::new(secure, authority, PATH, &wanted.encode_to_vec());
            Ask { identity: identity.clone(), client_id: client_id.clone(), request }
        };
        let asks =
            scopes.iter().flat_map(|scope| identities.iter().map(move |identity| ask(identity, scope)));
        Ok((scopes.to_vec(), asks.collect()))
    }

    fn tls(&self) -> anyhow::Result<Vec<Arc<rustls::ClientConfig>>> {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let Some(ca) = &self.ca else { return Ok(vec![]) };
        ensure!(self.cert.len() == self.key.len(), "give a --key for each --cert");
        let read = |path: &PathBuf| -> anyhow::Result<Vec<CertificateDer<'static>>> {
            let context = || format!("certificates in {}", path.display());
            CertificateDer::pem_file_iter(path)
                .with_context(context)?
                .collect::<Result<_, _>>()
                .with_context(context)
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in read(ca)? {
            roots.add(certificate).context("--ca")?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let build = || -> anyhow::Result<_> {
            let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()?;
            Ok(builder.with_root_certificates(roots.clone()))
        };
        let mut configurations = vec![];
        for (cert, key) in self.cert.iter().zip(&self.key) {
            let key =
                PrivateKeyDer::from_pem_file(key).with_context(|| format!("the key in {}", key.display()))?;
            configurations
                .push(build()?.with_client_auth_cert(read(cert)?, key).context("--cert and --key")?);
        }
        if configurations.is_empty() {
            configurations.push(build()?.with_no_client_auth());
        }
        let with_alpn = |mut configuration: rustls::ClientConfig| {
            configuration.alpn_protocols = vec![b"h2".to_vec()];
            Arc::new(configuration)
        };
        Ok(configurations.into_iter().map(with_alpn).collect())
    }
}

impl Target {
    /// What to ask next.
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> usize {
        self.mix.sample(rng)
    }
}
