//! A console in front of an admin plane that says what a test wrote down, and browsers that send whatever a test wants.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::Request, response::Response};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use jeton_console::Console;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};
use tonic::{
    Status,
    body::Body,
    transport::{Endpoint, Uri},
};
use tower::service_fn;

/// The flag and the length before a gRPC message.
const PREFIX: usize = 5;

/// By path.
type Answers = HashMap<String, Result<Vec<Vec<u8>>, Status>>;
type Requests = Vec<(String, Vec<u8>)>;

/// Answers as it was told, and remembers what it was asked.
#[derive(Clone, Default)]
pub(crate) struct Plane {
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Requests>>,
}

/// A console that serves.
pub(crate) struct World {
    pub(crate) plane: Plane,
    pub(crate) address: SocketAddr,
    pub(crate) link: String,
    _stop: oneshot::Sender<()>,
}

/// An answer as it came over the wire.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Plane {
    pub(crate) fn says(&self, method: &str, answer: impl Message) {
        self.streams(method, &[answer]);
    }

    pub(crate) fn streams<M: Message>(&self, method: &str, answers: &[M]) {
        let framed = |message: &M| {
            let bytes = message.encode_to_vec();
            [&[0], u32::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), &bytes].concat()
        };
        self.will(method, Ok(answers.iter().map(framed).collect()));
    }

    pub(crate) fn refuses(&self, method: &str, status: Status) {
        self.will(method, Err(status));
    }

    fn will(&self, method: &str, answer: Result<Vec<Vec<u8>>, Status>) {
        self.answers.lock().unwrap().insert(format!("/jeton.v1.{method}"), answer);
    }

    /// The methods that were called.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .map(|(path, _)| path.trim_start_matches("/jeton.v1.").into())
            .collect()
    }

    /// The last request to a method.
    pub(crate) fn request<M: Message + Default>(&self, method: &str) -> M {
        let asked = self.asked.lock().unwrap();
        let (_, bytes) = asked.iter().rev().find(|(path, _)| path.ends_with(method)).unwrap();
        M::decode(&bytes[PREFIX..]).unwrap()
    }

    async fn answer(self, request: Request) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
        self.asked.lock().unwrap().push((path.clone(), body));
        let answer = self.answers.lock().unwrap().get(&path).cloned();
        match answer
            .unwrap_or_else(|| Err(Status::unimplemented(format!("nothing is written down for {path}"))))
        {
            Ok(messages) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                let body = Full::new(bytes::Bytes::from(messages.concat()));
                let mut response =
                    Response::new(Body::new(body.with_trailers(async move { Some(Ok(trailers)) })));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                response
            }
            Err(status) => status.into_http(),
        }
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        let plane = Plane::default();
        let asked = plane.clone();
        let routes = Router::new().fallback(move |request: Request| asked.clone().answer(request));
        let connector = service_fn(move |_: Uri| {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let service = TowerToHyperService::new(routes.clone());
            tokio::spawn(
                http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(far), service),
            );
            std::future::ready(Ok::<_, io::Error>(TokioIo::new(near)))
        });
        let channel = Endpoint::from_static("http://plane").connect_with_connector_lazy(connector);
        let console = Console::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let link = console.link().to_owned();
        let address = link.trim_start_matches("http://").split('/').next().unwrap().parse().unwrap();
        let (_stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(console.serve(channel, async move { drop(stopped.await) }));
        Self { plane, address, link, _stop }
    }

    /// Where the link leads, without the host.
    pub(crate) fn login(&self) -> String {
        self.link.trim_start_matches(&format!("http://{}", self.address)).to_owned()
    }

    /// Opens the link; the cookie.
    pub(crate) async fn enter(&self) -> String {
        let answer = self.get(&self.login(), &[]).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")));
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.ends_with("; HttpOnly; SameSite=Strict; Path=/"), "{cookie}");
        cookie.split(';').next().unwrap().to_owned()
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, "").await
    }

    /// As the page posts.
    pub(crate) async fn post(&self, path: &str, cookie: &str, body: &str) -> Answer {
        let headers = [("cookie", cookie), ("content-type", "application/json"), ("x-jeton-console", "1")];
        self.send("POST", path, &headers, body).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: {}\r\n", self.address);
        }
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        // What is too long may be refused before it is read.
        let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.head, self.body))
    }
}
