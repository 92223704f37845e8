//! HTTPS to one server: bounded in time and size, no redirects, no proxy, no silent repetition.

use std::{
    error::Error,
    fmt,
    fs::OpenOptions,
    io::{self, Cursor, Read},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use jeton_trace::Span;
use rustix::fs::OFlags;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::Value;
use tokio::net::TcpStream;
use tower::{BoxError, ServiceExt, util::BoxCloneSyncService};

/// TCP and TLS, together within the time for connecting: whoever hangs in the handshake was sent nothing.
type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;

/// A client for one server.
#[derive(Clone)]
pub struct Http {
    client: Client<Connector, Full<Bytes>>,
    bounds: Bounds,
}

/// The bounds of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The longest time for connecting, TLS included.
    pub connect: Duration,
    /// The longest time for one call in all.
    pub call: Duration,
    /// A connection that is idle for longer is not used again.
    pub idle: Duration,
    /// Idle connections that are kept.
    pub max_idle: usize,
    /// The longest answer that is read.
    pub max_answer_bytes: usize,
    /// Whether URLs such as `http://127.0.0.1:8080/`, which leave the machine nowhere, may do without TLS.
    pub plain_loopback: bool,
}

/// What a server answered.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body; JSON null where it is no JSON.
    pub json: Value,
}

/// Why there is no answer. Exhaustive: whoever may have changed something by a request has to decide for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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

/// Most of a file of certificates; that of a whole system has a quarter of it.
const MAX_CA_BYTES: u64 = 1 << 20;

/// The certificates to trust: those of a PEM file, or the system's.
pub fn trust(ca_file: Option<&str>) -> Result<ClientConfig, HttpError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder =
        builder.with_safe_default_protocol_versions().map_err(|e| HttpError::Invalid(e.to_string()))?;
    Ok(builder.with_root_certificates(roots(ca_file)?).with_no_client_auth())
}

/// The same, for whoever shows a certificate of its own.
pub fn roots(ca_file: Option<&str>) -> Result<RootCertStore, HttpError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let wrong =
                |e: &dyn fmt::Display| HttpError::Invalid(format!("the CA file {path} cannot be used: {e}"));
            let pem = regular(path).map_err(|e| wrong(&e))?;
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
    Ok(roots)
}

/// A file that is one: whoever names a pipe or a device must not make the broker wait, or read without an end.
fn regular(path: &str) -> io::Result<Vec<u8>> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = vec![];
    file.take(MAX_CA_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_CA_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_CA_BYTES} bytes")));
    }
    Ok(bytes)
}

impl Http {
    /// A client with this trust and these limits.
    pub fn new(tls: ClientConfig, bounds: Bounds) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        let builder = if bounds.plain_loopback { builder.https_or_http() } else { builder.https_only() };
        let connector = builder.enable_http1().enable_http2().wrap_connector(tcp).map_future(
            move |connecting| async move {
                match tokio::time::timeout(bounds.connect, connecting).await {
                    Ok(connected) => connected,
                    Err(_) => Err(format!("no connection within {} s", bounds.connect.as_secs()).into()),
                }
            },
        );
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(bounds.idle)
            .pool_max_idle_per_host(bounds.max_idle)
            // A connection that leads nowhere any more must not take call after call to its deadline.
            .http2_keep_alive_interval(bounds.call / 4)
            .http2_keep_alive_timeout(bounds.call / 4)
            // A repeated request would carry the same assertion, which is spent.
            .retry_canceled_requests(false)
            .build(BoxCloneSyncService::new(connector));
        Self { client, bounds }
    }

    /// GET, with a bearer token if there is one.
    pub async fn read(&self, url: &str, bearer: Option<&str>) -> Result<Answer, HttpError> {
        self.read_as("application/json", url, bearer).await
    }

    /// GET of JSON that has a media type of its own: some servers give it under no other.
    pub async fn read_as(
        &self,
        accepted: &str,
        url: &str,
        bearer: Option<&str>,
    ) -> Result<Answer, HttpError> {
        let mut headers = with_bearer(bearer);
        headers.push(("accept", accepted.to_owned()));
        self.call(Method::GET, url, &headers, Bytes::new()).await
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
        headers.push(("accept", "application/json".to_owned()));
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
        headers.push(("accept", "application/json".to_owned()));
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
        let parsed = url::Url::parse(url).ok();
        let host = parsed.as_ref().map(host_and_port).unwrap_or_default();
        if !(url.starts_with("https://") || self.bounds.plain_loopback && is_plain_loopback(url)) {
            return Err(HttpError::Invalid(format!(
                "{url:?} is not an https URL; other machines are spoken to over TLS alone"
            )));
        }
        let span = jeton_trace::current().call(&method);
        if let Some(url) = parsed.filter(|_| span.is_recording()) {
            describe(&span, &method, url);
        }
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        // A header that cannot be sent would otherwise show its value in the error.
        let request = request
            .body(Full::new(body))
            .map_err(|_| HttpError::Invalid(format!("the request to {host} has a malformed header")))?;
        let answer = tokio::time::timeout(self.bounds.call, self.exchange(request, &host)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(HttpError::Interrupted {
                host,
                cause: format!("no answer within {} s", self.bounds.call.as_secs()),
            })
        });
        match &answer {
            Ok(answer) => {
                span.number("http.response.status_code", answer.status);
                if answer.status >= 400 {
                    span.fail(answer.status);
                }
            }
            Err(HttpError::Unreachable { .. }) => span.fail("unreachable"),
            Err(_) => span.fail("interrupted"),
        }
        answer
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
        let read = Limited::new(body, self.bounds.max_answer_bytes).collect().await;
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

    /// A header of the answer, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Tells of a call what anybody may know: of its URL neither a password nor a parameter.
fn describe(span: &Span, method: &Method, mut url: url::Url) {
    span.text("http.request.method", method);
    span.text("server.address", url.host_str().unwrap_or_default());
    span.number("server.port", url.port_or_known_default().unwrap_or_default());
    // They fail where there is nothing to take out.
    let _ = (url.set_username(""), url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    span.text("url.full", url);
}

/// A header with a bearer token, or none.
fn with_bearer(token: Option<&str>) -> Vec<(&'static str, String)> {
    token.map(|token| ("authorization", format!("Bearer {token}"))).into_iter().collect()
}

/// Whether a URL goes to this very machine without TLS, by an address that no name service has a say in.
pub fn is_plain_loopback(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    url.scheme() == "http" && address.is_ok_and(|a| a.is_loopback())
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
    use std::sync::mpsc::channel;

    use jeton_trace::{Kind, Sampler, Tracer, Value as Said};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn bounds(plain_loopback: bool) -> Bounds {
        let (connect, call) = (Duration::from_secs(1), Duration::from_secs(30));
        Bounds { connect, call, idle: connect, max_idle: 1, max_answer_bytes: 1 << 10, plain_loopback }
    }

    #[test]
    fn a_file_of_certificates_is_a_regular_one_of_bounded_size() {
        let folder = tempfile::tempdir().unwrap();
        let [pipe, large, other] = ["pipe", "large", "other"].map(|name| folder.path().join(name));
        // Whoever opens a pipe to read it waits for a writer.
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        std::fs::write(&large, vec![b' '; (MAX_CA_BYTES + 1) as usize]).unwrap();
        std::fs::write(&other, "no certificate").unwrap();
        let wrong = [
            (pipe.to_str().unwrap(), "no regular file"),
            ("/dev/zero", "no regular file"),
            (folder.path().to_str().unwrap(), "no regular file"),
            (large.to_str().unwrap(), "more than"),
            (other.to_str().unwrap(), "no CERTIFICATE block"),
            ("/nowhere/ca.pem", "No such file"),
        ];
        for (path, why) in wrong {
            let error = trust(Some(path)).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(path), "{error}");
        }
    }

    #[tokio::test]
    async fn only_an_address_of_this_machine_may_do_without_tls_and_only_where_that_is_said() {
        for (url, is) in [
            ("http://127.0.0.1:8080/keys", true),
            ("http://[::1]/keys", true),
            ("http://localhost/keys", false),
            ("http://127.0.0.1.example/keys", false),
            ("http://127.0.0.1@issuer.example/keys", false),
            ("http://10.0.0.1/keys", false),
            ("https://127.0.0.1/keys", false),
        ] {
            assert_eq!(is_plain_loopback(url), is, "{url}");
        }
        let refusing = Http::new(trust(None).unwrap(), bounds(false));
        for (http, url) in [
            (&refusing, "http://127.0.0.1:1/"),
            (&Http::new(trust(None).unwrap(), bounds(true)), "http://issuer.example/"),
        ] {
            assert!(matches!(http.read(url, None).await, Err(HttpError::Invalid(_))), "{url}");
        }
    }

    #[tokio::test]
    async fn a_recorded_call_tells_no_secret_of_its_url_and_the_server_nothing_of_the_trace() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\ngrant_type=client_credentials") {
                assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
            }
            stream.write_all(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            String::from_utf8(head).unwrap()
        });
        let (tell, told) = channel();
        let tracer = Tracer::new(Sampler::ratio(1.0), Arc::new(move |ended| tell.send(ended).unwrap()));
        let http = Http::new(trust(None).unwrap(), bounds(true));
        let url = format!("http://user:canary@127.0.0.1:{port}/token?code=canary#canary");
        let headers = [("authorization", "Bearer canary".to_owned())];
        let form = [("grant_type", "client_credentials")];
        let asking = tracer.root("flight").within(async { http.form(&url, &headers, &form).await });
        assert_eq!(asking.await.unwrap().status, 401);
        let head = serving.await.unwrap().to_ascii_lowercase();
        let mut names: Vec<_> =
            head.lines().skip(1).filter_map(|line| Some(line.split_once(": ")?.0)).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "authorization", "content-length", "content-type", "host"], "{head}");
        let call = told.recv().unwrap();
        let text = |text: &str| Said::Text(text.into());
        let expected = [
            ("http.request.method", text("POST")),
            ("server.address", text("127.0.0.1")),
            ("server.port", Said::Number(port.into())),
            ("url.full", text(&format!("http://127.0.0.1:{port}/token"))),
            ("http.response.status_code", Said::Number(401)),
            ("error.type", text("401")),
        ];
        assert_eq!((&*call.name, call.kind, call.failed), ("POST", Kind::Client, true));
        assert_eq!(call.attributes, expected);
        assert_eq!(call.parent.unwrap().span_id, told.recv().unwrap().context.span_id);
    }

    #[tokio::test]
    async fn a_connection_that_leads_nowhere_any_more_is_replaced() {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
        let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let mut server = server.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        server.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let client =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let mut silent = vec![];
            for n in 0.. {
                let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                if n == 0 {
                    // It stays open, and nobody reads from it.
                    silent.push(connection);
                    continue;
                }
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_response(http::Response::new(()), true).unwrap();
                }
            }
        });
        let short = Bounds { call: Duration::from_secs(2), idle: Duration::from_secs(60), ..bounds(false) };
        let http = Http::new(client, short);
        assert!(http.read(&url, None).await.is_err());
        // On a busy machine a new one may take several tries; the old one would fail them all.
        let mut answered = false;
        for _ in 0..5 {
            answered = answered || http.read(&url, None).await.is_ok();
        }
        assert!(answered);
        serving.abort();
    }

    #[tokio::test]
    async fn a_host_that_hangs_in_the_handshake_was_sent_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/reg", listener.local_addr().unwrap());
        let failed = Http::new(trust(None).unwrap(), bounds(false)).read(&url, None).await.unwrap_err();
        assert!(matches!(failed, HttpError::Unreachable { .. }), "{failed}");
        assert!(failed.to_string().contains("within 1 s"), "{failed}");
    }
}
