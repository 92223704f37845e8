//! A door behind which every request is answered with a message when it has ended, for conformance tools that know nothing of gRPC.
//! Writes its address into the JSON file that is given.
#![allow(clippy::unwrap_used, reason = "a tool for tests")]

use std::{
    convert::Infallible,
    env, fs,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jeton_server::door::{Door, DoorSettings, Drain, Listen, Listener, LoopbackDev, Protocol, serve};
use tonic::{Status, body::Body, server::NamedService, service::Routes};

#[derive(Clone)]
struct Answers;

impl NamedService for Answers {
    const NAME: &'static str = "test.Answers";
}

impl tower::Service<Request<Body>> for Answers {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut body = request.into_body();
        Box::pin(async move {
            while body.frame().await.is_some_and(|frame| frame.is_ok()) {}
            Ok(answer())
        })
    }
}

fn answer() -> Response<Body> {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    let frames = [Frame::data(Bytes::from_static(&[7; 64])), Frame::trailers(trailers)];
    Response::new(Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, Status>)))))
}

#[tokio::main]
async fn main() {
    let file = env::args().nth(1).unwrap();
    let listener = Listener::bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let address = serde_json::json!({ "grpc": listener.tcp_address().unwrap() });
    let door = Door {
        name: "answering",
        listener,
        protocol: Protocol::Http2,
        settings: DoorSettings::default(),
        tls: None,
        authenticate: Some(Arc::new(LoopbackDev)),
        bearer: None,
        clock: Arc::new(jeton_core::SystemClock),
        routes: Routes::new(Answers),
        shortcut: None,
        calls: None,
        streaming: |_| false,
        finishes: false,
        complete: |answer| answer,
    };
    let (accepting, _) = serve(door, Drain::default());
    fs::write(format!("{file}.new"), address.to_string()).unwrap();
    fs::rename(format!("{file}.new"), file).unwrap();
    accepting.await.unwrap();
}
