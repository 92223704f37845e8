//! Reads a secret from a key vault: cargo run -- VAULT_URL

use std::{env, error::Error};

use azure_identity::ManagedIdentityCredential;
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let vault_url = env::args().nth(1).ok_or("usage: key-vault VAULT_URL")?;
    let options = SecretClientOptions {
        // For a vault at https://localhost:PORT. One that has a name below its resource, as all of Azure's have, does without this line.
        verify_challenge_resource: Some(false),
        ..Default::default()
    };
    let client = SecretClient::new(&vault_url, ManagedIdentityCredential::new(None)?, Some(options))?;
    let secret = client.get_secret("greeting", None).await?.into_model()?;
    println!("{}", secret.value.unwrap_or_default());
    Ok(())
}
