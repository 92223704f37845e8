//! What a client certificate says of who holds it.
//!
//! That it is genuine was shown in the handshake, against the bundle whose naming this is. Here its name becomes a principal, in one
//! spelling or not at all: what two programs could read as two names is refused, and never mended.

use jeton_core::{Principal, Wall};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{
    Authenticated, Rejected,
    spiffe::{TrustDomain, spiffe_id},
};

mod spelling;
mod subject;

use spelling::{dns_name, encoded};

/// Which name of a certificate counts, where it is no SPIFFE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NameKind {
    /// The one DNS name among the subject's alternative names.
    Dns,
    /// The one URI among them.
    Uri,
    /// The subject.
    Subject,
}

/// How the certificates of one trust bundle name their holders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// By the SPIFFE ID, in this trust domain and no other (X509-SVID section 2).
    Spiffe(TrustDomain),
    /// By another name, below the bundle's own: two issuers that give one name make two principals. `x509://{bundle}/dns/{name}`.
    X509 {
        /// What the operator calls the bundle.
        bundle: String,
        /// Which name.
        kind: NameKind,
    },
}

/// From when to when a certificate (DER) is valid; none: it cannot be read.
pub fn validity(certificate: &[u8]) -> Option<(Wall, Wall)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let [from, until] = [parsed.validity().not_before, parsed.validity().not_after];
    Some((Wall::from_secs(from.timestamp()), Wall::from_secs(until.timestamp())))
}

impl Naming {
    /// The holder of a certificate (DER) that this bundle's authorities have signed.
    pub fn authenticate(&self, certificate: &[u8]) -> Result<Authenticated, Rejected> {
        let wrong = |text: String| Rejected::Credential(text);
        let (rest, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| wrong(format!("the certificate cannot be read: {error}")))?;
        if !rest.is_empty() {
            return Err(wrong("there is something behind the certificate".into()));
        }
        let principal = self.principal(&parsed).map_err(wrong)?;
        let until = Wall::from_secs(parsed.validity().not_after.timestamp());
        Ok(Authenticated { principal, until: Some(until) })
    }

    fn principal(&self, certificate: &X509Certificate<'_>) -> Result<Principal, String> {
        is_a_leaf(certificate, matches!(self, Self::Spiffe(_)))?;
        let text = match self {
            Self::Spiffe(domain) => {
                spiffe_id(the_one(&uris(certificate)?, "URI")?, domain.as_str())?.to_owned()
            }
            Self::X509 { bundle, kind } => {
                let (kind, name) = match kind {
                    NameKind::Dns => {
                        ("dns", dns_name(the_one(&dns_names(certificate)?, "DNS name")?)?.into())
                    }
                    NameKind::Uri => ("uri", encoded(the_one(&uris(certificate)?, "URI")?)),
                    NameKind::Subject => ("subject", subject::encoded(certificate.subject())?),
                };
                format!("x509://{bundle}/{kind}/{name}")
            }
        };
        text.parse().map_err(|error| format!("{error}"))
    }
}

/// An authority's own certificate names nobody, and the key must be for signatures (X509-SVID section 4).
fn is_a_leaf(certificate: &X509Certificate<'_>, spiffe: bool) -> Result<(), String> {
    let unreadable = |error| format!("an extension cannot be read: {error}");
    if certificate.basic_constraints().map_err(unreadable)?.is_some_and(|found| found.value.ca) {
        return Err("it is the certificate of an authority".into());
    }
    match certificate.key_usage().map_err(unreadable)? {
        Some(usage) if usage.value.key_cert_sign() || usage.value.crl_sign() => {
            Err("its key may sign certificates or revocation lists".into())
        }
        Some(usage) if !usage.value.digital_signature() => Err("its key is not for signatures".into()),
        None if spiffe => {
            Err("it does not say that its key is for signatures, as a SPIFFE certificate must".into())
        }
        _ => Ok(()),
    }
}

fn alternative_names<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a [GeneralName<'a>], String> {
    let found = certificate
        .subject_alternative_name()
        .map_err(|error| format!("its alternative names cannot be read: {error}"))?;
    let names = found.map_or(&[][..], |extension| &extension.value.general_names);
    match names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        true => Err("one of its alternative names cannot be read".into()),
        false => Ok(names),
    }
}

fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, String> {
    let uri = |name: &GeneralName<'a>| if let GeneralName::URI(text) = name { Some(*text) } else { None };
    Ok(alternative_names(certificate)?.iter().filter_map(uri).collect())
}

fn dns_names<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, String> {
    let dns = |name: &GeneralName<'a>| if let GeneralName::DNSName(text) = name { Some(*text) } else { None };
    Ok(alternative_names(certificate)?.iter().filter_map(dns).collect())
}

fn the_one<'a>(names: &[&'a str], what: &str) -> Result<&'a str, String> {
    match names {
        [one] => Ok(one),
        [] => Err(format!("it has no {what} among its alternative names")),
        more => Err(format!("it has {} {what}s among its alternative names, and one is wanted", more.len())),
    }
}

#[cfg(test)]
mod tests;
