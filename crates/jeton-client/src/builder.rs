//! How a client is set up.

use std::{path::PathBuf, time::Duration};

use tokio::runtime::Handle;

use crate::{
    bearer::BearerFile, broker::Broker, client::Client, clock::Clock, connect::Place, error::Error,
    flight::Core, near::Near, tls::TlsFiles,
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Whoever would wait longer asks again.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3_600);

/// What a broker lets one stream watch.
const MAX_KEYS: usize = 1_000;
const MAX_WAITING: usize = 10_000;
/// What one semaphore can count.
const MOST: usize = 1_000_000;

/// Sets up a [`Client`]. Only the endpoint has no default.
#[derive(Default)]
#[must_use]
pub struct Builder {
    endpoint: Option<String>,
    ca_file: Option<PathBuf>,
    server_name: Option<String>,
    client_certificate: Option<(PathBuf, PathBuf)>,
    bearer_token_file: Option<PathBuf>,
    timeout: Option<Duration>,
    max_keys: Option<usize>,
    max_waiting: Option<usize>,
    clock: Clock,
    #[cfg(feature = "testing")]
    transport: Option<Transport>,
}

#[cfg(feature = "testing")]
type Transport = Box<dyn Fn() -> std::io::Result<tokio::io::DuplexStream> + Send + Sync>;

impl Builder {
    /// Where the broker is: `unix:/run/jeton/data.sock`, `https://broker.example:7412`, or on this machine `http://127.0.0.1:7411`.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// Certificates (PEM) of the authorities that the broker's certificate may come from. Read again at each connection.
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// The DNS name or IP address in the broker's certificate, where it is not the endpoint's.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The certificate chain and the key (PEM) that say who this program is. Read again at each connection, so whatever replaces them
    /// (SPIFFE helpers, cert-manager) needs no notice; a broker ends a connection with the certificate that it came with.
    pub fn client_certificate(mut self, cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        self.client_certificate = Some((cert_file.into(), key_file.into()));
        self
    }

    /// A file with the bearer token that says who this program is, such as a projected service account token. Read again every ten
    /// seconds, and when the broker refuses the token.
    pub fn bearer_token_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.bearer_token_file = Some(file.into());
        self
    }

    /// The longest that a call waits for a token that is not in memory. 10 s unless set, at most an hour.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout.min(LONGEST_TIMEOUT));
        self
    }

    /// The most tokens in memory, 1000 unless set; beyond them the least recently used goes. A broker lets one stream watch 1000; what
    /// it does not watch is asked for again ahead of its end.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = Some(keys);
        self
    }

    /// The most callers that wait for tokens at once, 10,000 unless set.
    pub fn max_waiting(mut self, callers: usize) -> Self {
        self.max_waiting = Some(callers);
        self
    }

    /// The wall clock and the boot-time clock, moved by hand.
    #[cfg(feature = "testing")]
    pub fn clock(
        mut self,
        read: impl Fn() -> (std::time::SystemTime, Duration) + Send + Sync + 'static,
    ) -> Self {
        self.clock = Clock::by_hand(std::sync::Arc::new(read));
        self
    }

    /// Connections made by hand, instead of an endpoint.
    #[cfg(feature = "testing")]
    pub fn transport(
        mut self,
        open: impl Fn() -> std::io::Result<tokio::io::DuplexStream> + Send + Sync + 'static,
    ) -> Self {
        self.transport = Some(Box::new(open));
        self
    }

    /// The client. It connects when it is first asked, so the broker need not run yet; files must be there.
    ///
    /// # Errors
    ///
    /// A setting is wrong, a file is of no use, or there is no tokio runtime.
    pub fn build(self) -> Result<Client, Error> {
        let bound = |setting, value: Option<usize>, usual| match value.unwrap_or(usual) {
            value @ 1..=MOST => Ok(value),
            _ => Err(Error::setting(setting, format!("1 to {MOST}"))),
        };
        let max_keys = bound("max_keys", self.max_keys, MAX_KEYS)?;
        let max_waiting = bound("max_waiting", self.max_waiting, MAX_WAITING)?;
        let timeout = self.timeout.unwrap_or(TIMEOUT);
        if timeout.is_zero() {
            return Err(Error::setting("timeout", "longer than nothing"));
        }
        let (near, bearer) = (Near::new(max_keys, self.clock.clone()), self.bearer_token_file.clone());
        let place = self.place()?;
        let runtime = Handle::try_current()
            .map_err(|_| Error::setting("runtime", "build the client inside of a tokio runtime"))?;
        let shown = place.shown();
        let broker = Broker::new(place.channel()?, bearer.map(BearerFile::new), shown);
        Ok(Client::start(Core::new(near, broker, max_waiting, timeout), &runtime))
    }

    fn place(self) -> Result<Place, Error> {
        #[cfg(feature = "testing")]
        if let Some(open) = self.transport {
            return Ok(Place::Given(Box::new(move || Ok(Box::new(open()?)))));
        }
        let tls = match (self.ca_file, self.client_certificate) {
            (Some(ca), client) => Some(TlsFiles { ca, client }),
            (None, Some(_)) => {
                return Err(Error::setting(
                    "client_certificate",
                    "needs ca_file beside it: whose certificates are trusted",
                ));
            }
            (None, None) => None,
        };
        let endpoint = self.endpoint.ok_or_else(|| Error::setting("endpoint", "say where the broker is"))?;
        Place::parse(&endpoint, tls, self.server_name.as_deref())
    }
}
