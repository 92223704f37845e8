//! The TCP listener with TLS.

use std::{path::Path, sync::Arc};

use hyper_util::rt::TokioIo;
use jeton_proto::v1::token_service_client::TokenServiceClient;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::support::{VAULT, World, token};

async fn channel(world: &World, trusted: &Path) -> Result<Channel, tonic::transport::Error> {
    let address = world.broker.endpoints["grpc_tls"]["address"].as_str().unwrap().to_owned();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsConnector::from(Arc::new(config));
    let connector = tower::service_fn(move |_| {
        let (tls, address) = (tls.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            tls.connect("localhost".try_into().unwrap(), stream).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_come_over_tls_to_whoever_trusts_the_file_that_is_named_after_a_restart_too() {
    let mut world = World::with(&["--tls"], serde_json::json!({})).await;
    let named = |world: &World| world.broker.endpoints["grpc_tls"]["ca_file"].as_str().unwrap().to_owned();
    let ca_file = named(&world);
    let before = std::fs::read(&ca_file).unwrap();
    let mut client = TokenServiceClient::new(channel(&world, Path::new(&ca_file)).await.unwrap());
    let mut plain = world.broker.tokens().await;
    for _ in 0..3 {
        let secured = token(&mut client, "identities/billing", VAULT).await.unwrap();
        assert_eq!(secured, token(&mut plain, "identities/billing", VAULT).await.unwrap());
    }
    let foreign = world.sandbox.text("/ca_file").to_owned();
    assert!(
        channel(&world, Path::new(&foreign)).await.is_err(),
        "another authority's certificates are no help"
    );
    assert!(world.broker.process.stop().success());
    world.restart(&["--tls"]);
    assert_eq!(std::fs::read(named(&world)).unwrap(), before, "whoever trusted it goes on doing so");
    let mut client = TokenServiceClient::new(channel(&world, Path::new(&ca_file)).await.unwrap());
    token(&mut client, "identities/billing", VAULT).await.unwrap();
}
