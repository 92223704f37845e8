//! Asks azure_identity for tokens. One case a line on stdin, one JSON object a line on stdout; see ../README.md.

use std::{error::Error, io, sync::Arc, time::Instant};

use azure_core::credentials::TokenCredential;
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use azure_security_keyvault_secrets::SecretClient;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[tokio::main]
async fn main() {
    for line in io::stdin().lines() {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        let start = Instant::now();
        let mut answer = case(&words)
            .await
            .unwrap_or_else(|error| json!({"error": "azure_core::Error", "message": described(&error)}));
        answer["seconds"] = start.elapsed().as_secs_f64().into();
        println!("{answer}");
    }
}

async fn case(words: &[&str]) -> azure_core::Result<Value> {
    let user_assigned_id = words.get(2).map(|selector| match (*selector, words[3].to_owned()) {
        ("client_id", id) => UserAssignedId::ClientId(id),
        ("object_id", id) => UserAssignedId::ObjectId(id),
        ("resource_id", id) => UserAssignedId::ResourceId(id),
        (other, _) => panic!("no selector {other}"),
    });
    let options = ManagedIdentityCredentialOptions { user_assigned_id, ..Default::default() };
    let credential: Arc<dyn TokenCredential> = ManagedIdentityCredential::new(Some(options))?;
    match words[0] {
        "managed" => {
            let token = credential.get_token(&[words[1]], None).await?;
            let digest = Sha256::digest(token.token.secret());
            Ok(json!({"sha256": format!("{digest:x}"), "expires": token.expires_on.unix_timestamp()}))
        }
        "secret" => {
            let secret = SecretClient::new(words[1], credential, None)?.get_secret("greeting", None).await?;
            Ok(json!({"secret": secret.into_model()?.value}))
        }
        other => panic!("no case {other}"),
    }
}

/// With its causes.
fn described(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", described(cause)))
}
