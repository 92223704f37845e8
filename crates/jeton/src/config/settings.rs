//! All sections. A text that is empty means that nothing was given.

use std::{net::SocketAddr, path::PathBuf};

use jeton_access::AccessSettings;
use jeton_audit::AuditSettings;
use jeton_core::{Principal, Problem};
use jeton_engine::EngineSettings;
use jeton_keys::KeysSettings;
use jeton_lifecycle::LifecycleSettings;
use jeton_sandbox::SandboxOptions;
use jeton_server::{
    door::{DoorSettings, TlsSettings, UnixPeerRule},
    managed_identity::{Flavour, ManagedIdentitySettings},
};
use jeton_telemetry::TelemetrySettings;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::sources::leaves;
use crate::log::LogSettings;

/// The first of the ports of `dev`'s endpoints for SDKs of managed identities.
const FIRST_MANAGED_IDENTITY_PORT: u16 = 7421;
/// What `sun_path` holds beside its end.
const MAX_SOCKET_PATH: usize = 107;

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where the stores, the sockets and `endpoints.json` are.
    pub(crate) data_dir: String,
    pub(crate) node: NodeSettings,
    pub(crate) sealing: SealingSettings,
    pub(crate) data: DataSettings,
    pub(crate) admin: AdminSettings,
    pub(crate) managed_identity: ManagedIdentitySettings,
    pub(crate) reflection: ReflectionSettings,
    pub(crate) sandbox: SandboxSettings,
    pub(crate) door: DoorSettings,
    pub(crate) engine: EngineSettings,
    pub(crate) lifecycle: LifecycleSettings,
    pub(crate) access: AccessSettings,
    pub(crate) keys: KeysSettings,
    pub(crate) audit: AuditSettings,
    pub(crate) telemetry: TelemetrySettings,
    pub(crate) log: LogSettings,
}

/// `[node]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NodeSettings {
    /// Tells this machine's users from those of others, in `unix://NODE/uid/N`; empty: the host name.
    pub(crate) name: String,
}

/// `[sealing]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SealingSettings {
    /// The file of the sealing key, outside of the data directory. `dev` makes one inside if this is empty.
    pub(crate) key_file: String,
    /// The file of the one before, while that is or may be in force.
    pub(crate) previous_key_file: String,
}

/// `[data]`: the data plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DataSettings {
    /// Path of the unix socket; empty: `data.sock` in the data directory.
    pub(crate) socket: String,
    /// Mode of the socket's file, octal. Who connects is known by its peer credentials, and may do what it was given.
    pub(crate) socket_mode: String,
    /// TCP address; empty: none. `dev` only, on loopback: TCP callers are not authenticated.
    pub(crate) listen: String,
    /// TCP address with TLS; empty: none. In `serve` with what `tls` says; in `dev`, on loopback, for `--tls` and `--mtls`.
    pub(crate) tls_listen: String,
    /// Names for programs and containers on the unix socket; the first that fits counts.
    pub(crate) unix_peers: Vec<UnixPeerRule>,
    /// The certificate that is shown there, and who is let in.
    pub(crate) tls: TlsSettings,
}

/// `[admin]`: the admin plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdminSettings {
    /// Path of the unix socket; empty: `admin.sock` in the data directory.
    pub(crate) socket: String,
    /// Mode of the socket's file, octal. Who connects is known by its peer credentials, and may do what its role assignments say.
    pub(crate) socket_mode: String,
    /// TCP address with TLS, beside the socket; empty: none. `serve` only.
    pub(crate) tls_listen: String,
    /// What it shows there, and whose certificates let in. Trust of its own: that of the data plane does not count.
    pub(crate) tls: TlsSettings,
}

/// `[reflection]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ReflectionSettings {
    /// Whether gRPC server reflection answers.
    pub(crate) enabled: bool,
}

/// `[sandbox]`: for `dev` and `sandbox`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SandboxSettings {
    /// The sandbox authority's address.
    pub(crate) authority_listen: String,
    /// The key vault's address.
    pub(crate) vault_listen: String,
    /// Access tokens of its Entra-shaped tenant have at least so many bytes; the ids of groups fill them up.
    pub(crate) token_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: "./.jeton".into(),
            node: NodeSettings::default(),
            sealing: SealingSettings::default(),
            data: DataSettings::default(),
            admin: AdminSettings::default(),
            managed_identity: ManagedIdentitySettings::default(),
            reflection: ReflectionSettings::default(),
            sandbox: SandboxSettings::default(),
            door: DoorSettings::default(),
            engine: EngineSettings::default(),
            lifecycle: LifecycleSettings::default(),
            access: AccessSettings::default(),
            keys: KeysSettings::default(),
            audit: AuditSettings::default(),
            telemetry: TelemetrySettings::default(),
            log: LogSettings::default(),
        }
    }
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            socket: String::new(),
            socket_mode: "0660".into(),
            listen: String::new(),
            tls_listen: String::new(),
            unix_peers: vec![],
            tls: TlsSettings::default(),
        }
    }
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            socket: String::new(),
            socket_mode: "0600".into(),
            tls_listen: String::new(),
            tls: TlsSettings::default(),
        }
    }
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            authority_listen: "127.0.0.1:7443".into(),
            vault_listen: "127.0.0.1:7444".into(),
            token_bytes: 0,
        }
    }
}

impl Settings {
    /// What `dev` starts from.
    pub(crate) fn for_dev() -> Self {
        let mut settings = Self::default();
        settings.data.listen = "127.0.0.1:7411".into();
        settings.data.tls_listen = "127.0.0.1:7412".into();
        for (flavour, port) in Flavour::ALL.into_iter().zip(FIRST_MANAGED_IDENTITY_PORT..) {
            let endpoint = settings.managed_identity.endpoint_mut(flavour);
            endpoint.listen = format!("127.0.0.1:{port}");
            if !flavour.by_secret() {
                endpoint.principal = Principal::loopback_dev().to_string();
            }
        }
        settings.telemetry.metrics_listen = "127.0.0.1:7431".into();
        settings.reflection.enabled = true;
        settings.log.filter = "warn".into();
        settings.door.max_connections_per_principal = 8_000;
        settings
    }

    /// All keys with their values, for merging.
    pub(crate) fn to_table(&self) -> Table {
        Table::try_from(self).unwrap_or_default()
    }

    /// The dotted keys whose values differ.
    pub(crate) fn changed(&self, next: &Self) -> Vec<String> {
        let (before, after) = (leaves("", &self.to_table()), leaves("", &next.to_table()));
        // Both have every key, in one order.
        let pairs = before.into_iter().zip(after);
        pairs.filter(|((_, was), (_, is))| was != is).map(|((key, _), _)| key).collect()
    }

    /// Everything that is wrong.
    pub(crate) fn validate(&self) -> Vec<Problem> {
        let sections = [
            ("node", self.node.validate()),
            ("data", self.data.validate()),
            ("admin", self.admin.validate()),
            ("managed_identity", self.managed_identity.validate()),
            ("sandbox", self.sandbox.validate()),
            ("door", self.door.validate()),
            ("engine", self.engine.validate()),
            ("lifecycle", self.lifecycle.validate()),
            ("access", self.access.validate()),
            ("keys", self.keys.validate()),
            ("audit", self.audit.validate()),
            ("telemetry", self.telemetry.validate()),
            ("log", self.log.validate()),
        ];
        let own = self.data_dir.is_empty().then(|| Problem::new("data_dir", "must not be empty"));
        let named = |(name, problems): (&'static str, Vec<Problem>)| {
            problems.into_iter().map(move |p| p.within(name))
        };
        own.into_iter().chain(sections.into_iter().flat_map(named)).collect()
    }

    /// A socket whose path the system does not take, before anything is made for it.
    pub(crate) fn sockets_that_do_not_fit(&self) -> Vec<Problem> {
        let usual = |name: &str| {
            let folder = std::path::absolute(&self.data_dir).unwrap_or_else(|_| self.data_dir.clone().into());
            folder.join(name)
        };
        let sockets = [
            ("data.socket", &self.data.socket, "data.sock"),
            ("admin.socket", &self.admin.socket, "admin.sock"),
        ];
        let one = !self.data.socket.is_empty() && self.data.socket == self.admin.socket;
        let one =
            one.then(|| Problem::new("admin.socket", "is data.socket: each plane has a socket of its own"));
        let too_long = sockets.into_iter().filter_map(|(key, given, name)| {
            let path = path_or(given, usual(name));
            let length = path.as_os_str().len();
            (length > MAX_SOCKET_PATH).then(|| {
                let shown = path.display();
                let text = format!("{shown} has {length} bytes, and a socket's path at most {MAX_SOCKET_PATH}: choose a shorter data directory, or a shorter path here");
                Problem::new(key, text)
            })
        });
        one.into_iter().chain(too_long).collect()
    }

    /// The node's name.
    pub(crate) fn node_name(&self) -> String {
        if !self.node.name.is_empty() {
            return self.node.name.clone();
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        Some(host.chars().filter(|c| allowed(*c)).collect())
            .filter(|h: &String| !h.is_empty())
            .unwrap_or_else(|| "localhost".into())
    }
}

fn octal(mode: &str) -> Option<u32> {
    u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777)
}

impl AdminSettings {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = vec![];
        if self.mode().is_none() {
            problems.push(Problem::new("socket_mode", "must be an octal file mode such as 0600"));
        }
        if !self.tls_listen.is_empty() && self.tls_address().is_none() {
            problems.push(Problem::new("tls_listen", "must be an address and a port such as 127.0.0.1:7413"));
        }
        if self.tls.bearer {
            let text = "must be false: administrators come with certificates, or on the unix socket";
            problems.push(Problem::new("tls.bearer", text));
        }
        problems.extend(self.tls.validate().into_iter().map(|problem| problem.within("tls")));
        problems
    }

    /// The mode of the socket's file.
    pub(crate) fn mode(&self) -> Option<u32> {
        octal(&self.socket_mode)
    }

    /// The TCP address for TLS, if there is one.
    pub(crate) fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_listen.parse().ok()
    }
}

impl NodeSettings {
    fn validate(&self) -> Vec<Problem> {
        let fits = self.name.is_empty() || Principal::unix_uid(&self.name, 0).is_ok();
        (!fits)
            .then(|| Problem::new("name", "must be a host name: letters, digits, '-' and '.'"))
            .into_iter()
            .collect()
    }
}

impl DataSettings {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = vec![];
        if self.mode().is_none() {
            problems.push(Problem::new("socket_mode", "must be an octal file mode such as 0660"));
        }
        if !self.tls_listen.is_empty() && self.tls_address().is_none() {
            problems.push(Problem::new("tls_listen", "must be an address and a port such as 127.0.0.1:7412"));
        }
        if !self.listen.is_empty() && self.address().is_none() {
            problems.push(Problem::new("listen", "must be an address and a port such as 127.0.0.1:7411"));
        }
        problems.extend(UnixPeerRule::validate(&self.unix_peers));
        problems.extend(self.tls.validate().into_iter().map(|problem| problem.within("tls")));
        problems
    }

    /// The mode of the socket's file.
    pub(crate) fn mode(&self) -> Option<u32> {
        octal(&self.socket_mode)
    }

    /// The TCP address, if there is one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }

    /// The TCP address for TLS, if there is one.
    pub(crate) fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_listen.parse().ok()
    }
}

impl SandboxSettings {
    fn validate(&self) -> Vec<Problem> {
        let loopback = |text: &str| text.parse::<SocketAddr>().is_ok_and(|a| a.ip().is_loopback());
        let rules = [("authority_listen", &self.authority_listen), ("vault_listen", &self.vault_listen)];
        let wrong = rules.into_iter().filter(|(_, text)| !loopback(text));
        let mut problems: Vec<_> = wrong
            .map(|(key, _)| Problem::new(key, "must be a loopback address and a port such as 127.0.0.1:7443"))
            .collect();
        let most = SandboxOptions::MOST_TOKEN_BYTES;
        if self.token_bytes > most {
            problems.push(Problem::new("token_bytes", format!("must be from 0 to {most}")));
        }
        problems
    }
}

/// A path that was given, or the usual one.
pub(crate) fn path_or(given: &str, usual: PathBuf) -> PathBuf {
    if given.is_empty() { usual } else { given.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_every_key_is_in_the_table() {
        assert_eq!(Settings::default().validate(), []);
        assert_eq!(Settings::for_dev().validate(), []);
        let back: Settings = Settings::for_dev().to_table().try_into().unwrap();
        assert_eq!(back, Settings::for_dev());
    }

    #[test]
    fn dev_lets_its_one_principal_of_tcp_have_eight_thousand_connections() {
        let [dev, serve] =
            [Settings::for_dev(), Settings::default()].map(|s| s.door.max_connections_per_principal);
        assert_eq!((dev, serve), (8_000, 1_024));
    }

    #[test]
    fn a_problem_names_its_whole_key() {
        let mut settings = Settings::default();
        settings.engine.max_entries = 0;
        settings.lifecycle.rotation.after_seconds = 1;
        settings.data.socket_mode = "rw".into();
        settings.admin.socket_mode = "8".into();
        let keys: Vec<_> = settings.validate().into_iter().map(|p| p.key).collect();
        assert_eq!(
            keys,
            [
                "data.socket_mode",
                "admin.socket_mode",
                "engine.max_entries",
                "lifecycle.rotation.after_seconds"
            ]
        );
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_said_beforehand() {
        let mut settings = Settings::default();
        assert_eq!(settings.sockets_that_do_not_fit(), []);
        settings.data_dir = format!("/{}", "d".repeat(100));
        settings.data.socket = "/run/data.sock".into();
        let problems = settings.sockets_that_do_not_fit();
        assert!(problems.len() == 1 && problems[0].key == "admin.socket", "{problems:?}");
    }

    #[test]
    fn the_planes_do_not_share_a_socket() {
        let mut settings = Settings::default();
        settings.data.socket = "/run/one.sock".into();
        settings.admin.socket = settings.data.socket.clone();
        let problems = settings.sockets_that_do_not_fit();
        assert!(problems.len() == 1 && problems[0].key == "admin.socket", "{problems:?}");
    }
}
