//! The messages of `SpiffeWorkloadAPI/FetchX509SVID`, as far as they are used (SPIFFE Workload API, section 5). The service has no
//! package, and its messages are few.

use std::{collections::HashMap, fmt};

/// Asks for everything that the caller may have.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct X509SvidRequest {}

/// Everything that the caller has now.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct X509SvidResponse {
    /// Its identities; the first is the usual one.
    #[prost(message, repeated, tag = "1")]
    pub(super) svids: Vec<X509Svid>,
    /// The bundles of other trust domains, by `spiffe://` and the domain: certificates in DER, one behind the other.
    #[prost(map = "string, bytes", tag = "3")]
    pub(super) federated_bundles: HashMap<String, Vec<u8>>,
}

/// One identity.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct X509Svid {
    #[prost(string, tag = "1")]
    pub(super) spiffe_id: String,
    /// Its certificate and what leads to the authority, in DER, one behind the other.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) x509_svid: Vec<u8>,
    /// Its private key (PKCS #8).
    #[prost(bytes = "vec", tag = "3")]
    pub(super) x509_svid_key: Vec<u8>,
    /// The authorities of its trust domain, in DER, one behind the other.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) bundle: Vec<u8>,
}

impl X509SvidResponse {
    /// The bundle of a trust domain.
    pub(super) fn bundle(&self, domain: &str) -> Option<&[u8]> {
        let own = self.svids.iter().find(|svid| {
            let rest = svid.spiffe_id.strip_prefix("spiffe://");
            rest.and_then(|rest| rest.split('/').next()) == Some(domain)
        });
        let federated = || {
            let found = self
                .federated_bundles
                .iter()
                .find(|(name, _)| name.strip_prefix("spiffe://").unwrap_or(name) == domain);
            found.map(|(_, der)| der.as_slice())
        };
        own.map(|svid| svid.bundle.as_slice()).or_else(federated)
    }
}

impl fmt::Debug for X509SvidResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509SvidResponse").field("svids", &self.svids).finish_non_exhaustive()
    }
}

/// Without the key.
impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}
