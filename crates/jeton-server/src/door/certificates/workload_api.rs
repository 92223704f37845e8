//! SPIFFE's Workload API as the source of the server's certificate and of bundles: one stream, in which each message is all there is.
//!
//! While the agent is away everything stays as it was. What a message does not hold any more was taken back, and is trusted no longer.

mod messages;

use std::{path::PathBuf, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use jeton_access::Naming;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::TlsSettings;
use crate::{
    Alarms,
    door::{Bundle, Tls},
};
use messages::{X509SvidRequest, X509SvidResponse};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An agent answers at once with what it has.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
const PING_INTERVAL: Duration = Duration::from_secs(30);
const BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

/// The agent, and what is wanted of it.
#[derive(Debug)]
pub(super) struct WorkloadApi {
    socket: PathBuf,
    /// The bundles that no file gives: their place, their name, their trust domain, their naming.
    bundles: Vec<(usize, String, String, Naming)>,
}

impl WorkloadApi {
    /// Of settings that are valid. None: no agent is named.
    pub(super) fn of(settings: &TlsSettings) -> Option<Self> {
        let socket = settings.socket()?.into();
        let trusted = settings.client_trust.iter().enumerate();
        let bundles =
            trusted.filter(|(_, trust)| trust.bundle_file.is_empty()).filter_map(|(place, trust)| {
                Some((place, trust.name.clone(), trust.trust_domain.clone(), trust.naming()?))
            });
        Some(Self { socket, bundles: bundles.collect() })
    }

    /// Asks again for as long as there is a listener.
    pub(super) async fn follow(self, section: &'static str, tls: Arc<Tls>, alarms: Alarms) {
        let subject = format!("{section}.workload_api");
        let mut wait = BACK_OFF;
        loop {
            let mut had = false;
            let failed = self.listen(&tls, |used| {
                had = true;
                match used {
                    Ok(()) => alarms.clear(&subject),
                    Err(wrong) => alarms.raise(&subject, wrong, "mend the workload's entry at the SPIFFE server. What was there before is still in use"),
                }
            });
            let failed = failed.await;
            wait = if had { BACK_OFF } else { (wait * 2).min(LONGEST_BACK_OFF) };
            // An agent that ends its stream in order is asked again, and nobody need hear of it.
            if let Err(failed) = failed.filter(|_| !had).map_or(Ok(()), Err) {
                let remedy = match failed.code() {
                    Code::PermissionDenied => "register an entry for this process at the SPIFFE server",
                    _ => "start the SPIFFE agent, or correct the path of its socket; it is asked again",
                };
                let text = format!("{}: {}", self.socket.display(), failed.message());
                alarms.raise(&subject, text, remedy);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// One stream, to its end. None: it ended in order.
    async fn listen(&self, tls: &Tls, mut used: impl FnMut(Result<(), String>)) -> Option<Status> {
        let mut stream = match self.fetch().await {
            Ok(stream) => stream,
            Err(status) => return Some(status),
        };
        let mut next = timeout(FIRST_MESSAGE_TIMEOUT, stream.message())
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the agent says nothing")));
        loop {
            match next {
                Ok(Some(message)) => used(self.apply(message, tls)),
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
            next = stream.message().await;
        }
    }

    async fn fetch(&self) -> Result<tonic::Streaming<X509SvidResponse>, Status> {
        let mut client = Grpc::new(self.channel().await?);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(X509SvidRequest {});
        request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
        let path = PathAndQuery::from_static("/SpiffeWorkloadAPI/FetchX509SVID");
        let codec = ProstCodec::<X509SvidRequest, X509SvidResponse>::default();
        let asked = timeout(FIRST_MESSAGE_TIMEOUT, client.server_streaming(request, path, codec));
        let answer = asked.await.unwrap_or_else(|_| Err(Status::deadline_exceeded("the agent says nothing")));
        answer.map(tonic::Response::into_inner)
    }

    async fn channel(&self) -> Result<Channel, Status> {
        let socket = self.socket.clone();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost")
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_while_idle(true);
        endpoint.connect_with_connector(connector).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            Status::unavailable(cause.unwrap_or_else(|| error.to_string()))
        })
    }

    /// Puts to use what a message holds.
    fn apply(&self, message: X509SvidResponse, tls: &Tls) -> Result<(), String> {
        let mut wrong = vec![];
        for (place, name, domain, naming) in &self.bundles {
            let bundle = message.bundle(domain).ok_or_else(|| format!("there is no bundle of {domain}"));
            let made = bundle.and_then(|der| {
                let authorities =
                    certificates(der).ok_or_else(|| format!("the bundle of {domain} cannot be read"))?;
                Bundle::new(name, naming.clone(), authorities)
                    .map_err(|error| format!("the bundle of {domain}: {error}"))
            });
            match made {
                Ok(bundle) => tls.trust(*place, Some(bundle)),
                Err(text) => {
                    // Taken back, or of no use: nobody comes in by it.
                    tls.trust(*place, None);
                    wrong.push(text);
                }
            }
        }
        // The first is the one that a workload uses if it is told nothing else.
        match message.svids.into_iter().next() {
            None => wrong.push("there is no certificate for this process".into()),
            Some(svid) => {
                let chain = certificates(&svid.x509_svid).unwrap_or_default();
                let key = PrivatePkcs8KeyDer::from(svid.x509_svid_key);
                if let Err(error) = tls.show(chain, key.into()) {
                    wrong.push(format!("the certificate of {}: {error}", svid.spiffe_id.escape_debug()));
                }
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

/// Certificates (DER) one behind the other.
fn certificates(mut der: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut found = vec![];
    while !der.is_empty() {
        let (one, rest) = der.split_at_checked(element(der)?)?;
        found.push(CertificateDer::from(one.to_vec()));
        der = rest;
    }
    Some(found)
}

/// The length of the sequence at the beginning, its head included.
fn element(der: &[u8]) -> Option<usize> {
    let [0x30, first, rest @ ..] = der else { return None };
    let count = usize::from(first & 0x7f);
    match first {
        0x00..=0x7f => Some(2 + count),
        // Four bytes of length are more than any certificate has.
        0x81..=0x84 => {
            let length = rest.get(..count)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            length.checked_add(2 + count)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
