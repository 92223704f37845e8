//! The TCP listener with TLS.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, sync::Arc};

use hyper_util::rt::TokioIo;
use jeton_proto::v1::{
    self, status_service_client::StatusServiceClient, token_service_client::TokenServiceClient,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::support::{Process, VAULT, World, token};

async fn channel(world: &World, trusted: &Path) -> Result<Channel, tonic::transport::Error> {
    let address = world.broker.endpoints["grpc_tls"]["address"].as_str().unwrap();
    connect(address, trusted, None).await
}

/// `shown`: a client certificate and its key.
async fn connect(
    address: &str,
    trusted: &Path,
    shown: Option<(&Path, &Path)>,
) -> Result<Channel, tonic::transport::Error> {
    let (tls, address) = (connector(trusted, shown), address.to_owned());
    let connector = tower::service_fn(move |_| {
        let (tls, address) = (tls.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            tls.connect("localhost".try_into().unwrap(), stream).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}

/// What trusts that authority, and shows that certificate.
pub(crate) fn connector(trusted: &Path, shown: Option<(&Path, &Path)>) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
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

#[tokio::test(flavor = "multi_thread")]
async fn administrators_come_over_the_network_by_a_trust_of_their_own_and_do_what_their_roles_say() {
    let world = World::with(&["--mtls"], serde_json::json!({})).await;
    let grpc_tls = &world.broker.endpoints["grpc_tls"];
    let (ca_file, client) = (path(&grpc_tls["ca_file"]), &grpc_tls["clients"][1]);
    let (sealing, config, data_dir) =
        (world.folder().join("sealing.key"), world.folder().join("serve.toml"), world.folder().join("serve"));
    fs::write(&sealing, [7_u8; 32]).unwrap();
    fs::set_permissions(&sealing, fs::Permissions::from_mode(0o600)).unwrap();
    let [cert, key] = ["grpc-server.pem", "grpc-server.key"].map(|name| world.broker.data_dir.join(name));
    let trust =
        |domain| format!("[{{ name = \"a\", bundle_file = {ca_file:?}, trust_domain = \"{domain}\" }}]");
    let plane = |name, domain| {
        let trust = trust(domain);
        format!(
            "[{name}]\ntls_listen = \"127.0.0.1:0\"\n[{name}.tls]\ncert_file = {cert:?}\nkey_file = {key:?}\nclient_trust = {trust}\n"
        )
    };
    // The data plane trusts another domain: its callers are not the administrators.
    let planes = plane("data", "other.example") + &plane("admin", "dev.example");
    fs::write(&config, format!("data_dir = {data_dir:?}\n[sealing]\nkey_file = {sealing:?}\n{planes}"))
        .unwrap();
    let arguments = ["serve", "--config", config.to_str().unwrap()];
    let mut serve = Process::start(&arguments, &world.folder().join("serve.log"));
    let endpoints = serve.announces(&data_dir.join("endpoints.json"));
    let shown = (path(&client["cert_file"]), path(&client["key_file"]));
    let data = connect(endpoints["grpc_tls"]["address"].as_str().unwrap(), ca_file, Some(shown)).await;
    let refused = match data {
        Err(_) => true,
        Ok(channel) => token(&mut TokenServiceClient::new(channel), "identities/a", VAULT).await.is_err(),
    };
    assert!(refused, "what the admin plane trusts is nothing to the data plane");
    let channel = connect(endpoints["admin_tls"].as_str().unwrap(), ca_file, Some(shown)).await.unwrap();
    let mut status = StatusServiceClient::new(channel.clone());
    let error = status.status(v1::StatusRequest {}).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::PermissionDenied, "{error:?}");
    let assign = ["access", "assign", "--role", "reader", "--identity", "*", "--member"];
    let output = Command::new(crate::support::JETON)
        .args(assign)
        .arg(client["principal"].as_str().unwrap())
        .args(["--data-dir", data_dir.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    status.status(v1::StatusRequest {}).await.unwrap();
    let error = token(&mut TokenServiceClient::new(channel), "identities/a", VAULT).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unimplemented, "no token is had on the admin plane");
    assert!(serve.stop().success());
}

fn path(value: &Value) -> &Path {
    Path::new(value.as_str().unwrap())
}

/// The data plane as one of the callers that `dev --mtls` made.
async fn tokens_as(address: &str, ca_file: &Path, caller: &Value) -> TokenServiceClient<Channel> {
    let shown = (path(&caller["cert_file"]), path(&caller["key_file"]));
    TokenServiceClient::new(connect(address, ca_file, Some(shown)).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_names_its_caller_and_only_the_one_with_role_assignments_gets_a_token() {
    let mut world = World::with(&["--mtls"], serde_json::json!({})).await;
    for restarted in [false, true] {
        if restarted {
            assert!(world.broker.process.stop().success());
            world.restart(&["--mtls"]);
        }
        let grpc_tls = world.broker.endpoints["grpc_tls"].clone();
        let (address, ca_file) = (grpc_tls["address"].as_str().unwrap(), path(&grpc_tls["ca_file"]));
        let clients = grpc_tls["clients"].as_array().unwrap();
        assert_eq!(clients.len(), 2);
        for client in clients {
            let mut tokens = tokens_as(address, ca_file, client).await;
            let answer = token(&mut tokens, "identities/billing", VAULT).await;
            match client["allowed"].as_bool().unwrap() {
                true => drop(answer.unwrap()),
                false => assert_eq!(answer.unwrap_err().code(), tonic::Code::PermissionDenied),
            }
            let principal = client["principal"].as_str().unwrap();
            assert!(principal.starts_with("spiffe://dev.example/"), "{principal}");
        }
        // TLS 1.3: that nothing was shown is heard of at the first read.
        let nobody = connect(address, ca_file, None).await;
        let refused = match nobody {
            Err(_) => true,
            Ok(channel) => {
                token(&mut TokenServiceClient::new(channel), "identities/billing", VAULT).await.is_err()
            }
        };
        assert!(refused, "whoever shows no certificate is let in");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_listens_on_the_network_for_whom_it_can_name_and_says_when_a_file_is_of_no_use() {
    let world = World::with(&["--mtls"], serde_json::json!({})).await;
    let grpc_tls = &world.broker.endpoints["grpc_tls"];
    let ca_file = path(&grpc_tls["ca_file"]);
    let [cert, key, bundle, sealing] =
        ["server.pem", "server.key", "bundle.pem", "sealing.key"].map(|name| world.folder().join(name));
    for (from, to) in [("grpc-server.pem", &cert), ("grpc-server.key", &key), ("grpc-ca.pem", &bundle)] {
        fs::copy(world.broker.data_dir.join(from), to).unwrap();
    }
    fs::write(&sealing, [7_u8; 32]).unwrap();
    fs::set_permissions(&sealing, fs::Permissions::from_mode(0o600)).unwrap();
    let (config, data_dir) = (world.folder().join("serve.toml"), world.folder().join("serve"));
    let text = format!(
        "data_dir = {data_dir:?}\n[sealing]\nkey_file = {sealing:?}\n[data]\ntls_listen = \"127.0.0.1:0\"\n[data.tls]\ncert_file = {cert:?}\nkey_file = {key:?}\nclient_trust = [{{ name = \"dev\", bundle_file = {bundle:?}, trust_domain = \"dev.example\" }}]\n"
    );
    fs::write(&config, text).unwrap();
    let mut serve =
        Process::start(&["serve", "--config", config.to_str().unwrap()], &world.folder().join("serve.log"));
    let endpoints = serve.announces(&data_dir.join("endpoints.json"));
    let address = endpoints["grpc_tls"]["address"].as_str().unwrap();
    let mut tokens = tokens_as(address, ca_file, &grpc_tls["clients"][0]).await;
    let known = token(&mut tokens, "identities/billing", VAULT).await.unwrap_err();
    assert_eq!(known.code(), tonic::Code::PermissionDenied, "it is known, and was given nothing");
    let status = || {
        let data_dir = data_dir.to_str().unwrap();
        let output = Command::new(crate::support::JETON).args(["status", "--data-dir", data_dir]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert!(status().starts_with("healthy"), "{}", status());
    fs::write(&bundle, "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    crate::support::until("it is said", || status().contains("data.tls.client_trust.dev"));
    assert!(status().starts_with("degraded") && status().contains("still in use"), "{}", status());
    let mut tokens = tokens_as(address, ca_file, &grpc_tls["clients"][0]).await;
    assert_eq!(
        token(&mut tokens, "identities/billing", VAULT).await.unwrap_err().code(),
        tonic::Code::PermissionDenied
    );
    fs::copy(ca_file, &bundle).unwrap();
    crate::support::until("it is over", || status().starts_with("healthy"));
    assert!(serve.stop().success());
}
