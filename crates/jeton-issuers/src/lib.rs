//! Asks the issuers of callers' tokens: for their keys, over HTTP or from a file, and a cluster for whether a token still counts.
//!
//! Fills the ports of `jeton-access`. What an answer is worth is decided there; here it is fetched with suspicion: bounded, over TLS
//! that trusts what the configuration says, never redirected, and our own token shown to nobody but the configured host.

mod file;
mod published;
mod review;

use std::{path::Path, sync::Arc, time::Duration};

use jeton_access::{IssuerPorts, IssuerSettings, KeySetSource, KeysAt, TokenReview};
use jeton_http::{Bounds, Http, HttpError, is_plain_loopback, trust};
use tokio::io::AsyncReadExt;

/// Longest answer, and longest file, that is read.
const MAX_BYTES: usize = 256 << 10;
/// Connections to an API server that are kept.
const MAX_IDLE: usize = 32;

/// An issuer cannot be asked at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the issuer {issuer:?} cannot be asked: {cause}")]
pub struct IssuerError {
    /// Which.
    pub issuer: String,
    /// Why.
    pub cause: HttpError,
}

/// Whom to ask for an issuer.
pub fn ports(settings: &IssuerSettings) -> Result<IssuerPorts, IssuerError> {
    let failed = |cause| IssuerError { issuer: settings.issuer.clone(), cause };
    let keys: Arc<dyn KeySetSource> = match settings.keys_at() {
        KeysAt::File(path) => Arc::new(file::KeyFile::new(path)),
        at @ (KeysAt::Discovery(url) | KeysAt::Url(url)) => {
            let discovered = matches!(at, KeysAt::Discovery(_));
            let http = client(url, &settings.ca_file).map_err(failed)?;
            Arc::new(published::PublishedKeys::new(http, url, discovered, &settings.token_file))
        }
    };
    let review = settings.token_review.as_ref().map(|review| -> Result<Arc<dyn TokenReview>, IssuerError> {
        let http = client(&review.api_server, &review.ca_file).map_err(failed)?;
        Ok(Arc::new(review::ApiServer::new(http, &review.api_server, &review.token_file)))
    });
    Ok(IssuerPorts { keys, review: review.transpose()? })
}

fn client(url: &str, ca_file: &str) -> Result<Http, HttpError> {
    let tls = trust(Some(ca_file).filter(|path| !path.is_empty()))?;
    let bounds = Bounds {
        connect: Duration::from_secs(3),
        call: Duration::from_secs(5),
        idle: Duration::from_secs(4),
        max_idle: MAX_IDLE,
        max_answer_bytes: MAX_BYTES,
        // What is not configured so is never asked without TLS, whatever a discovery document says.
        plain_loopback: is_plain_loopback(url),
    };
    Ok(Http::new(tls, bounds))
}

/// A whole file, if it is not too long. No error shows what is in it.
async fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let failed = |e: std::io::Error| format!("{shown} cannot be read: {e}");
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text).await.map_err(failed)?;
    if text.len() > MAX_BYTES {
        return Err(format!("{shown} has more than {MAX_BYTES} bytes"));
    }
    Ok(text)
}

/// Our own token, read anew each time: what projects it into the file replaces it.
async fn bearer(path: &Path) -> Result<String, String> {
    let text = read(path).await?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("{} holds no bearer token", path.display()));
    }
    Ok(token.to_owned())
}
