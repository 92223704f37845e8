//! For the Azure SDK: an identity as an `azure_core` credential.

use std::fmt;

use azure_core::{
    Error, Result,
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    error::ErrorKind,
};

use crate::Client;

/// An identity as the Azure SDK takes it. It may be shared by any number of service clients.
///
/// ```no_run
/// use std::sync::Arc;
/// use azure_core::credentials::TokenCredential;
/// use jeton_client::{Client, azure::JetonCredential};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder().endpoint("unix:/run/jeton/data.sock").build()?;
/// let credential: Arc<dyn TokenCredential> = Arc::new(JetonCredential::new(client, "identities/billing"));
/// let token = credential.get_token(&["https://vault.azure.net/.default"], None).await?;
/// # drop(token); Ok(()) }
/// ```
#[derive(Clone)]
pub struct JetonCredential {
    client: Client,
    identity: String,
}

impl JetonCredential {
    /// Of an identity, such as `identities/billing`; empty, it is the system-assigned identity of the caller's workload.
    pub fn new(client: Client, identity: impl Into<String>) -> Self {
        Self { client, identity: identity.into() }
    }
}

impl fmt::Debug for JetonCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetonCredential").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl TokenCredential for JetonCredential {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> Result<AccessToken> {
        let &[scope] = scopes else {
            let text =
                format!("a managed identity's token is for one scope; {} were asked for", scopes.len());
            return Err(Error::with_message(ErrorKind::Credential, text));
        };
        let token = self.client.token(&self.identity, scope).await;
        let token = token.map_err(|error| Error::new(ErrorKind::Credential, error))?;
        Ok(AccessToken::new(token.secret().to_owned(), token.expires_at().into()))
    }
}
