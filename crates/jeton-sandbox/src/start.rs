//! Starting and stopping: listeners, first content, `sandbox.json`.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{extract::State as Extract, http::header, middleware::map_response_with_state};
use rand::Rng;
use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle};
use uuid::Uuid;

use crate::{
    certificates::{CA_FILE, server_config},
    control,
    description::{Administrator, Description, EntraTenant, FILE, OidcTenant, VaultPlace},
    entra::{self, Moment, Signer},
    files::{kept, private_dir, private_file, write_private},
    graph, oidc,
    reply::Reply,
    serve,
    settings::MOST_TOKEN_BYTES,
    state::State,
    vault,
};

/// Where the sandbox keeps its things, and where it listens.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Its folder; made if it is not there.
    pub data_dir: PathBuf,
    /// The authority's address. Port 0: a free one, drawn once and kept.
    pub authority_listen: SocketAddr,
    /// The vault's address. Port 0: a free one, drawn once and kept.
    pub vault_listen: SocketAddr,
    /// Access tokens of the Entra-shaped tenant have at least so many bytes: the ids of groups fill them up. 0: none do.
    pub token_bytes: usize,
}

impl SandboxOptions {
    /// The most that tokens can be filled up to.
    pub const MOST_TOKEN_BYTES: usize = MOST_TOKEN_BYTES;

    /// On free ports of the loopback interface.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { data_dir: data_dir.into(), authority_listen: free, vault_listen: free, token_bytes: 0 }
    }
}

/// Why the sandbox does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// None runs there.
    #[error("{0}")]
    NotRunning(String),
    /// Another one runs there.
    #[error("{folder} is in use by the sandbox of process {holder}: stop that one, or choose another folder")]
    InUse {
        /// Where.
        folder: String,
        /// The process.
        holder: String,
    },
    /// An address is taken.
    #[error("{address} is taken by another program: stop that one, or choose another port ({source})")]
    Address {
        /// Which.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Its folder cannot be used.
    #[error("the sandbox's folder {folder} cannot be used: {source}")]
    Folder {
        /// Which.
        folder: String,
        /// What the system says.
        source: io::Error,
    },
    /// Its database cannot be used.
    #[error("the sandbox's database cannot be used: {0}")]
    Database(#[from] sqlx::Error),
    /// A listener ended.
    #[error("a listener of the sandbox ended: {0}")]
    Ended(String),
}

/// What all doors share.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) description: Description,
    pub(crate) signer: Signer,
    /// The size up to which tokens are filled where no setting names another.
    pub(crate) token_bytes: usize,
}

/// A running sandbox.
pub struct Sandbox {
    shared: Arc<Shared>,
    data_dir: PathBuf,
    listeners: Vec<JoinHandle<()>>,
    _lock: File,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("description", &self.shared.description).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Starts on a folder; what was there before is there again.
    pub async fn start(options: SandboxOptions) -> Result<Self, SandboxError> {
        let folder = options.data_dir.display().to_string();
        let token_bytes = options.token_bytes.min(MOST_TOKEN_BYTES);
        let failed = |source| SandboxError::Folder { folder: folder.clone(), source };
        private_dir(&options.data_dir).map_err(failed)?;
        let data_dir = options.data_dir.canonicalize().map_err(failed)?;
        let lock = lock(&data_dir)?;
        // Keys and secrets lie here, perhaps in somebody's work tree.
        kept(&data_dir.join(".gitignore"), || "*\n".to_owned()).map_err(failed)?;
        // Of one that was killed.
        let _ = fs::remove_file(data_dir.join(FILE));
        let authority = listen(&data_dir, "authority.port", options.authority_listen).await?;
        let vault = listen(&data_dir, "vault.port", options.vault_listen).await?;
        let tls = server_config(&data_dir).map_err(failed)?;
        let description = describe(&data_dir, &authority, &vault).map_err(failed)?;
        let signer = Signer::open(&data_dir).map_err(failed)?;
        let mut state = State::open(&data_dir).await?;
        graph::furnish(&mut state, &description).await?;
        let shared = Arc::new(Shared { state: Mutex::new(state), description, signer, token_bytes });
        let doors = entra::routes().merge(oidc::routes()).merge(graph::routes()).merge(control::routes());
        let doors = doors.layer(map_response_with_state(Arc::clone(&shared), dated));
        let listeners = vec![
            tokio::spawn(serve::run(authority, Arc::clone(&tls), doors.with_state(Arc::clone(&shared)))),
            tokio::spawn(serve::run(vault, tls, vault::routes().with_state(Arc::clone(&shared)))),
        ];
        let text = serde_json::to_vec_pretty(&shared.description).unwrap_or_default();
        write_private(&data_dir.join(FILE), &text).map_err(failed)?;
        Ok(Self { shared, data_dir, listeners, _lock: lock })
    }

    /// Where everything is.
    pub fn description(&self) -> &Description {
        &self.shared.description
    }

    /// Ends when a listener dies, which none should.
    pub async fn ended(&mut self) -> SandboxError {
        let (first, second) = self.listeners.split_at_mut(1);
        let ended = tokio::select! {
            ended = &mut first[0] => ended,
            ended = &mut second[0] => ended,
        };
        SandboxError::Ended(ended.err().map_or_else(|| "without a word".to_owned(), |e| e.to_string()))
    }

    /// Stops; bounded.
    pub async fn shutdown(self) {
        // Gone already is as good.
        let _ = fs::remove_file(self.data_dir.join(FILE));
        self.listeners.iter().for_each(JoinHandle::abort);
        let _ = tokio::time::timeout(Duration::from_secs(2), async {
            self.shared.state.lock().await.close().await
        })
        .await;
    }
}

/// What does not follow a client's own clock tells the tenant's.
async fn dated(Extract(shared): Extract<Arc<Shared>>, answer: Reply) -> Reply {
    if answer.headers().contains_key(header::DATE) {
        return answer;
    }
    Moment::of(&*shared.state.lock().await, "").dated(answer)
}

/// One sandbox at a time on a folder. The lock ends with the file, or with the process.
fn lock(folder: &Path) -> Result<File, SandboxError> {
    let name = folder.display().to_string();
    let failed = |source| SandboxError::Folder { folder: name.clone(), source };
    let mut file = private_file(&folder.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(source)) => return Err(failed(source)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(failed)?;
            return Err(SandboxError::InUse { folder: name, holder });
        }
    }
    file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

/// Listens; a port that was drawn is kept in a file, so that the URLs stay the same.
async fn listen(data_dir: &Path, file: &str, wanted: SocketAddr) -> Result<TcpListener, SandboxError> {
    let failed = |source| SandboxError::Folder { folder: data_dir.display().to_string(), source };
    let mut address = wanted;
    if wanted.port() == 0
        && let Ok(text) = fs::read_to_string(data_dir.join(file))
        && let Ok(port) = text.trim().parse()
    {
        address.set_port(port);
    }
    let listener =
        TcpListener::bind(address).await.map_err(|source| SandboxError::Address { address, source })?;
    if wanted.port() == 0 {
        let port = listener.local_addr().map_err(failed)?.port();
        write_private(&data_dir.join(file), port.to_string().as_bytes()).map_err(failed)?;
    }
    Ok(listener)
}

fn describe(data_dir: &Path, authority: &TcpListener, vault: &TcpListener) -> io::Result<Description> {
    let url = format!("https://localhost:{}", authority.local_addr()?.port());
    let vault_port = vault.local_addr()?.port();
    let tenant = kept(&data_dir.join("tenant"), || Uuid::new_v4().to_string())?;
    let authority = format!("{url}/{tenant}");
    let oidc = format!("{url}/oidc");
    Ok(Description {
        pid: std::process::id(),
        ca_file: data_dir.join(CA_FILE),
        vault: VaultPlace {
            url: format!("https://localhost:{vault_port}"),
            named_url: format!("https://{}.{}:{vault_port}", vault::SECRET_NAME, vault::DOMAIN),
            named_resource: format!("https://{}:{vault_port}", vault::DOMAIN),
            scope: format!("{}/.default", graph::VAULT_API),
            secret: vault::SECRET_NAME.into(),
        },
        entra: EntraTenant {
            issuer: format!("{authority}/v2.0"),
            token_endpoint: format!("{authority}/oauth2/v2.0/token"),
            jwks_uri: format!("{authority}/discovery/v2.0/keys"),
            graph: format!("{url}/v1.0"),
            graph_scope: format!("{}/.default", graph::GRAPH_API),
            scopes: vec![format!("{}/.default", graph::VAULT_API), format!("{}/.default", graph::ORDERS_API)],
            authority,
            tenant,
        },
        oidc: OidcTenant {
            token_endpoint: format!("{oidc}/token"),
            jwks_uri: format!("{oidc}/jwks"),
            registration_endpoint: format!("{oidc}/reg"),
            revocation_endpoint: format!("{oidc}/token/revocation"),
            introspection_endpoint: format!("{oidc}/token/introspection"),
            issuer: oidc,
            resources: vec![graph::ORDERS_API.into()],
            scopes: vec!["orders.read".into(), "orders.write".into()],
        },
        administrator: Administrator {
            client_id: kept(&data_dir.join("administrator"), || Uuid::new_v4().to_string())?,
            client_secret: kept(&data_dir.join("administrator.secret"), random_secret)?,
        },
        initial_access_token: kept(&data_dir.join("initial-access-token"), random_secret)?,
        url,
    })
}

pub(crate) fn random_secret() -> String {
    crate::jwt::base64url(&rand::rng().random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_description;

    #[tokio::test]
    async fn a_second_sandbox_on_a_folder_is_told_who_has_it_and_harms_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let first = Sandbox::start(SandboxOptions::new(folder.path())).await.unwrap();
        let second = Sandbox::start(SandboxOptions::new(folder.path())).await.unwrap_err().to_string();
        assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
        assert_eq!(read_description(folder.path()).unwrap().url, first.description().url);
        first.shutdown().await;
        Sandbox::start(SandboxOptions::new(folder.path())).await.unwrap().shutdown().await;
    }

    #[tokio::test]
    async fn a_description_whose_process_is_gone_describes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::start(SandboxOptions::new(folder.path())).await.unwrap();
        let mut stale = sandbox.description().clone();
        sandbox.shutdown().await;
        // Above every id that the kernel gives out.
        stale.pid = i32::MAX as u32;
        fs::write(folder.path().join(FILE), serde_json::to_vec(&stale).unwrap()).unwrap();
        let error = read_description(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no sandbox runs on") && error.contains("is gone"), "{error}");
    }
}
