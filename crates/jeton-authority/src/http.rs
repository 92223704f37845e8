//! HTTPS to one authority: bounded in time and size, no redirects, no proxy, no silent repetition.

use std::{error::Error, fmt, io::Cursor, sync::Arc, time::Duration};

use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use jeton_core::profile::AuthorityLimits;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::Value;
use tokio::net::TcpStream;
use tower::{BoxError, ServiceExt, util::BoxCloneSyncService};

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// TCP and TLS, together within the time for connecting: whoever hangs in the handshake was sent nothing.
type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;

/// A client for one authority.
#[derive(Clone)]
pub struct Http {
    client: Client<Connector, Full<Bytes>>,
    call_timeout: Duration,
}

/// What an authority answered.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body; JSON null where it is no JSON.
    pub json: Value,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Nothing was sent: no connection, or no TLS.
    #[error("{host} cannot be reached: {cause}")]
    Unreachable {
        /// Which host, with its port where the URL names one.
        host: String,
        /// Why, without secrets.
        cause: String,
    },
    /// Something was sent and no complete answer came.
    #[error("{host} gave no complete answer: {cause}")]
    Interrupted {
        /// Which host, with its port where the URL names one.
        host: String,
        /// Why, without secrets.
        cause: String,
    },
    /// The request cannot be made.
    #[error("{0}")]
    Invalid(String),
}

/// The certificates to trust: those of a PEM file, or the system's.
pub fn trust(ca_file: Option<&str>) -> Result<ClientConfig, HttpError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let wrong =
                |e: &dyn fmt::Display| HttpError::Invalid(format!("the CA file {path} cannot be used: {e}"));
            let pem = std::fs::read(path).map_err(|e| wrong(&e))?;
            for certificate in CertificateDer::pem_reader_iter(Cursor::new(pem)) {
                roots.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
            }
            if roots.is_empty() {
                return Err(wrong(&"it has no CERTIFICATE block"));
            }
        }
        None => {
            let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder =
        builder.with_safe_default_protocol_versions().map_err(|e| HttpError::Invalid(e.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

impl Http {
    /// A client with this trust and these limits.
    pub fn new(tls: ClientConfig, limits: &AuthorityLimits) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connect_timeout = Duration::from_secs(u64::from(limits.connect_timeout_seconds));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(tcp)
            .map_future(move |connecting| async move {
                match tokio::time::timeout(connect_timeout, connecting).await {
                    Ok(connected) => connected,
                    Err(_) => Err(format!("no connection within {} s", connect_timeout.as_secs()).into()),
                }
            });
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(u64::from(limits.connection_idle_seconds)))
            .pool_max_idle_per_host(limits.max_concurrent as usize)
            // A repeated request would carry the same assertion, which is spent.
            .retry_canceled_requests(false)
            .build(BoxCloneSyncService::new(connector));
        Self { client, call_timeout: limits.call_timeout() }
    }

    /// GET, with a bearer token if there is one.
    pub async fn read(&self, url: &str, bearer: Option<&str>) -> Result<Answer, HttpError> {
        self.call(Method::GET, url, &with_bearer(bearer), Bytes::new()).await
    }

    /// Any method with a JSON body.
    pub async fn json(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, String)],
        body: &Value,
    ) -> Result<Answer, HttpError> {
        let mut headers = headers.to_vec();
        headers.push(("content-type", "application/json".to_owned()));
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        self.call(method, url, &headers, body).await
    }

    /// POST of a form.
    pub async fn form(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        form: &[(&str, &str)],
    ) -> Result<Answer, HttpError> {
        let mut headers = headers.to_vec();
        headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.call(Method::POST, url, &headers, Bytes::from(body)).await
    }

    async fn call(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<Answer, HttpError> {
        let host = url::Url::parse(url).map(|u| host_and_port(&u)).unwrap_or_default();
        if !url.starts_with("https://") {
            return Err(HttpError::Invalid(format!(
                "{url:?} is not an https URL; authorities are spoken to over TLS alone"
            )));
        }
        let mut request =
            Request::builder().method(method).uri(url).header(header::ACCEPT, "application/json");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        // A header that cannot be sent would otherwise show its value in the error.
        let request = request
            .body(Full::new(body))
            .map_err(|_| HttpError::Invalid(format!("the request to {host} has a malformed header")))?;
        match tokio::time::timeout(self.call_timeout, self.exchange(request, &host)).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Interrupted {
                host,
                cause: format!("no answer within {} s", self.call_timeout.as_secs()),
            }),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, host: &str) -> Result<Answer, HttpError> {
        let response = self.client.request(request).await.map_err(|e| {
            let (host, cause) = (host.to_owned(), root_cause(&e));
            if e.is_connect() {
                HttpError::Unreachable { host, cause }
            } else {
                HttpError::Interrupted { host, cause }
            }
        })?;
        let (parts, body) = response.into_parts();
        let read = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let bytes = read
            .map_err(|e| HttpError::Interrupted { host: host.to_owned(), cause: root_cause(&*e) })?
            .to_bytes();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, json })
    }
}

impl Answer {
    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A text member of the body; empty if it is not there.
    pub fn text(&self, member: &str) -> &str {
        self.json[member].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A header with a bearer token, or none.
pub(crate) fn with_bearer(token: Option<&str>) -> Vec<(&'static str, String)> {
    token.map(|token| ("authorization", format!("Bearer {token}"))).into_iter().collect()
}

/// Without a user and a password, which the URL may hold.
fn host_and_port(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_host_that_hangs_in_the_handshake_was_sent_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/reg", listener.local_addr().unwrap());
        let limits = AuthorityLimits { connect_timeout_seconds: 1, ..AuthorityLimits::default() };
        let failed = Http::new(trust(None).unwrap(), &limits).read(&url, None).await.unwrap_err();
        assert!(matches!(failed, HttpError::Unreachable { .. }), "{failed}");
        assert!(failed.to_string().contains("within 1 s"), "{failed}");
    }
}
