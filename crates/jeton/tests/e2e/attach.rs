//! Identities that exist already.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::json;

use crate::support::{VAULT, World, claims, token};

const PATIENT: &[&str] = &[];

async fn usable(world: &World, identity: &str, scope: &str) -> String {
    world.broker.json(&[
        "access",
        "assign",
        "--member",
        "workloads/demo",
        "--identity",
        identity,
        "--target",
        "*",
    ]);
    token(&mut world.broker.tokens().await, identity, scope).await.unwrap().access_token
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_its_certificate_is_taken_over() {
    let world = World::with(PATIENT, json!({})).await;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["attached.example".into()]).unwrap().self_signed(&key).unwrap();
    let credential =
        json!({"type": "AsymmetricX509Cert", "usage": "Verify", "key": STANDARD.encode(certificate.der())});
    let made = world
        .sandbox
        .graph(
            Method::POST,
            "/applications",
            json!({"displayName": "attached", "keyCredentials": [credential]}),
        )
        .await;
    let client_id = made["appId"].as_str().unwrap();
    world.sandbox.graph(Method::POST, "/servicePrincipals", json!({"appId": client_id})).await;
    let (certificate_file, key_file) = (world.folder().join("cert.pem"), world.folder().join("key.pem"));
    fs::write(&certificate_file, certificate.pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    let files = (certificate_file.to_str().unwrap(), key_file.to_str().unwrap());
    let attach = [
        "identity",
        "attach",
        "taken",
        "--authority",
        "entra",
        "--client-id",
        client_id,
        "--certificate",
        files.0,
        "--private-key",
        files.1,
    ];
    let attached = world.broker.json(&attach);
    assert_eq!((attached["state"].as_str(), attached["kind"].as_str()), (Some("ACTIVE"), Some("ATTACHED")));
    let token = usable(&world, "identities/taken", VAULT).await;
    assert_eq!(claims(&token)["azp"], client_id);
    // Deleting it here leaves the client there: it was not made here.
    assert!(world.broker.jeton(&["identity", "delete", "taken", "--yes"]).status.success());
    assert_eq!(world.sandbox.stats().await["by_client"][client_id]["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_secret_is_taken_over_in_the_body_and_by_basic() {
    let world = World::start().await;
    let made = world.sandbox.graph(Method::POST, "/applications", json!({"displayName": "legacy"})).await;
    let (id, client_id) = (made["id"].as_str().unwrap(), made["appId"].as_str().unwrap());
    world.sandbox.graph(Method::POST, "/servicePrincipals", json!({"appId": client_id})).await;
    let password = world
        .sandbox
        .graph(
            Method::POST,
            &format!("/applications/{id}/addPassword"),
            json!({"passwordCredential": {"displayName": "s"}}),
        )
        .await;
    let file = world.folder().join("secret");
    fs::write(&file, format!("{}\n", password["secretText"].as_str().unwrap())).unwrap();
    let path = file.to_str().unwrap();
    world.broker.json(&[
        "identity",
        "attach",
        "legacy",
        "--authority",
        "entra",
        "--client-id",
        client_id,
        "--secret-file",
        path,
    ]);
    assert_eq!(claims(&usable(&world, "identities/legacy", VAULT).await)["azp"], client_id);

    let metadata = json!({
        "client_name": "basic", "grant_types": ["client_credentials"], "redirect_uris": [], "response_types": [],
        "token_endpoint_auth_method": "client_secret_basic", "scope": "orders.read",
    });
    let client = world.sandbox.register(metadata).await;
    fs::write(&file, client["client_secret"].as_str().unwrap()).unwrap();
    let client_id = client["client_id"].as_str().unwrap();
    world.broker.json(&[
        "identity",
        "attach",
        "basic",
        "--authority",
        "oidc",
        "--client-id",
        client_id,
        "--secret-file",
        path,
    ]);
    usable(&world, "identities/basic", "orders.read").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_or_a_foreign_key_is_refused_with_the_authoritys_words() {
    let world = World::start().await;
    let file = world.folder().join("secret");
    fs::write(&file, "not-the-secret").unwrap();
    let client_id = world.broker.client_id("identities/billing");
    let output = world.broker.jeton(&[
        "identity",
        "attach",
        "wrong",
        "--authority",
        "entra",
        "--client-id",
        &client_id,
        "--secret-file",
        file.to_str().unwrap(),
    ]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("AADSTS7000215"), "{error}");
    assert!(!error.contains("not-the-secret"), "{error}");
    let (one, two) = (
        rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(),
        rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(),
    );
    let certificate =
        rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap().self_signed(&one).unwrap();
    let (cert, key) = (world.folder().join("c.pem"), world.folder().join("k.pem"));
    fs::write(&cert, certificate.pem()).unwrap();
    fs::write(&key, two.serialize_pem()).unwrap();
    let arguments = [
        "identity",
        "attach",
        "mixed",
        "--authority",
        "entra",
        "--client-id",
        &client_id,
        "--certificate",
        cert.to_str().unwrap(),
        "--private-key",
        key.to_str().unwrap(),
    ];
    let output = world.broker.jeton(&arguments);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}
