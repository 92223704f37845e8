//! Listeners, and the errors of not getting one.

use std::{
    fs, io,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{fs::PermissionsExt, net::UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::Peer;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket with a file mode.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Such as 0o600.
        mode: u32,
    },
}

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket; the file that it made goes with the listener. None: somebody else made it.
    Unix(UnixListener, Option<PathBuf>),
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    /// The address is taken, or not ours.
    #[error(
        "cannot listen on {address}: {source}; stop the program that has it, or configure another address"
    )]
    Address {
        /// Which.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Another process serves this socket.
    #[error("{0} is served by another process: stop that one, or configure another path")]
    Served(String),
}

/// A connection of either kind.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// A unix socket, whose kernel knows more of the peer.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(stream) => Some(stream.as_fd()),
        }
    }
}

impl Listener {
    /// Binds. A socket file that nobody serves any more is replaced.
    pub async fn bind(listen: &Listen) -> Result<Self, DoorError> {
        match listen {
            Listen::Tcp(address) => {
                let bound = TcpListener::bind(address).await;
                bound
                    .map(Self::Tcp)
                    .map_err(|source| DoorError::Address { address: address.to_string(), source })
            }
            Listen::Unix { path, mode } => bind_unix(path, *mode),
        }
    }

    /// The path of the unix socket, if it is one that has a path.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(listener, _) => listener.local_addr().ok()?.as_pathname().map(Path::to_owned),
        }
    }

    /// The TCP address, if it is one.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Peer::Tcp { remote }))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred()?;
                Ok((Stream::Unix(stream), Peer::Unix { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() }))
            }
        }
    }
}

fn bind_unix(path: &Path, mode: u32) -> Result<Listener, DoorError> {
    let shown = path.display().to_string();
    let failed = |source| DoorError::Address { address: shown.clone(), source };
    if path.exists() {
        if StdUnixStream::connect(path).is_ok() {
            return Err(DoorError::Served(shown));
        }
        fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(Listener::Unix(listener, Some(path.to_owned())))
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, Some(path)) = self {
            // Gone already is as good.
            let _ = fs::remove_file(path);
        }
    }
}
