//! What a listener shows and whom it trusts, as it is configured.

use jeton_access::{NameKind, Naming, TrustDomain};
use jeton_core::Problem;
use serde::{Deserialize, Serialize};

/// The TLS of a listener. A text that is empty means that nothing was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// The server's certificate and what leads to its authority (PEM), the server's own first.
    pub cert_file: String,
    /// Its private key (PEM).
    pub key_file: String,
    /// The socket of SPIFFE's Workload API, which gives both in the place of files: `unix:///run/spire/sockets/agent.sock`.
    pub workload_api: String,
    /// Whose client certificates let in, and how they name their holders. The first that fits counts.
    pub client_trust: Vec<TrustSettings>,
    /// Whether a request may name its caller by a bearer token. A client certificate is then not asked of everybody.
    pub bearer: bool,
}

/// One bundle of authorities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustSettings {
    /// What it is called, in the log and in principals such as `x509://NAME/dns/api.example`.
    pub name: String,
    /// The authorities' certificates (PEM). Empty: the bundle of `trust_domain` that the Workload API gives.
    #[serde(default)]
    pub bundle_file: String,
    /// The trust domain of its SPIFFE IDs.
    #[serde(default)]
    pub trust_domain: String,
    /// Which name counts where it gives no SPIFFE IDs: dns, uri or subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<NameKind>,
}

impl TlsSettings {
    /// Whether there is anything in it.
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// Whether whoever comes has to say who it is.
    pub fn authenticates(&self) -> bool {
        self.bearer || !self.client_trust.is_empty()
    }

    /// Everything that is wrong, without a look at any file.
    pub fn validate(&self) -> Vec<Problem> {
        if !self.is_given() {
            return vec![];
        }
        let mut problems = vec![];
        let mut wrong = |key: &str, text: String| problems.push(Problem::new(key, text));
        match (self.cert_file.is_empty(), self.key_file.is_empty(), self.workload_api.is_empty()) {
            (false, false, true) | (true, true, false) => {}
            (true, true, true) => {
                wrong("cert_file", "name the server's certificate and key_file, or give workload_api".into());
            }
            (_, _, false) => {
                wrong("workload_api", "gives the certificate: leave cert_file and key_file out".into());
            }
            (false, true, true) => wrong("key_file", "name the key of cert_file".into()),
            (true, false, true) => wrong("cert_file", "name the certificate of key_file".into()),
        }
        if !self.workload_api.is_empty() && self.socket().is_none() {
            wrong(
                "workload_api",
                "must be unix:// and an absolute path such as unix:///run/spire/sockets/agent.sock".into(),
            );
        }
        for (n, trust) in self.client_trust.iter().enumerate() {
            let known = self.client_trust[..n].iter().any(|other| other.name == trust.name);
            for text in trust.problems(known, !self.workload_api.is_empty()) {
                wrong("client_trust", format!("entry {}: {text}", n + 1));
            }
        }
        problems
    }

    /// The path of the Workload API's socket.
    pub(crate) fn socket(&self) -> Option<&str> {
        self.workload_api.strip_prefix("unix://").filter(|path| path.starts_with('/'))
    }
}

impl TrustSettings {
    fn problems(&self, known: bool, workload_api: bool) -> Vec<String> {
        let mut problems = vec![];
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(allowed) {
            problems.push("name must be 1 to 64 lower-case letters, digits and '-'".to_owned());
        }
        if known {
            problems.push(format!("another one is called {}", self.name));
        }
        match (self.trust_domain.is_empty(), self.names) {
            (true, None) => problems.push(
                "give the trust_domain of its SPIFFE IDs, or names = \"dns\", \"uri\" or \"subject\"".into(),
            ),
            (false, Some(_)) => {
                problems.push("has SPIFFE IDs (trust_domain) or other names (names), not both".into())
            }
            (false, None) => {
                problems.extend(self.trust_domain.parse::<TrustDomain>().err().map(|e| e.to_string()))
            }
            (true, Some(_)) => {}
        }
        if self.bundle_file.is_empty() && (!workload_api || self.trust_domain.is_empty()) {
            problems
                .push("name its bundle_file; the Workload API gives bundles of trust domains alone".into());
        }
        problems
    }

    /// How its certificates name their holders. None: it is not valid.
    pub(crate) fn naming(&self) -> Option<Naming> {
        match self.names {
            Some(kind) => Some(Naming::X509 { bundle: self.name.clone(), kind }),
            None => self.trust_domain.parse().ok().map(Naming::Spiffe),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(name: &str) -> TrustSettings {
        TrustSettings {
            name: name.into(),
            bundle_file: "ca.pem".into(),
            trust_domain: "prod.example".into(),
            names: None,
        }
    }

    #[test]
    fn what_is_missing_is_said_all_at_once() {
        let files = TlsSettings { cert_file: "c".into(), key_file: "k".into(), ..TlsSettings::default() };
        let good = TlsSettings { client_trust: vec![trust("a")], ..files.clone() };
        assert_eq!(good.validate(), []);
        assert_eq!(TlsSettings::default().validate(), []);
        let bad = TlsSettings {
            cert_file: "c".into(),
            workload_api: "tcp://x".into(),
            client_trust: vec![
                TrustSettings { names: Some(NameKind::Dns), ..trust("a") },
                TrustSettings { trust_domain: "A".into(), ..trust("a") },
                TrustSettings {
                    name: "B".into(),
                    bundle_file: String::new(),
                    trust_domain: String::new(),
                    names: None,
                },
            ],
            ..TlsSettings::default()
        };
        let said: Vec<_> = bad.validate().into_iter().map(|p| format!("{}: {}", p.key, p.message)).collect();
        for part in [
            "workload_api: gives the certificate",
            "workload_api: must be unix://",
            "entry 1: has SPIFFE IDs",
            "entry 2: another one is called a",
            "entry 2: \"A\" is not a trust domain",
            "entry 3: name must be",
            "entry 3: give the trust_domain",
            "entry 3: name its bundle_file",
        ] {
            assert!(said.iter().any(|text| text.contains(part)), "{part} in {said:?}");
        }
        assert!(good.authenticates() && !files.authenticates());
    }
}
