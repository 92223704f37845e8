//! Whoever started the process and watches over it, such as systemd: it may hand over sockets that it made (`sd_listen_fds`), and is
//! told how far we are (`sd_notify`). Without one, sockets are bound here and nobody is told.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::{
        fd::AsFd,
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener as StdUnixListener},
        },
    },
    path::Path,
    time::Duration,
};

use anyhow::Context;
use jeton_server::{door::Listener, managed_identity::Flavour};
use listenfd::ListenFd;
use rustix::{
    net::sockopt::socket_acceptconn,
    time::{ClockId, clock_gettime},
};
use tokio::net::{TcpListener, UnixListener};

use crate::exit::Misuse;

/// The names of sockets beside those of the endpoints for SDKs.
pub(crate) const DATA: &str = "data";
pub(crate) const DATA_TLS: &str = "data-tls";
pub(crate) const ADMIN: &str = "admin";
pub(crate) const ADMIN_TLS: &str = "admin-tls";

/// The longest that telling may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the supervisor is told.
#[derive(Debug)]
pub(crate) enum State<'a> {
    /// It serves; a line for people.
    Ready(&'a str),
    /// Its configuration is read again. Ready comes after it.
    Reloading,
    Stopping,
    /// It still turns.
    Alive,
}

/// Tells the supervisor, if there is one.
pub(crate) fn tell(state: &State<'_>) {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&place, &state.text()) {
        tracing::warn!(%error, ?place, "the supervisor cannot be told ({state:?})");
    }
}

/// Tells it again and again that the process still turns, where it wants to hear that (`WatchdogSec=`). Never ends.
pub(crate) async fn keep_telling() {
    let Some(within) = watched() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(within / 2);
    loop {
        ticks.tick().await;
        tell(&State::Alive);
    }
}

/// How long the supervisor waits for that.
fn watched() -> Option<Duration> {
    let ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
    let within = std::env::var("WATCHDOG_USEC").ok()?.parse().ok().filter(|within| ours && *within > 1)?;
    Some(Duration::from_micros(within))
}

impl State<'_> {
    fn text(&self) -> String {
        match self {
            Self::Ready(status) => format!("READY=1\nSTATUS={status}\n"),
            Self::Reloading => {
                let now = clock_gettime(ClockId::Monotonic);
                let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
                format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=Reading the configuration\n")
            }
            Self::Stopping => "STOPPING=1\nSTATUS=Draining\n".into(),
            Self::Alive => "WATCHDOG=1\n".into(),
        }
    }
}

fn send(place: &OsStr, text: &str) -> io::Result<()> {
    let address = match place.as_bytes().strip_prefix(b"@") {
        Some(name) => UnixAddress::from_abstract_name(name),
        None => UnixAddress::from_pathname(place),
    }?;
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}

/// Sockets that were handed over, by the names that they have there (`FileDescriptorName=`). The configuration says where each door is;
/// a socket that was handed over for it listens there already.
#[derive(Debug, Default)]
pub(crate) struct HandedOver(BTreeMap<String, Socket>);

#[derive(Debug)]
enum Socket {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
}

impl HandedOver {
    /// Takes all. It changes the environment, so it is called before there is a second thread.
    pub(crate) fn take_all() -> anyhow::Result<Self> {
        let ours = std::env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(std::process::id()));
        if !ours {
            return Ok(Self::default());
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let (mut descriptors, mut sockets) = (ListenFd::from_env(), BTreeMap::new());
        for n in 0..descriptors.len() {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned();
            let socket = Socket::of(&mut descriptors, n)
                .with_context(|| format!("the socket {name:?} that was handed over"))?;
            if sockets.insert(name.clone(), socket).is_some() {
                return Err(wrong(format!(
                    "two sockets that were handed over are named {name:?}: give each a unit and a FileDescriptorName= of its own"
                )));
            }
        }
        Ok(Self(sockets))
    }

    /// The TCP listener of that name, if it was handed over. It listens at `address`.
    pub(crate) fn tcp(&mut self, name: &str, address: SocketAddr) -> anyhow::Result<Option<Listener>> {
        let Some(socket) = self.0.remove(name) else { return Ok(None) };
        let Socket::Tcp(socket) = socket else {
            return Err(wrong(format!("the socket {name:?} that was handed over is no TCP listener")));
        };
        let there = socket.local_addr()?;
        if there != address {
            return Err(elsewhere(name, &there, &address));
        }
        socket.set_nonblocking(true)?;
        Ok(Some(Listener::Tcp(TcpListener::from_std(socket)?)))
    }

    /// The unix socket of that name, if it was handed over. It is at `path`.
    pub(crate) fn unix(&mut self, name: &str, path: &Path) -> anyhow::Result<Option<Listener>> {
        let Some(socket) = self.0.remove(name) else { return Ok(None) };
        let Socket::Unix(socket) = socket else {
            return Err(wrong(format!("the socket {name:?} that was handed over is no unix stream socket")));
        };
        let address = socket.local_addr()?;
        let there = address.as_pathname().unwrap_or(Path::new("(without a path)"));
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if real(there) != real(path) {
            return Err(elsewhere(name, &there.display(), &path.display()));
        }
        socket.set_nonblocking(true)?;
        Ok(Some(Listener::Unix(UnixListener::from_std(socket)?, None)))
    }

    /// A socket that nobody serves would keep its callers waiting.
    pub(crate) fn none_is_left(&self) -> anyhow::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let left: Vec<_> = self.0.keys().map(String::as_str).collect();
        let known: Vec<_> = [DATA, DATA_TLS, ADMIN, ADMIN_TLS]
            .into_iter()
            .chain(Flavour::ALL.into_iter().map(Flavour::name))
            .collect();
        Err(wrong(format!(
            "no door of this configuration takes the sockets that were handed over as {}; known names are {} (FileDescriptorName=), each with its address in the configuration",
            left.join(", "),
            known.join(", ")
        )))
    }
}

impl Socket {
    fn of(descriptors: &mut ListenFd, n: usize) -> anyhow::Result<Self> {
        // What is of the other kind is an error here, and stays.
        let socket = match descriptors.take_unix_listener(n) {
            Ok(unix) => unix.map(Self::Unix),
            Err(_) => descriptors.take_tcp_listener(n)?.map(Self::Tcp),
        };
        let socket = socket.context("it is not there")?;
        let descriptor = match &socket {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        };
        anyhow::ensure!(socket_acceptconn(descriptor)?, "it does not listen: set Accept=no in its unit");
        Ok(socket)
    }
}

fn wrong(text: String) -> anyhow::Error {
    Misuse(text).into()
}

fn elsewhere(name: &str, there: &dyn std::fmt::Display, here: &dyn std::fmt::Display) -> anyhow::Error {
    wrong(format!(
        "the socket {name:?} that was handed over is at {there}, and the configuration says {here}: make them the same"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_supervisor_is_told_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("jeton-test-{}", std::process::id());
        let there = UnixAddress::from_abstract_name(name.as_bytes()).unwrap();
        let sockets = [UnixDatagram::bind(&path).unwrap(), UnixDatagram::bind_addr(&there).unwrap()];
        for (place, socket) in [path.into_os_string(), format!("@{name}").into()].iter().zip(sockets) {
            send(place, &State::Ready("Serving").text()).unwrap();
            let mut bytes = [0; 256];
            let length = socket.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"READY=1\nSTATUS=Serving\n");
        }
        assert!(send(OsStr::new("/nonexistent"), "READY=1").is_err());
    }

    #[tokio::test]
    async fn a_socket_counts_where_the_configuration_says_it_is_and_none_is_passed_over() {
        let bound = || StdTcpListener::bind("127.0.0.1:0").unwrap();
        let handed = |socket: StdTcpListener| HandedOver([("data-tls".into(), Socket::Tcp(socket))].into());
        let (socket, elsewhere) = (bound(), "127.0.0.1:1".parse().unwrap());
        let address = socket.local_addr().unwrap();
        let mut sockets = handed(socket);
        assert!(sockets.tcp("admin-tls", address).unwrap().is_none());
        let error = sockets.none_is_left().unwrap_err().to_string();
        assert!(error.contains("handed over as data-tls") && error.contains("app-service"), "{error}");
        let listener = sockets.tcp("data-tls", address).unwrap().unwrap();
        assert_eq!(listener.tcp_address(), Some(address));
        sockets.none_is_left().unwrap();
        let error = handed(bound()).tcp("data-tls", elsewhere).unwrap_err().to_string();
        assert!(error.contains("the configuration says 127.0.0.1:1"), "{error}");
        assert!(handed(bound()).unix("data-tls", Path::new("/run/a.sock")).is_err());
    }
}
