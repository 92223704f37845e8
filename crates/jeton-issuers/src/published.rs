//! Keys that an issuer publishes at a URL, or says where (OpenID Connect Discovery 1.0).

use std::path::PathBuf;

use jeton_access::KeySetSource;
use jeton_core::BoxFuture;
use jeton_http::Http;
use serde_json::Value;
use url::{Origin, Url};

use crate::bearer;

pub(crate) struct PublishedKeys {
    http: Http,
    at: At,
    /// The only one who is shown our token.
    home: Option<Origin>,
    token_file: Option<PathBuf>,
}

enum At {
    Url(String),
    Discovery { issuer: String },
}

impl PublishedKeys {
    pub(crate) fn new(http: Http, url: &str, discovered: bool, token_file: &str) -> Self {
        let at = if discovered { At::Discovery { issuer: url.into() } } else { At::Url(url.into()) };
        let token_file = Some(token_file).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self { http, at, home: origin(url), token_file }
    }

    async fn place(&self) -> Result<String, String> {
        let issuer = match &self.at {
            At::Url(url) => return Ok(url.clone()),
            At::Discovery { issuer } => issuer,
        };
        let at = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = self.read(&at).await?;
        // OpenID Connect Discovery, section 4.3: another issuer's document is somebody else's.
        if document["issuer"] != *issuer.as_str() {
            return Err(format!("{at} is the document of {}, and not of {issuer:?}", document["issuer"]));
        }
        let keys = document["jwks_uri"].as_str().ok_or_else(|| format!("{at} has no jwks_uri"))?;
        Ok(keys.to_owned())
    }

    async fn read(&self, url: &str) -> Result<Value, String> {
        let token = match &self.token_file {
            Some(path) if origin(url).is_some_and(|origin| Some(origin) == self.home) => {
                Some(bearer(path).await?)
            }
            _ => None,
        };
        let answer = self.http.read(url, token.as_deref()).await.map_err(|e| e.to_string())?;
        match answer.status {
            200 if answer.json.is_object() => Ok(answer.json),
            200 => Err(format!("{url} answers with no JSON object")),
            status @ 300..=399 => Err(format!(
                "{url} answers with {status}: redirects are not followed, configure where the keys are"
            )),
            status @ (401 | 403) => {
                Err(format!("{url} answers with {status}: does it want a token (token_file)?"))
            }
            status => Err(format!("{url} answers with {status}")),
        }
    }
}

impl KeySetSource for PublishedKeys {
    fn fetch(&self) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async { self.read(&self.place().await?).await })
    }
}

fn origin(url: &str) -> Option<Origin> {
    Url::parse(url).ok().map(|url| url.origin()).filter(Origin::is_tuple)
}
