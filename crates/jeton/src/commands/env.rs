//! `jeton env` and `jeton run`: what points an SDK of managed identities at a running broker.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io::ErrorKind,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::Context;
use jeton_proto::v1::{self, workload_service_client::WorkloadServiceClient};
use jeton_server::managed_identity::Flavour;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;

use super::{Common, full, id_of, trust};
use crate::{
    data_dir::write_private,
    endpoints::Endpoints,
    exit::Misuse,
    managed_identity::Found,
    output::{Format, text},
    reach::Whereabouts,
};

const COLLECTION: &str = "workloads/";
/// Below the data directory.
const SECRETS: &str = "workload-secrets";
/// Proxies must not get what is for this machine.
const NEAR: &str = "127.0.0.1,localhost";
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// How long another command may take to keep a secret, and how often it is looked.
const PATIENCE: Duration = Duration::from_secs(60);
const TURN: Duration = Duration::from_millis(20);
const JAVA: &str = "JAVA_TOOL_OPTIONS";
/// What clients choose an endpoint by. What another flavour set would win over this one's.
const CHOOSING: [&str; 10] = [
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "GCE_METADATA_HOST",
    "GCE_METADATA_IP",
    "GCE_METADATA_ROOT",
];

/// For whom, and how it asks.
#[derive(Debug, clap::Args)]
struct Whose {
    /// The workload whose identities it uses: demo, or workloads/demo
    #[arg(long, value_name = "NAME")]
    workload: String,
    /// Which endpoint its SDK knows
    #[arg(long, value_name = "FLAVOUR", default_value = "app-service", value_parser = flavour)]
    flavour: Flavour,
}

/// `jeton env`
#[derive(Debug, clap::Args)]
pub(crate) struct EnvArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    whose: Whose,
    /// As a shell takes it (the default)
    #[arg(long, group = "form")]
    shell: bool,
    /// As a Secret of Kubernetes, for `envFrom`
    #[arg(long, group = "form")]
    kubernetes: bool,
    /// As an EnvironmentFile of systemd
    #[arg(long, group = "form")]
    systemd: bool,
}

/// `jeton run`
#[derive(Debug, clap::Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    whose: Whose,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

type Variables = BTreeMap<&'static str, String>;

/// A workload's secret as it is kept for these commands.
#[derive(Serialize, Deserialize)]
struct Kept {
    uid: String,
    secret: String,
}

/// Prints the variables.
pub(crate) async fn env(arguments: EnvArguments) -> anyhow::Result<()> {
    let named = arguments.shell || arguments.kubernetes || arguments.systemd;
    if named && arguments.common.output == Format::Json {
        return Err(Misuse("-o json is a form of its own: leave the other one out".into()).into());
    }
    let mut variables = variables(&arguments.common, &arguments.whose).await?;
    if arguments.common.output == Format::Table && !arguments.kubernetes && !arguments.systemd {
        beside_present(&mut variables);
    }
    let id = id_of(&arguments.whose.workload, COLLECTION);
    let lines = |line: &dyn Fn(&str, &str) -> String| {
        variables.iter().map(|(name, value)| line(name, value)).collect::<String>()
    };
    text(&match arguments.common.output {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&variables)?),
        Format::Table if arguments.kubernetes => {
            let data = lines(&|name, value| format!("  {name}: {}\n", serde_json::json!(value)));
            format!(
                "# in the container: envFrom: [{{secretRef: {{name: jeton-{id}}}}}]\napiVersion: v1\nkind: Secret\nmetadata:\n  name: jeton-{id}\nstringData:\n{data}"
            )
        }
        Format::Table if arguments.systemd => {
            lines(&|name, value| format!("{name}={}\n", for_systemd(value)))
        }
        Format::Table => {
            let others = CHOOSING.iter().filter(|name| !variables.contains_key(*name));
            let others = others.filter(|name| std::env::var_os(name).is_some());
            let unset: String = others.map(|name| format!("unset {name}\n")).collect();
            unset + &lines(&|name, value| format!("export {name}={}\n", for_shell(value)))
        }
    })
}

/// Becomes the program. The codes of failure are those of a shell: 127, there is none; 126, it cannot be started.
pub(crate) async fn run(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let mut variables = variables(&arguments.common, &arguments.whose).await?;
    beside_present(&mut variables);
    let [program, rest @ ..] = arguments.program.as_slice() else {
        return Err(Misuse("name the program".into()).into());
    };
    let mut command = Command::new(program);
    for name in CHOOSING {
        command.env_remove(name);
    }
    let failed = command.args(rest).envs(variables).exec();
    let text = format!("error: {} cannot be started: {failed}\n", program.to_string_lossy());
    // A standard error that takes nothing is no reason to lose the exit code.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    Ok(ExitCode::from(if failed.kind() == ErrorKind::NotFound { 127 } else { 126 }))
}

fn flavour(text: &str) -> Result<Flavour, String> {
    let names = || Flavour::ALL.map(Flavour::name).join(", ");
    Flavour::ALL.into_iter().find(|f| f.name() == text).ok_or_else(|| format!("must be one of {}", names()))
}

async fn variables(common: &Common, whose: &Whose) -> anyhow::Result<Variables> {
    let Whereabouts { endpoint, socket, admin_socket, .. } = &common.broker;
    if endpoint.is_some() || socket.is_some() || admin_socket.is_some() {
        let text = "where SDKs ask stands in the data directory: name it with --data-dir, and no listener";
        return Err(Misuse(text.into()).into());
    }
    let endpoints = common.broker.running()?;
    let found = endpoints.managed_identity.get(whose.flavour.key()).ok_or_else(|| {
        let key = crate::managed_identity::key(whose.flavour);
        Misuse(format!("this broker has no endpoint for {}: {key} gives it an address", whose.flavour.name()))
    })?;
    let url = found.url.clone().ok_or_else(|| {
        Misuse(format!("the endpoint for {} is a unix socket, which no SDK asks", whose.flavour.name()))
    })?;
    let mut client = WorkloadServiceClient::new(common.broker.admin_plane().await?);
    let name = full(&whose.workload, COLLECTION);
    let request = v1::GetWorkloadRequest { name: name.clone() };
    let workload = client.get_workload(request).await?.into_inner().workload.unwrap_or_default();
    if let Some(principal) = &found.principal
        && !workload.principals.iter().any(|known| known == principal.as_str())
    {
        let text = format!(
            "the endpoint for {} answers for {principal}, which is no principal of {name}: give it that one beside those it has, with `jeton workload update` and a --principal for each",
            whose.flavour.name()
        );
        return Err(Misuse(text).into());
    }
    // A program starts in a folder of its own.
    let data_dir = &common.broker.data_dir.canonicalize()?;
    let secret = match whose.flavour.by_secret() {
        true => Some(secret(&mut client, &name, data_dir).await?),
        false => None,
    };
    let near = match host_of(&url) {
        host if NEAR.split(',').any(|known| known == host) => NEAR.to_owned(),
        host => format!("{NEAR},{host}"),
    };
    let mut variables = choosing(whose.flavour, url, secret, found)?;
    for name in NO_PROXY {
        variables.insert(name, near.clone());
    }
    let authorities = authorities(&endpoints);
    if !authorities.is_empty() {
        let trust = trust::write(data_dir, &authorities)?;
        let shown = |path: &Path| path.display().to_string();
        for name in ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
            variables.insert(name, shown(&trust.pem));
        }
        let option = format!("-Djavax.net.ssl.trustStore={}", shown(&trust.java));
        variables.insert(JAVA, for_java(&option));
    }
    Ok(variables)
}

/// The variables by which an SDK chooses its endpoint.
fn choosing(
    flavour: Flavour,
    url: String,
    secret: Option<String>,
    found: &Found,
) -> anyhow::Result<Variables> {
    let secret = secret.unwrap_or_default();
    let host = || url.trim_start_matches("http://").to_owned();
    Ok(match flavour {
        Flavour::AppService => [("IDENTITY_ENDPOINT", url), ("IDENTITY_HEADER", secret)].into(),
        Flavour::Imds => [("AZURE_POD_IDENTITY_AUTHORITY_HOST", url)].into(),
        Flavour::Arc => {
            let endpoint = format!("{url}{}", flavour.path());
            [("IDENTITY_ENDPOINT", endpoint), ("IMDS_ENDPOINT", url)].into()
        }
        Flavour::ServiceFabric => {
            let file = found.cert_file.as_deref().context("the endpoint's certificate comes from no file")?;
            let thumbprint = ("IDENTITY_SERVER_THUMBPRINT", trust::thumbprint(file)?);
            [("IDENTITY_ENDPOINT", url), ("IDENTITY_HEADER", secret), thumbprint].into()
        }
        Flavour::AzureMl => [("MSI_ENDPOINT", url), ("MSI_SECRET", secret)].into(),
        Flavour::CloudShell => [("MSI_ENDPOINT", url)].into(),
        Flavour::Gce => {
            ["GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT"].map(|name| (name, host())).into()
        }
    })
}

/// Whose certificates programs meet that no machine trusts by itself; of all flavours, because they share the files.
fn authorities(endpoints: &Endpoints) -> Vec<PathBuf> {
    let sandbox = endpoints.dev.as_ref().map(|dev| dev.sandbox.ca_file.clone());
    let shown = endpoints.managed_identity.values().filter_map(|found| found.ca_file.clone());
    sandbox.into_iter().chain(shown).collect()
}

/// The secret that is kept, if it counts for as long as nobody ends it; or a new one.
async fn secret(
    client: &mut WorkloadServiceClient<Channel>,
    name: &str,
    data_dir: &Path,
) -> anyhow::Result<String> {
    let folder = data_dir.join(SECRETS);
    // Before anything is made: what cannot be kept would end the secret that others have.
    let (file, failed) =
        (folder.join("lock"), || format!("keeping workloads' secrets in {}", folder.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(failed)?;
    let lock = File::options().write(true).create(true).truncate(false).open(&file).with_context(failed)?;
    // One at a time, for as long as this lives: two that find none would each make one.
    let alone = async {
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            tokio::time::sleep(TURN).await;
        }
    };
    tokio::time::timeout(PATIENCE, alone).await.with_context(failed)?;
    // Seen after the wait: another one may have just made it.
    let request = v1::GetWorkloadRequest { name: name.to_owned() };
    let workload = client.get_workload(request).await?.into_inner().workload.unwrap_or_default();
    let file = folder.join(format!("{}.json", id_of(&workload.name, COLLECTION)));
    let kept = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
    let counts = |kept: &Kept| {
        workload.secrets.iter().any(|known| known.uid == kept.uid && known.expire_time.is_none())
    };
    if let Some(kept) = kept.filter(counts) {
        return Ok(kept.secret);
    }
    let request = v1::RotateSecretRequest { name: workload.name.clone(), ..Default::default() };
    let made = client.rotate_secret(request).await?.into_inner();
    let kept = Kept { uid: made.secret_uid, secret: made.secret };
    write_private(&file, &serde_json::to_vec(&kept)?)
        .with_context(|| format!("keeping the workload's secret in {}", file.display()))?;
    Ok(kept.secret)
}

/// Of variables that hold several things, what they hold already stays.
fn beside_present(variables: &mut Variables) {
    let present = |name: &str| std::env::var(name).unwrap_or_default();
    // Programs read one spelling of the two, so each gets what is in either.
    let proxied = NO_PROXY.map(present);
    for name in NO_PROXY {
        let new = variables.get(name).map_or("", String::as_str);
        let mut hosts: Vec<&str> = vec![];
        for host in proxied.iter().flat_map(|text| text.split(',')).chain(new.split(',')) {
            if !host.trim().is_empty() && !hosts.contains(&host.trim()) {
                hosts.push(host.trim());
            }
        }
        let joined = hosts.join(",");
        variables.insert(name, joined);
    }
    let options = present(JAVA);
    if let Some(option) = variables.get_mut(JAVA)
        && !options.is_empty()
    {
        *option = if options.contains(option.as_str()) { options } else { format!("{options} {option}") };
    }
}

/// As lists of hosts that are asked directly have it: without the port.
fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_matches(['[', ']']).to_owned()
}

/// Java splits its options at spaces, and keeps together what is in quotes.
fn for_java(option: &str) -> String {
    match (option.contains(char::is_whitespace), option.contains('"'), option.contains('\'')) {
        (false, false, false) => option.to_owned(),
        (_, false, _) => format!("\"{option}\""),
        _ => format!("'{option}'"),
    }
}

fn for_shell(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn for_systemd(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flavour_has_its_variables_and_all_of_them_are_known() {
        let found = Found { url: None, socket: None, principal: None, cert_file: None, ca_file: None };
        for flavour in Flavour::ALL.into_iter().filter(|flavour| *flavour != Flavour::ServiceFabric) {
            let set = choosing(flavour, "http://127.0.0.1:1".into(), Some("s".into()), &found).unwrap();
            assert!(!set.is_empty() && set.keys().all(|name| CHOOSING.contains(name)), "{set:?}");
        }
        let set = choosing(Flavour::Gce, "http://127.0.0.1:1".into(), None, &found).unwrap();
        assert!(set.values().all(|value| value == "127.0.0.1:1"), "{set:?}");
    }

    #[test]
    fn no_proxy_gets_what_is_for_the_endpoint_wherever_it_is() {
        for (url, host) in [
            ("http://127.0.0.1:7421/msi/token", "127.0.0.1"),
            ("http://[::1]:7421/msi/token", "::1"),
            ("https://localhost:1/x", "localhost"),
            ("http://169.254.169.254:80", "169.254.169.254"),
        ] {
            assert_eq!(host_of(url), host);
        }
    }

    #[test]
    fn values_survive_their_quotes() {
        assert_eq!(for_java("-Da=/b"), "-Da=/b");
        assert_eq!(for_java("-Da=/b c'd"), "\"-Da=/b c'd\"");
        assert_eq!(for_java("-Da=/b \"c"), "'-Da=/b \"c'");
        assert_eq!(for_shell("it's"), r"'it'\''s'");
        assert_eq!(for_systemd(r#"a"b\c"#), r#""a\"b\\c""#);
    }
}
