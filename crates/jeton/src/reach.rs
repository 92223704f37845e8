//! How the command line reaches a running broker: by its data directory, or by naming a listener.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::endpoints::{Endpoints, Missing};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the head of an answer: longer than the broker's own longest wait, for a token or for an authority that revokes. A stream goes on.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What the command line says about where the broker is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Whereabouts {
    /// The data directory of a running broker
    #[arg(long, value_name = "DIR", default_value = "./.jeton", env = "JETON_DATA_DIR", global = true)]
    pub(crate) data_dir: PathBuf,
    /// The data plane's address: 127.0.0.1:7411
    #[arg(long, value_name = "ADDRESS", global = true, conflicts_with = "socket")]
    pub(crate) endpoint: Option<String>,
    /// The data plane's unix socket
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) socket: Option<PathBuf>,
    /// The admin plane's unix socket
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) admin_socket: Option<PathBuf>,
}

/// No broker answers there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreachable(pub(crate) String);

/// A broker is there, and does not let this user in.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(String);

impl Whereabouts {
    /// A connection to the data plane.
    pub(crate) async fn data_plane(&self) -> anyhow::Result<Channel> {
        match (&self.endpoint, &self.socket) {
            (Some(address), _) => over_tcp(address).await,
            (None, Some(path)) => over_unix(path, |_| Ok(()), CALL_TIMEOUT).await,
            (None, None) => over_unix(&self.running()?.grpc_socket, |_| Ok(()), CALL_TIMEOUT).await,
        }
    }

    /// A connection to the admin plane.
    pub(crate) async fn admin_plane(&self) -> anyhow::Result<Channel> {
        match &self.admin_socket {
            Some(path) => over_unix(path, |_| Ok(()), CALL_TIMEOUT).await,
            None => over_unix(&self.running()?.admin_socket, ours, CALL_TIMEOUT).await,
        }
    }

    /// What a running broker says of itself.
    pub(crate) fn running(&self) -> anyhow::Result<Endpoints> {
        Endpoints::find(&self.data_dir).map_err(|error| match error {
            Missing::Denied(text) => Refused(text).into(),
            other => Unreachable(other.to_string()).into(),
        })
    }
}

async fn over_tcp(address: &str) -> anyhow::Result<Channel> {
    let target = address.to_owned();
    let connector = service_fn(move |_: Uri| {
        let target = target.clone();
        async move { TcpStream::connect(target).await.map(TokioIo::new) }
    });
    let connected = lazy_endpoint(CALL_TIMEOUT).connect_with_connector(connector).await;
    connected.map_err(|e| no_connection(address, &e))
}

async fn over_unix(
    path: &Path,
    fits: fn(&UnixStream) -> io::Result<()>,
    patience: Duration,
) -> anyhow::Result<Channel> {
    let target = path.to_owned();
    let connector = service_fn(move |_: Uri| {
        let target = target.clone();
        async move {
            let stream = UnixStream::connect(target).await?;
            fits(&stream).map(|()| TokioIo::new(stream))
        }
    });
    let connected = lazy_endpoint(patience).connect_with_connector(connector).await;
    connected.map_err(|e| no_connection(&path.display().to_string(), &e))
}

/// A data directory may be anybody's, and what goes to the admin plane may be secret.
fn ours(stream: &UnixStream) -> io::Result<()> {
    known(stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw())
}

fn known(owner: u32, own: u32) -> io::Result<()> {
    let text = || {
        format!(
            "the broker there runs as user {owner}, and you are user {own}: name its socket with --admin-socket if you trust it"
        )
    };
    if owner == own { Ok(()) } else { Err(io::Error::new(io::ErrorKind::PermissionDenied, text())) }
}

fn lazy_endpoint(patience: Duration) -> Endpoint {
    // The connectors above decide where it goes; the name only fills the :authority header.
    Endpoint::from_static("http://localhost").connect_timeout(CONNECT_TIMEOUT).timeout(patience)
}

fn no_connection(place: &str, error: &(dyn Error + 'static)) -> anyhow::Error {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied) {
        return Refused(format!("{place} is not open to this user ({cause})")).into();
    }
    Unreachable(format!("no broker answers at {place} ({cause}): is it running? `jeton dev` starts one"))
        .into()
}

#[cfg(test)]
mod tests {
    use jeton_proto::v1::{self, event_service_client::EventServiceClient};

    use super::*;
    use crate::exit;

    #[tokio::test]
    async fn a_broker_that_hangs_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        // The kernel takes connections for it, as it does for a process that is stopped.
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let channel = over_unix(&path, |_| Ok(()), Duration::from_millis(20)).await.unwrap();
        let mut client = EventServiceClient::new(channel);
        let refused = client.list_events(v1::ListEventsRequest::default()).await.unwrap_err();
        assert_eq!(exit::of_status(&refused), 7, "{refused}");
        let said = exit::described(&refused.into());
        assert!(said.contains("no answer within 60 s") && said.contains("jeton status"), "{said}");
        let never_begun = client.watch_events(v1::WatchEventsRequest::default()).await.map(drop);
        assert_eq!(exit::of_status(&never_begun.unwrap_err()), 7);
    }

    #[test]
    fn a_socket_that_does_not_let_us_in_is_not_a_broker_that_is_gone() {
        let error = |kind: io::ErrorKind| no_connection("/run/data.sock", &io::Error::from(kind));
        assert!(error(io::ErrorKind::PermissionDenied).is::<Refused>());
        assert!(error(io::ErrorKind::ConnectionRefused).is::<Unreachable>());
        assert!(known(5, 5).is_ok());
        let other = no_connection("/run/admin.sock", &known(5, 6).unwrap_err());
        assert!(other.is::<Refused>() && other.to_string().contains("--admin-socket"), "{other}");
    }
}
