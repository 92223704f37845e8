//! The operator's page, for a browser on the same machine.
//!
//! It is a client of the admin plane like every other command: what it shows comes from RPCs, what it changes is done by RPCs in the name
//! of whoever started it, and the broker decides and records as it does for them. So the broker has no listener for browsers, and nothing
//! here can ask for a token or a key. The listener is on loopback; one link, used once, lets one browser in.

mod api;
mod failure;
mod guard;
mod login;
mod page;
mod serve;
pub mod shown;
mod unread;

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;
use tonic::transport::Channel;

use login::Login;

/// The page's listener, before it serves.
#[derive(Debug)]
pub struct Console {
    listener: TcpListener,
    address: SocketAddr,
    login: Login,
    link: String,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// Whoever reaches the listener need only have the link.
    #[error(
        "{0} is not on loopback: the console listens there alone (from elsewhere: ssh -L, docs/console.md)"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be had.
    #[error("{address} cannot be listened on: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// No random bytes.
    #[error("the system gives no random bytes for the login link")]
    Random,
}

impl Console {
    /// Opens the listener; port 0: a free one.
    pub async fn bind(address: SocketAddr) -> Result<Self, ConsoleError> {
        if !address.ip().is_loopback() {
            return Err(ConsoleError::NotLoopback(address));
        }
        let failed = |error| ConsoleError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (login, code) = Login::new().ok_or(ConsoleError::Random)?;
        Ok(Self { listener, address, login, link: format!("http://{address}/login?code={code}") })
    }

    /// The link that lets one browser in, once. Whoever has it first has the console.
    pub fn link(&self) -> &str {
        &self.link
    }

    /// Serves until `stop` ends, and then cuts what is left.
    pub async fn serve(self, broker: Channel, stop: impl Future<Output = ()>) {
        let routes = guard::guarded(api::routes(broker), self.address, self.login);
        serve::serve(self.listener, routes, stop).await;
    }
}
