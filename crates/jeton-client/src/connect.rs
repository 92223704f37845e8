//! Where the broker is, and connections to it.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::{
    error::Error,
    tls::{Tls, TlsFiles},
};

/// For a connection with its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a silent peer is asked whether it is there, and how long it may take to say so: together less than a call may take.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3));
/// A token is a few kilobytes; a broker has no reason to fill more.
const WINDOW: u32 = 1024 * 1024;

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
pub(crate) type Stream = Box<dyn Io>;

/// A place that was found to make sense.
pub(crate) enum Place {
    Unix(PathBuf),
    Tcp(String),
    Tls(String, Box<Tls>),
    #[cfg(feature = "testing")]
    Given(Box<dyn Fn() -> io::Result<Stream> + Send + Sync>),
}

impl Place {
    /// `unix:/path`, `http://host:port` or `https://host:port`.
    pub(crate) fn parse(text: &str, tls: Option<TlsFiles>, server_name: Option<&str>) -> Result<Self, Error> {
        let wrong = |problem: &str| Error::setting("endpoint", format!("{text:?} {problem}"));
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match (tls, path) {
                (Some(_), _) => Err(wrong("is a unix socket, which has no TLS: leave the certificates away")),
                (None, "") => Err(wrong("names no socket")),
                (None, path) => Ok(Self::Unix(path.into())),
            };
        }
        let uri: Uri = text.parse().map_err(|_| wrong(FORMS))?;
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(wrong(FORMS)) };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("has more than a host and a port"));
        }
        let port = uri.port_u16().ok_or_else(|| wrong("names no port"))?;
        let (address, bare) = (format!("{host}:{port}"), host.trim_matches(['[', ']']));
        match (scheme, tls) {
            ("http", Some(_)) => Err(wrong("has no TLS: leave the certificates away, or write https://")),
            ("http", None) if is_loopback(bare) => Ok(Self::Tcp(address)),
            ("http", None) => Err(wrong("would carry tokens over a network in the clear: use https://")),
            ("https", None) => Err(wrong("needs Builder::ca_file: whose certificates are trusted")),
            ("https", Some(files)) => {
                let name = server_name.unwrap_or(bare).to_owned();
                let name =
                    ServerName::try_from(name).map_err(|e| Error::setting("server_name", e.to_string()))?;
                Ok(Self::Tls(address, Box::new(Tls::new(files, name)?)))
            }
            _ => Err(wrong(FORMS)),
        }
    }

    /// Its name for people.
    pub(crate) fn shown(&self) -> Arc<str> {
        match self {
            Self::Unix(path) => format!("unix:{}", path.display()).into(),
            Self::Tcp(address) => format!("http://{address}").into(),
            Self::Tls(address, _) => format!("https://{address}").into(),
            #[cfg(feature = "testing")]
            Self::Given(_) => "a given stream".into(),
        }
    }

    /// Connects when somebody calls, and anew when the connection broke.
    pub(crate) fn channel(self) -> Result<Channel, Error> {
        // On unix sockets the name only fills the :authority header.
        let (authority, scheme) = match &self {
            Self::Tcp(address) => (address.as_str(), "http"),
            Self::Tls(address, _) => (address.as_str(), "https"),
            _ => ("localhost", "http"),
        };
        let wrong = |e: &dyn std::fmt::Display| Error::setting("endpoint", e.to_string());
        // The connector below does TLS, so the library must not: the origin is what goes over the wire.
        let origin = format!("{scheme}://{authority}").parse::<Uri>().map_err(|e| wrong(&e))?;
        let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|e| wrong(&e))?;
        let endpoint = endpoint
            .origin(origin)
            .user_agent(concat!("jeton-client/", env!("CARGO_PKG_VERSION")))
            .map_err(|e| wrong(&e))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let place = Arc::new(self);
        let connector = service_fn(move |_: Uri| {
            let place = Arc::clone(&place);
            async move { place.open().await.map(TokioIo::new) }
        });
        Ok(endpoint.connect_with_connector_lazy(connector))
    }

    async fn open(&self) -> io::Result<Stream> {
        match self {
            #[cfg(unix)]
            Self::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
            #[cfg(not(unix))]
            Self::Unix(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "no unix sockets here")),
            Self::Tcp(address) => Ok(Box::new(connected(address).await?)),
            Self::Tls(address, tls) => {
                let config = tls.config().map_err(io::Error::other)?;
                let stream = connected(address).await?;
                Ok(Box::new(TlsConnector::from(config).connect(tls.server_name.clone(), stream).await?))
            }
            #[cfg(feature = "testing")]
            Self::Given(open) => open(),
        }
    }
}

const FORMS: &str = "is no address of a broker: write unix:/path, http://127.0.0.1:port or https://host:port";

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn connected(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_would_not_do_are_refused_with_what_would() {
        for (text, part) in [
            ("127.0.0.1:7411", "http://127.0.0.1:port"),
            ("unix:", "no socket"),
            ("http://10.0.0.1:7411", "in the clear"),
            ("http://broker.example:7411", "in the clear"),
            ("https://broker.example:7412", "Builder::ca_file"),
            ("http://127.0.0.1", "no port"),
            ("http://127.0.0.1:1/v1", "more than a host"),
            ("ftp://127.0.0.1:1", "unix:/path"),
        ] {
            let error = Place::parse(text, None, None).err().unwrap().to_string();
            assert!(error.contains(part) && error.contains(text), "{text}: {error}");
        }
        for text in ["unix:/run/data.sock", "unix:///run/data.sock", "unix:data.sock", "http://[::1]:7411"] {
            assert!(Place::parse(text, None, None).is_ok(), "{text}");
        }
        assert_eq!(
            &*Place::parse("unix:///run/data.sock", None, None).unwrap().shown(),
            "unix:/run/data.sock"
        );
    }
}
