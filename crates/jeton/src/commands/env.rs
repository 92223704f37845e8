//! `jeton env` and `jeton run`: what points an SDK of managed identities at a running broker.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use jeton_proto::v1::{self, workload_service_client::WorkloadServiceClient};
use jeton_server::managed_identity::Flavour;
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;

use super::{Common, full, id_of, trust};
use crate::{
    data_dir::write_private,
    endpoints::Endpoints,
    exit::Misuse,
    managed_identity::Found,
    output::{Format, text},
};

const COLLECTION: &str = "workloads/";
/// Below the data directory.
const SECRETS: &str = "workload-secrets";
/// Proxies must not get what is for this machine.
const NEAR: &str = "127.0.0.1,localhost";
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
    program: Vec<String>,
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
    let variables = variables(&arguments.common, &arguments.whose).await?;
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

/// Becomes the program.
pub(crate) async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    let variables = variables(&arguments.common, &arguments.whose).await?;
    let [program, rest @ ..] = arguments.program.as_slice() else {
        return Err(Misuse("name the program".into()).into());
    };
    let mut command = Command::new(program);
    for name in CHOOSING {
        command.env_remove(name);
    }
    let failed = command.args(rest).envs(variables).exec();
    Err(Misuse(format!("{program} cannot be started: {failed}")).into())
}

fn flavour(text: &str) -> Result<Flavour, String> {
    let names = || Flavour::ALL.map(Flavour::name).join(", ");
    Flavour::ALL.into_iter().find(|f| f.name() == text).ok_or_else(|| format!("must be one of {}", names()))
}

async fn variables(common: &Common, whose: &Whose) -> anyhow::Result<Variables> {
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
            "the endpoint for {} answers for {principal}, which is no principal of {name}: `jeton workload update` adds it",
            whose.flavour.name()
        );
        return Err(Misuse(text).into());
    }
    // A program starts in a folder of its own.
    let data_dir = &common.broker.data_dir.canonicalize()?;
    let secret = match whose.flavour.by_secret() {
        true => Some(secret(&mut client, &workload, data_dir).await?),
        false => None,
    };
    let mut variables = choosing(whose.flavour, url, secret, found)?;
    for name in ["NO_PROXY", "no_proxy"] {
        variables.insert(name, joined(name, NEAR, ","));
    }
    let authorities = authorities(&endpoints);
    if !authorities.is_empty() {
        let trust = trust::write(data_dir, &authorities)?;
        let shown = |path: &Path| path.display().to_string();
        for name in ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
            variables.insert(name, shown(&trust.pem));
        }
        let option = format!("-Djavax.net.ssl.trustStore={}", shown(&trust.java));
        variables.insert("JAVA_TOOL_OPTIONS", joined("JAVA_TOOL_OPTIONS", &option, " "));
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
    workload: &v1::Workload,
    data_dir: &Path,
) -> anyhow::Result<String> {
    let folder = data_dir.join(SECRETS);
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
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    write_private(&file, &serde_json::to_vec(&kept)?)
        .with_context(|| format!("keeping the workload's secret in {}", file.display()))?;
    Ok(kept.secret)
}

/// What the variable has already stays.
fn joined(name: &str, value: &str, between: &str) -> String {
    let before = std::env::var(name).unwrap_or_default();
    let known = |part: &str| before.split(between).any(|own| own == part);
    let new: Vec<_> = value.split(between).filter(|part| !known(part)).collect();
    let parts = [before.as_str()].into_iter().chain(new).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(between)
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
    fn values_survive_their_quotes() {
        assert_eq!(for_shell("it's"), r"'it'\''s'");
        assert_eq!(for_systemd(r#"a"b\c"#), r#""a\"b\\c""#);
    }
}
