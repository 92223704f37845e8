//! `[managed_identity]`: which endpoints there are, and whose requests come there.

use std::net::{IpAddr, SocketAddr};

use jeton_core::{Principal, Problem};
use serde::{Deserialize, Serialize};

use super::{Flavour, arc};
use crate::door::TlsSettings;

/// `[managed_identity]`. An endpoint without an address is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ManagedIdentitySettings {
    /// Azure App Service. Callers show their workload's secret.
    pub app_service: EndpointSettings,
    /// Azure's instance metadata service.
    pub imds: EndpointSettings,
    /// Azure Arc.
    pub arc: EndpointSettings,
    /// Azure Service Fabric, over TLS. Callers show their workload's secret.
    pub service_fabric: EndpointSettings,
    /// Azure Machine Learning. Callers show their workload's secret.
    pub azure_ml: EndpointSettings,
    /// Azure Cloud Shell.
    pub cloud_shell: EndpointSettings,
    /// Compute Engine's metadata server.
    pub gce: EndpointSettings,
    /// The certificate that `service_fabric` shows. Its callers pin it, or trust its authority.
    pub service_fabric_tls: TlsSettings,
    /// The folder of Arc's key files. Clients take no other than `/var/opt/azcmagent/tokens`.
    pub arc_tokens_dir: String,
    /// The project that Compute Engine's metadata name.
    pub gce_project: String,
    /// What a caller at Compute Engine's gets that names no scope.
    pub gce_scopes: Vec<String>,
}

/// One endpoint. A text that is empty means that nothing was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointSettings {
    /// `127.0.0.1:7421`, or `unix:/run/jeton/imds.sock`.
    pub listen: String,
    /// Mode of a unix socket's file, octal; empty: 0660.
    pub socket_mode: String,
    /// Whose requests come here, where no secret says it: the endpoint stands where this one alone reaches it, such as on the loopback of
    /// its pod. On a unix socket, empty: whom the peer's credentials name.
    pub principal: String,
    /// What else the Host header may be, with its port.
    pub hosts: Vec<String>,
    /// Whether the address may be another than loopback or link-local.
    pub allow_remote: bool,
}

/// Where an endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// TCP.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(String),
}

impl Default for ManagedIdentitySettings {
    fn default() -> Self {
        Self {
            app_service: EndpointSettings::default(),
            imds: EndpointSettings::default(),
            arc: EndpointSettings::default(),
            service_fabric: EndpointSettings::default(),
            azure_ml: EndpointSettings::default(),
            cloud_shell: EndpointSettings::default(),
            gce: EndpointSettings::default(),
            service_fabric_tls: TlsSettings::default(),
            arc_tokens_dir: arc::FOLDER.into(),
            gce_project: "jeton".into(),
            gce_scopes: vec!["https://www.googleapis.com/auth/cloud-platform".into()],
        }
    }
}

impl ManagedIdentitySettings {
    /// One endpoint's.
    pub fn endpoint(&self, flavour: Flavour) -> &EndpointSettings {
        match flavour {
            Flavour::AppService => &self.app_service,
            Flavour::Imds => &self.imds,
            Flavour::Arc => &self.arc,
            Flavour::ServiceFabric => &self.service_fabric,
            Flavour::AzureMl => &self.azure_ml,
            Flavour::CloudShell => &self.cloud_shell,
            Flavour::Gce => &self.gce,
        }
    }

    /// The same, to be changed.
    pub fn endpoint_mut(&mut self, flavour: Flavour) -> &mut EndpointSettings {
        match flavour {
            Flavour::AppService => &mut self.app_service,
            Flavour::Imds => &mut self.imds,
            Flavour::Arc => &mut self.arc,
            Flavour::ServiceFabric => &mut self.service_fabric,
            Flavour::AzureMl => &mut self.azure_ml,
            Flavour::CloudShell => &mut self.cloud_shell,
            Flavour::Gce => &mut self.gce,
        }
    }

    /// Everything that is wrong, without a look at any file.
    pub fn validate(&self) -> Vec<Problem> {
        let endpoints = Flavour::ALL.into_iter().flat_map(|flavour| {
            let problems = self.endpoint(flavour).validate(flavour);
            problems.into_iter().map(move |problem| problem.within(flavour.key()))
        });
        let mut problems: Vec<_> = endpoints.collect();
        let tls = self.service_fabric_tls.validate().into_iter();
        problems.extend(tls.map(|problem| problem.within("service_fabric_tls")));
        if self.service_fabric_tls.authenticates() {
            let text = "asks for client certificates or tokens: callers of Service Fabric's endpoint have none, their secret says who they are";
            problems.push(Problem::new("service_fabric_tls", text));
        }
        if !self.arc_tokens_dir.starts_with('/') {
            problems.push(Problem::new("arc_tokens_dir", "must be an absolute path"));
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.gce_project.is_empty() || !self.gce_project.chars().all(allowed) {
            problems.push(Problem::new("gce_project", "must be lower-case letters, digits and '-'"));
        }
        if self.gce_scopes.iter().any(|scope| scope.is_empty() || scope.contains([' ', ','])) {
            problems.push(Problem::new("gce_scopes", "a scope has no spaces and no commas"));
        }
        problems
    }
}

impl EndpointSettings {
    /// Where it listens, if it does.
    pub fn place(&self) -> Option<Place> {
        match self.listen.strip_prefix("unix:") {
            Some(path) => path.starts_with('/').then(|| Place::Unix(path.to_owned())),
            None => self.listen.parse().ok().map(Place::Tcp),
        }
    }

    /// Whose requests come here, whoever they are from.
    pub fn principal(&self) -> Option<Principal> {
        self.principal.parse().ok()
    }

    /// The mode of a unix socket's file.
    pub fn mode(&self) -> Option<u32> {
        let text = if self.socket_mode.is_empty() { "660" } else { &self.socket_mode };
        u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)
    }

    fn validate(&self, flavour: Flavour) -> Vec<Problem> {
        let mut problems = vec![];
        let mut wrong = |key: &str, text: &str| problems.push(Problem::new(key, text));
        let place = self.place();
        if self.listen.is_empty() {
            // The principal may come from defaults, and the endpoint be switched off over them.
            if *self != (Self { principal: self.principal.clone(), ..Self::default() }) {
                wrong("listen", "is missing: without an address nothing of this section has a use");
            }
            return problems;
        }
        match &place {
            None => wrong(
                "listen",
                "must be an address and a port such as 127.0.0.1:7421, or unix: and an absolute path",
            ),
            Some(Place::Tcp(address)) if !self.allow_remote && !is_near(address.ip()) => wrong(
                "listen",
                "is neither a loopback nor a link-local address: whoever reaches this endpoint gets tokens; if that is meant, set allow_remote",
            ),
            Some(_) => {}
        }
        if self.mode().is_none() {
            wrong("socket_mode", "must be an octal file mode such as 0660");
        }
        match (self.principal.is_empty(), flavour.by_secret(), &place) {
            (false, true, _) => wrong("principal", "must be empty: the secret says who asks"),
            (false, false, _) if self.principal().is_none() => {
                wrong("principal", "is not a principal such as spiffe://prod.example/checkout")
            }
            (true, false, Some(Place::Tcp(_))) => {
                wrong("principal", "is missing: say whose requests come here, because nothing in them does")
            }
            _ => {}
        }
        if self.hosts.iter().any(|host| host.is_empty() || host.contains(['/', ' ', '@'])) {
            wrong("hosts", "are what a Host header says: a name or an address, and the port");
        }
        problems
    }
}

/// Whether nobody reaches it from another machine's network.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut ManagedIdentitySettings)) -> Vec<String> {
        let mut settings = ManagedIdentitySettings::default();
        change(&mut settings);
        settings.validate().into_iter().map(|problem| problem.key).collect()
    }

    fn imds(listen: &str, principal: &str) -> Vec<String> {
        problems(|settings| {
            settings.imds.listen = listen.into();
            settings.imds.principal = principal.into();
        })
    }

    #[test]
    fn an_endpoint_stays_near_and_knows_whose_requests_come() {
        assert_eq!(problems(|_| ()), [""; 0]);
        for near in ["127.0.0.1:1", "[::1]:1", "169.254.169.254:80", "[fe80::1]:1"] {
            assert_eq!(imds(near, "spiffe://a.example/b"), [""; 0], "{near}");
        }
        assert_eq!(imds("unix:/run/a.sock", ""), [""; 0], "the peer's credentials say it");
        for far in
            ["0.0.0.0:1", "10.0.0.1:1", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:1", "localhost:1", "unix:a"]
        {
            assert_eq!(imds(far, "spiffe://a.example/b"), ["imds.listen"], "{far}");
        }
        assert_eq!(imds("127.0.0.1:1", ""), ["imds.principal"]);
        assert_eq!(imds("127.0.0.1:1", "nobody"), ["imds.principal"]);
        assert_eq!(imds("", "spiffe://a.example/b"), [""; 0], "switched off");
        assert_eq!(problems(|s| s.imds.allow_remote = true), ["imds.listen"]);
        let told = problems(|s| {
            s.imds = EndpointSettings {
                listen: "10.0.0.1:1".into(),
                principal: "spiffe://a.example/b".into(),
                allow_remote: true,
                ..EndpointSettings::default()
            }
        });
        assert_eq!(told, [""; 0]);
    }

    #[test]
    fn where_a_secret_says_who_asks_nothing_else_does() {
        let with = |principal: &str| {
            problems(|s| {
                s.app_service.listen = "127.0.0.1:1".into();
                s.app_service.principal = principal.into();
            })
        };
        assert_eq!(with(""), [""; 0]);
        assert_eq!(with("spiffe://a.example/b"), ["app_service.principal"]);
        assert_eq!(problems(|s| s.service_fabric_tls.bearer = true).last().unwrap(), "service_fabric_tls");
    }
}
