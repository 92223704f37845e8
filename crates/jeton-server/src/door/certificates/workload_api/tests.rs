use std::{convert::Infallible, path::Path, pin::Pin, sync::Mutex};

use futures_util::{Stream, StreamExt};
use http::Request as HttpRequest;
use jeton_core::Wall;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{net::UnixListener, sync::mpsc, task::JoinHandle};
use tonic::{Response, body::Body, server::ServerStreamingService, service::Routes};

use super::*;
use crate::door::{ClientCertificates, certificates::TrustSettings};
use messages::X509Svid;

type Answers = mpsc::UnboundedReceiver<Result<X509SvidResponse, Status>>;

/// An agent: each connection that asks gets the next of these streams; when there are no more, nobody is let in.
#[derive(Clone)]
struct Agent(Arc<Mutex<Vec<Answers>>>);

impl tonic::server::NamedService for Agent {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl ServerStreamingService<X509SvidRequest> for Agent {
    type Response = X509SvidResponse;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<X509SvidResponse, Status>> + Send>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<X509SvidRequest>) -> Self::Future {
        let header = request.metadata().get("workload.spiffe.io").is_some_and(|value| value == "true");
        let next = self.0.lock().unwrap().pop();
        std::future::ready(match next {
            _ if !header => Err(Status::invalid_argument("security header missing from request")),
            None => Err(Status::permission_denied("no identity issued")),
            Some(answers) => {
                let answers = futures_util::stream::unfold(answers, |mut answers| async {
                    answers.recv().await.map(|answer| (answer, answers))
                });
                Ok(Response::new(answers.boxed() as Self::ResponseStream))
            }
        })
    }
}

impl tower::Service<HttpRequest<Body>> for Agent {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let agent = self.clone();
        Box::pin(async move {
            assert_eq!(request.uri().path(), "/SpiffeWorkloadAPI/FetchX509SVID");
            let codec = ProstCodec::<X509SvidResponse, X509SvidRequest>::default();
            Ok(tonic::server::Grpc::new(codec).server_streaming(agent, request).await)
        })
    }
}

fn serve(socket: &Path, streams: Vec<Answers>) -> JoinHandle<()> {
    let (listener, routes) =
        (UnixListener::bind(socket).unwrap(), Routes::new(Agent(Arc::new(Mutex::new(streams)))));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(routes.clone());
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    })
}

/// An authority's message: a certificate that ends in this year, and what is trusted.
fn message(year: i32, federated: &[&str]) -> X509SvidResponse {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = ca.self_signed(&ca_key).unwrap().der().to_vec();
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    leaf.not_after = rcgen::date_time_ymd(year, 1, 1);
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    X509SvidResponse {
        svids: vec![X509Svid {
            spiffe_id: "spiffe://prod.example/jeton".into(),
            x509_svid: [leaf.der().as_ref(), &authority].concat(),
            x509_svid_key: key.serialize_der(),
            bundle: [authority.clone(), authority.clone()].concat(),
        }],
        federated_bundles: federated.iter().map(|td| (format!("spiffe://{td}"), authority.clone())).collect(),
    }
}

fn settings(socket: &Path) -> TlsSettings {
    let trust = |name: &str, domain: &str| TrustSettings {
        name: name.into(),
        bundle_file: String::new(),
        trust_domain: domain.into(),
        names: None,
    };
    TlsSettings {
        workload_api: format!("unix://{}", socket.display()),
        client_trust: vec![trust("own", "prod.example"), trust("other", "edge.example")],
        ..TlsSettings::default()
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), held).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn the_agents_certificate_and_bundles_are_in_use_until_it_gives_others_and_while_it_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let (tls, alarms) = (Tls::new(ClientCertificates::Required, 2), Alarms::default());
    let api = WorkloadApi::of(&settings(&socket)).unwrap();
    let following = tokio::spawn(api.follow("data.tls", Arc::clone(&tls), alarms.clone()));
    let alarm = |part: &str| {
        alarms.raised().iter().any(|(subject, alarm)| {
            subject == "data.tls.workload_api" && format!("{} {}", alarm.message, alarm.remedy).contains(part)
        })
    };
    until("there is no agent", || alarm("start the SPIFFE agent")).await;
    let ((first, one), (second, two)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let agent = serve(&socket, vec![two, one]);
    let ends = |year: i64| tls.shown_validity().map(|(_, until)| until) == Some(Wall::from_secs(year));
    first.send(Ok(message(2030, &["edge.example"]))).unwrap();
    until("the first", || ends(1_893_456_000) && alarms.raised().is_empty() && tls.trusted() == [true, true])
        .await;
    first.send(Ok(message(2031, &["edge.example"]))).unwrap();
    until("another", || ends(1_924_992_000)).await;
    // What is no more in a message was taken back; a certificate of no use changes nothing.
    let mut broken = message(2032, &[]);
    broken.svids[0].x509_svid_key.truncate(20);
    first.send(Ok(broken)).unwrap();
    until("a broken one", || alarm("no bundle of edge.example") && tls.trusted() == [true, false]).await;
    assert!(ends(1_924_992_000) && alarm("the certificate of"));
    // The stream breaks, and comes again.
    drop(first);
    second.send(Ok(message(2033, &["edge.example"]))).unwrap();
    until("after a break", || ends(1_988_150_400) && alarms.raised().is_empty()).await;
    // The agent goes, and then knows nobody.
    second.send(Err(Status::unavailable("going"))).unwrap();
    until("it is refused", || alarm("register an entry")).await;
    assert!(ends(1_988_150_400) && tls.trusted() == [true, true], "what was there stays");
    following.abort();
    agent.abort();
}

#[test]
fn what_is_one_behind_the_other_is_taken_apart_or_refused() {
    let two = message(2030, &[]).svids.remove(0).bundle;
    assert_eq!(certificates(&two).unwrap().len(), 2);
    assert_eq!(certificates(&[]).unwrap().len(), 0);
    for bad in [
        &two[..two.len() - 1],
        &[0x30],
        &[0x30, 0x80],
        &[0x30, 0x85, 1, 1, 1, 1, 1],
        &[0x31, 0],
        &[0x30, 0x82, 1],
    ] {
        assert!(certificates(bad).is_none(), "{bad:?}");
    }
}

#[test]
fn no_key_is_shown() {
    let message = message(2030, &[]);
    let shown = format!("{message:?}");
    assert!(shown.contains("spiffe://prod.example/jeton") && !shown.contains("key"), "{shown}");
}
