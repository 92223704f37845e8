//! `jeton workload`

use std::time::Duration;

use jeton_proto::v1::{
    self, identity_service_client::IdentityServiceClient, workload_service_client::WorkloadServiceClient,
};
use prost_types::FieldMask;
use tonic::transport::Channel;

use super::{Common, PAGE, full, id_of, identity, label, labels, shown};
use crate::{
    exit::Misuse,
    output::{Format, text},
};

const COLLECTION: &str = "workloads/";
const PATIENCE: Duration = Duration::from_secs(120);

/// `jeton workload`
#[derive(Debug, clap::Args)]
pub(crate) struct WorkloadArguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Register a service
    Create {
        /// The workload: checkout, or workloads/checkout
        name: String,
        #[command(flatten)]
        parts: Parts,
        /// Repeating a change with the same id changes nothing more
        #[arg(long, default_value = "")]
        request_id: String,
    },
    /// Show one
    Get {
        /// The workload
        name: String,
    },
    /// Show all
    List,
    /// Change principals, display name or labels
    Update {
        /// The workload
        name: String,
        #[command(flatten)]
        parts: Parts,
        /// Repeating a change with the same id changes nothing more
        #[arg(long, default_value = "")]
        request_id: String,
    },
    /// Remove it, and its system-assigned identity
    Delete {
        /// The workload
        name: String,
        /// Repeating a change with the same id changes nothing more
        #[arg(long, default_value = "")]
        request_id: String,
    },
    /// Give it an identity of its own
    EnableSystemIdentity {
        /// The workload
        name: String,
        /// Where the identity is registered
        #[arg(long)]
        authority: String,
        /// Return when the intent is durable, and not when the work is done
        #[arg(long)]
        no_wait: bool,
        /// Repeating a change with the same id changes nothing more
        #[arg(long, default_value = "")]
        request_id: String,
    },
    /// Make a secret and print it, this once; those before count until the overlap ends
    RotateSecret {
        /// The workload
        name: String,
        /// How long the secrets before go on counting: 0s, 90s, 15m, 1h or 7d
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = length)]
        overlap: Duration,
        /// A secret is made once for an id, and shown once
        #[arg(long, default_value = "")]
        request_id: String,
    },
    /// End a secret at once
    #[command(group = clap::ArgGroup::new("which").required(true).args(["secret", "all"]))]
    RevokeSecret {
        /// The workload
        name: String,
        /// The secret, by its uid
        #[arg(long, value_name = "UID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        secret: Option<String>,
        /// All that it has
        #[arg(long)]
        all: bool,
        /// Repeating a change with the same id changes nothing more
        #[arg(long, default_value = "")]
        request_id: String,
    },
    /// Remove the identity of its own
    DisableSystemIdentity {
        /// The workload
        name: String,
        /// Repeating a change with the same id changes nothing more
        #[arg(long, default_value = "")]
        request_id: String,
    },
}

#[derive(Debug, clap::Args)]
struct Parts {
    /// How the doors know it, such as unix://NODE/uid/1000; repeatable, and an update replaces all that it has
    #[arg(long = "principal", value_name = "PRINCIPAL")]
    principals: Vec<String>,
    /// For people
    #[arg(long)]
    display_name: Option<String>,
    /// For people and filters; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

type Client = WorkloadServiceClient<Channel>;

/// Runs the command.
pub(crate) async fn run(arguments: WorkloadArguments) -> anyhow::Result<()> {
    let output = arguments.common.output;
    let channel = arguments.common.broker.admin_plane().await?;
    let mut client = Client::new(channel.clone());
    let workload = match arguments.verb {
        Verb::List => {
            let shown: Vec<_> = list(&mut client).await?.iter().map(shown::workload).collect();
            return output.many(&shown, &["name", "system identity", "principals"], |w| {
                let principals: Vec<_> =
                    w["principals"].as_array().into_iter().flatten().filter_map(|p| p.as_str()).collect();
                let text = |name: &str| w[name].as_str().unwrap_or_default().to_owned();
                vec![text("name"), text("system_identity"), principals.join(" ")]
            });
        }
        Verb::Get { name } => {
            client
                .get_workload(v1::GetWorkloadRequest { name: full(&name, COLLECTION) })
                .await?
                .into_inner()
                .workload
        }
        Verb::Create { name, parts, request_id } => {
            let request = v1::CreateWorkloadRequest {
                workload_id: id_of(&name, COLLECTION).into(),
                principals: parts.principals,
                display_name: parts.display_name.unwrap_or_default(),
                labels: labels(&parts.labels),
                request_id,
            };
            client.create_workload(request).await?.into_inner().workload
        }
        Verb::Update { name, parts, request_id } => {
            let mut paths = vec![];
            paths.extend((!parts.principals.is_empty()).then(|| "principals".to_owned()));
            paths.extend(parts.display_name.as_ref().map(|_| "display_name".to_owned()));
            paths.extend((!parts.labels.is_empty()).then(|| "labels".to_owned()));
            if paths.is_empty() {
                let text = "nothing to change: give --principal, --display-name or --label";
                return Err(Misuse(text.into()).into());
            }
            let request = v1::UpdateWorkloadRequest {
                name: full(&name, COLLECTION),
                display_name: parts.display_name.unwrap_or_default(),
                labels: labels(&parts.labels),
                principals: parts.principals,
                update_mask: Some(FieldMask { paths }),
                request_id,
            };
            client.update_workload(request).await?.into_inner().workload
        }
        Verb::Delete { name, request_id } => {
            client
                .delete_workload(v1::DeleteWorkloadRequest { name: full(&name, COLLECTION), request_id })
                .await?;
            return Ok(());
        }
        Verb::EnableSystemIdentity { name, authority, no_wait, request_id } => {
            let request = v1::EnableSystemIdentityRequest {
                name: full(&name, COLLECTION),
                authority: full(&authority, "authorities/"),
                request_id,
            };
            let workload =
                client.enable_system_identity(request).await?.into_inner().workload.unwrap_or_default();
            if !no_wait {
                let mut identities = IdentityServiceClient::new(channel);
                let request = v1::GetIdentityRequest { name: workload.system_identity.clone() };
                let made = identities.get_identity(request).await?.into_inner().identity.unwrap_or_default();
                identity::settled(&mut identities, made, PATIENCE).await?;
            }
            Some(workload)
        }
        Verb::RotateSecret { name, overlap, request_id } => {
            let overlap = i64::try_from(overlap.as_secs()).map_or(i64::MAX, |seconds| seconds);
            let overlap = Some(prost_types::Duration { seconds: overlap, nanos: 0 });
            let request = v1::RotateSecretRequest { name: full(&name, COLLECTION), overlap, request_id };
            let secret = client.rotate_secret(request).await?.into_inner().secret;
            return match output {
                Format::Json => output.one(&serde_json::json!({ "secret": secret }), |_| vec![]),
                Format::Table => text(&format!("{secret}\n")),
            };
        }
        Verb::RevokeSecret { name, secret, all: _, request_id } => {
            let secret_uid = secret.unwrap_or_default();
            let request = v1::RevokeSecretRequest { name: full(&name, COLLECTION), secret_uid, request_id };
            client.revoke_secret(request).await?.into_inner().workload
        }
        Verb::DisableSystemIdentity { name, request_id } => {
            let request = v1::DisableSystemIdentityRequest { name: full(&name, COLLECTION), request_id };
            client.disable_system_identity(request).await?.into_inner().workload
        }
    };
    output.one(&shown::workload(&workload.unwrap_or_default()), |w| {
        let text = |name: &str| w[name].as_str().unwrap_or_default().to_owned();
        let mut facts = vec![
            ("name", text("name")),
            ("display name", text("display_name")),
            ("system identity", text("system_identity")),
        ];
        let principals = w["principals"].as_array().into_iter().flatten();
        facts.extend(principals.map(|p| ("principal", p.as_str().unwrap_or_default().to_owned())));
        facts.extend([("uid", text("uid")), ("created", text("create_time"))]);
        facts.extend(w["secrets"].as_array().into_iter().flatten().map(|s| ("secret", secret(s))));
        facts
    })
}

fn secret(secret: &serde_json::Value) -> String {
    let part = |name: &str| secret[name].as_str().unwrap_or("-");
    format!(
        "{} made {} until {} used {}",
        part("uid"),
        part("create_time"),
        part("expire_time"),
        part("last_use_time")
    )
}

/// A whole number of seconds, minutes, hours or days.
fn length(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no length of time: say 0s, 90s, 15m, 1h or 7d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Every page.
pub(super) async fn list(client: &mut Client) -> anyhow::Result<Vec<v1::Workload>> {
    let (mut all, mut page_token) = (vec![], String::new());
    loop {
        let page = client
            .list_workloads(v1::ListWorkloadsRequest { page_size: PAGE, page_token })
            .await?
            .into_inner();
        all.extend(page.workloads);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        page_token = page.next_page_token;
    }
}
