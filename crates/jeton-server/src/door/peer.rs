//! Who is at the door, by where it comes from. The principal is fixed for the life of the connection.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
};

use jeton_core::{Principal, Wall};

/// What the listener knows of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP connection.
    Tcp {
        /// From where; says nothing of who.
        remote: SocketAddr,
    },
    /// A unix socket, with the peer's credentials at the time of its connect.
    Unix {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Process id, if the kernel tells.
        pid: Option<i32>,
    },
}

impl Peer {
    /// By which its lines in the log are counted: ports and processes are drawn anew each time.
    pub(crate) fn subject(&self) -> (Option<IpAddr>, Option<u32>) {
        match self {
            Self::Tcp { remote } => (Some(remote.ip().to_canonical()), None),
            Self::Unix { uid, .. } => (None, Some(*uid)),
        }
    }
}

/// From where, as the log and the audit log show it.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { remote } => remote.fmt(f),
            Self::Unix { uid, pid: Some(pid), .. } => write!(f, "unix uid {uid} pid {pid}"),
            Self::Unix { uid, .. } => write!(f, "unix uid {uid}"),
        }
    }
}

/// The authenticated caller of a request; in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// How it came.
    pub peer: Peer,
    /// When its credential ends; none: with the connection.
    pub until: Option<Wall>,
}

/// A peer that is not let in. The peer hears nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Decides who a peer is.
pub trait Authenticate: Send + Sync + 'static {
    /// The peer's principal. `socket`: its connection, where more is to be asked about it.
    fn authenticate(&self, peer: &Peer, socket: Option<BorrowedFd<'_>>) -> Result<Principal, Refusal>;
}

/// Local users, by the credentials of the unix socket.
#[derive(Debug, Clone)]
pub(crate) struct UnixPeer {
    /// Tells this machine from others.
    pub(crate) node: String,
}

impl Authenticate for UnixPeer {
    fn authenticate(&self, peer: &Peer, _: Option<BorrowedFd<'_>>) -> Result<Principal, Refusal> {
        match peer {
            Peer::Unix { uid, .. } => {
                Principal::unix_uid(&self.node, *uid).map_err(|e| Refusal(e.to_string()))
            }
            Peer::Tcp { .. } => Err(Refusal("a unix socket was expected".into())),
        }
    }
}

/// Every loopback connection is `loopback://dev`. For `jeton dev` alone.
#[derive(Debug, Clone, Copy)]
pub struct LoopbackDev;

impl Authenticate for LoopbackDev {
    fn authenticate(&self, peer: &Peer, _: Option<BorrowedFd<'_>>) -> Result<Principal, Refusal> {
        match peer {
            Peer::Tcp { remote } if remote.ip().is_loopback() => Ok(Principal::loopback_dev()),
            _ => Err(Refusal("not a loopback connection".into())),
        }
    }
}

/// Whoever reaches the listener: it stands where one service alone does, such as on the loopback of its pod.
#[derive(Debug, Clone)]
pub struct Configured(pub Principal);

impl Authenticate for Configured {
    fn authenticate(&self, _: &Peer, _: Option<BorrowedFd<'_>>) -> Result<Principal, Refusal> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(uid: u32) -> Peer {
        Peer::Unix { uid, gid: 1, pid: None }
    }

    #[test]
    fn a_local_user_is_known_by_its_uid_on_this_node() {
        let door = UnixPeer { node: "n1".into() };
        assert_eq!(door.authenticate(&unix(1000), None).unwrap().as_str(), "unix://n1/uid/1000");
        assert!(door.authenticate(&Peer::Tcp { remote: "127.0.0.1:1".parse().unwrap() }, None).is_err());
    }

    #[test]
    fn a_peer_is_shown_as_an_operator_would_say_it() {
        let tcp = Peer::Tcp { remote: "[::1]:9".parse().unwrap() };
        let process = Peer::Unix { uid: 1000, gid: 1, pid: Some(5) };
        let shown = [tcp, process, unix(7)].map(|peer| peer.to_string());
        assert_eq!(shown, ["[::1]:9", "unix uid 1000 pid 5", "unix uid 7"]);
    }

    #[test]
    fn only_loopback_is_the_dev_principal() {
        let from = |text: &str| LoopbackDev.authenticate(&Peer::Tcp { remote: text.parse().unwrap() }, None);
        assert!(from("127.0.0.1:9").is_ok() && from("[::1]:9").is_ok());
        assert!(from("10.0.0.1:9").is_err());
    }
}
