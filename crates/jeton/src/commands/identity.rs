//! `jeton identity`

use std::{path::PathBuf, time::Duration};

use indicatif::{ProgressBar, ProgressFinish};
use jeton_proto::v1::{
    self, attach_identity_request::Credential, identity_service_client::IdentityServiceClient,
};
use prost_types::FieldMask;
use secrecy::ExposeSecret;
use tonic::{Code, transport::Channel};

use super::{
    Common, PAGE, full, id_of, in_use, label, labels, read_secret, read_text, shown,
    standing::{self, WorstArguments},
};
use crate::exit::{Misuse, NotYet};

const COLLECTION: &str = "identities/";
const POLL: Duration = Duration::from_millis(100);

/// `jeton identity`
#[derive(Debug, clap::Args)]
pub(crate) struct IdentityArguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Register a new client at an authority and keep its certificate
    Create {
        /// The identity: billing, or identities/billing
        name: String,
        /// Where it is registered
        #[arg(long)]
        authority: String,
        #[command(flatten)]
        people: People,
        #[command(flatten)]
        change: Change,
    },
    /// Take over a client that exists, with its certificate or secret
    #[command(group = clap::ArgGroup::new("material").required(true).args(["certificate", "secret_file"]))]
    Attach {
        /// The identity: billing, or identities/billing
        name: String,
        /// Where it is registered
        #[arg(long)]
        authority: String,
        /// Its client id there
        #[arg(long)]
        client_id: String,
        /// Its certificate (PEM file)
        #[arg(long, value_name = "FILE", requires = "private_key")]
        certificate: Option<PathBuf>,
        /// The certificate's private key (PEM file: PKCS#8, PKCS#1 or SEC1)
        #[arg(long, value_name = "FILE", requires = "certificate")]
        private_key: Option<PathBuf>,
        /// Its client secret (file)
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        #[command(flatten)]
        people: People,
        #[command(flatten)]
        change: Change,
    },
    /// Show one
    Get {
        /// The identity
        name: String,
    },
    /// Show all that fit
    List {
        /// Only those of this authority
        #[arg(long, default_value = "")]
        authority: String,
        /// Only those of this workload
        #[arg(long, default_value = "")]
        workload: String,
        /// Only those in this state
        #[arg(long)]
        state: Option<State>,
        /// Only those with this label; repeatable
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// Show those that need somebody most, the worst first
    Worst(WorstArguments),
    /// Ask its authority for its tokens in memory anew, now
    Refresh {
        /// The identity
        name: String,
    },
    /// Change display name or labels
    Update {
        /// The identity
        name: String,
        #[command(flatten)]
        people: People,
        #[command(flatten)]
        change: Change,
    },
    /// Remove it, at its authority too if it was created here. One that was used lately needs --yes
    Delete {
        /// The identity
        name: String,
        /// Also if somebody used it lately
        #[arg(long, alias = "force")]
        yes: bool,
        /// How many days ago is lately
        #[arg(long, value_name = "DAYS", default_value_t = 7)]
        used_within: u32,
        #[command(flatten)]
        change: Change,
    },
    /// Replace its certificate
    Rotate {
        /// The identity
        name: String,
        #[command(flatten)]
        change: Change,
    },
    /// Stop issuing tokens with it
    Disable {
        /// The identity
        name: String,
        #[command(flatten)]
        change: Change,
    },
    /// Issue tokens with it again, or try a failed one anew
    Enable {
        /// The identity
        name: String,
        #[command(flatten)]
        change: Change,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum State {
    Provisioning,
    Active,
    Disabled,
    Deleting,
    Failed,
}

#[derive(Debug, clap::Args)]
struct People {
    /// For people
    #[arg(long)]
    display_name: Option<String>,
    /// For people and filters; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

#[derive(Debug, clap::Args)]
struct Change {
    /// Return when the intent is durable, and not when the work is done
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for the work, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// Repeating a change with the same id changes nothing more
    #[arg(long, value_name = "ID", default_value = "")]
    request_id: String,
}

type Client = IdentityServiceClient<Channel>;

/// Runs the command.
pub(crate) async fn run(arguments: IdentityArguments) -> anyhow::Result<()> {
    let output = arguments.common.output;
    let mut client = Client::new(arguments.common.broker.admin_plane().await?);
    let (identity, change) = match arguments.verb {
        Verb::List { authority, workload, state, labels: wanted } => {
            let request = v1::ListIdentitiesRequest {
                page_size: PAGE,
                authority: full(&authority, "authorities/"),
                workload: full(&workload, "workloads/"),
                state: state.map_or(v1::IdentityState::Unspecified, State::wire).into(),
                labels: labels(&wanted),
                ..Default::default()
            };
            let all = list(&mut client, request).await?;
            let shown: Vec<_> = all.iter().map(shown::identity).collect();
            let heads = ["name", "state", "kind", "authority", "client id", "operation"];
            return output.many(&shown, &heads, |i| {
                let text = |name: &str| i[name].as_str().unwrap_or_default().to_owned();
                let operation = i["operation"]["kind"]
                    .as_str()
                    .map(|k| format!("{k} {}", i["operation"]["step"].as_str().unwrap_or_default()));
                vec![
                    text("name"),
                    text("state"),
                    text("kind"),
                    text("authority"),
                    text("client_id"),
                    operation.unwrap_or_default(),
                ]
            });
        }
        Verb::Worst(worst) => return standing::worst(&arguments.common, worst).await,
        Verb::Refresh { name } => return standing::refresh(&arguments.common, &name).await,
        Verb::Get { name } => {
            let request = v1::GetIdentityRequest { name: full(&name, COLLECTION) };
            let found = client.get_identity(request).await?.into_inner();
            let shown = shown::identity_with_uses(&found.identity.unwrap_or_default(), &found.uses);
            return output.one(&shown, facts);
        }
        Verb::Create { name, authority, people, change } => {
            let request = v1::CreateIdentityRequest {
                identity_id: id_of(&name, COLLECTION).into(),
                authority: full(&authority, "authorities/"),
                display_name: people.display_name.unwrap_or_default(),
                labels: labels(&people.labels),
                request_id: change.request_id.clone(),
            };
            (client.create_identity(request).await?.into_inner().identity, Some(change))
        }
        Verb::Attach {
            name,
            authority,
            client_id,
            certificate,
            private_key,
            secret_file,
            people,
            change,
        } => {
            let credential = match (certificate, private_key, secret_file) {
                (Some(certificate), Some(key), _) => Credential::Certificate(v1::AttachCertificate {
                    certificate_pem: read_text(&certificate)?,
                    private_key_pem: read_text(&key)?,
                }),
                (_, _, Some(file)) => {
                    let client_secret = read_secret(&file)?.expose_secret().to_owned();
                    Credential::Secret(v1::AttachSecret { client_secret, expire_time: None })
                }
                _ => anyhow::bail!("bring a certificate with its private key, or a secret file"),
            };
            let request = v1::AttachIdentityRequest {
                identity_id: id_of(&name, COLLECTION).into(),
                authority: full(&authority, "authorities/"),
                client_id,
                credential: Some(credential),
                display_name: people.display_name.unwrap_or_default(),
                labels: labels(&people.labels),
                request_id: change.request_id.clone(),
            };
            (client.attach_identity(request).await?.into_inner().identity, Some(change))
        }
        Verb::Update { name, people, change } => {
            let mut paths = vec![];
            paths.extend(people.display_name.as_ref().map(|_| "display_name".to_owned()));
            paths.extend((!people.labels.is_empty()).then(|| "labels".to_owned()));
            if paths.is_empty() {
                return Err(Misuse("nothing to change: give --display-name or --label".into()).into());
            }
            let request = v1::UpdateIdentityRequest {
                name: full(&name, COLLECTION),
                display_name: people.display_name.unwrap_or_default(),
                labels: labels(&people.labels),
                update_mask: Some(FieldMask { paths }),
                request_id: change.request_id,
            };
            (client.update_identity(request).await?.into_inner().identity, None)
        }
        Verb::Delete { name, yes, used_within, change } => {
            if !yes {
                in_use::refuse(&mut client, full(&name, COLLECTION), used_within).await?;
            }
            let request = v1::DeleteIdentityRequest {
                name: full(&name, COLLECTION),
                request_id: change.request_id.clone(),
            };
            (client.delete_identity(request).await?.into_inner().identity, Some(change))
        }
        Verb::Rotate { name, change } => {
            let request = v1::RotateCredentialRequest {
                name: full(&name, COLLECTION),
                request_id: change.request_id.clone(),
            };
            (client.rotate_credential(request).await?.into_inner().identity, Some(change))
        }
        Verb::Disable { name, change } => {
            let request =
                v1::DisableIdentityRequest { name: full(&name, COLLECTION), request_id: change.request_id };
            let done = client.disable_identity(request).await?.into_inner();
            let mut shown = shown::identity(&done.identity.unwrap_or_default());
            shown["revocation"] = shown::revocation(&done.revocation.unwrap_or_default());
            return output.one(&shown, |shown| {
                let mut facts = facts(shown);
                facts.extend(super::access::revocation_facts(&shown["revocation"]));
                facts
            });
        }
        Verb::Enable { name, change } => {
            let request = v1::EnableIdentityRequest {
                name: full(&name, COLLECTION),
                request_id: change.request_id.clone(),
            };
            (client.enable_identity(request).await?.into_inner().identity, Some(change))
        }
    };
    let identity = identity.unwrap_or_default();
    let settled = match change.filter(|change| !change.no_wait) {
        Some(change) => settled(&mut client, identity, Duration::from_secs(change.timeout)).await?,
        None => Some(identity),
    };
    let Some(settled) = settled else { return Ok(()) };
    output.one(&shown::identity(&settled), facts)
}

/// Every page.
pub(super) async fn list(
    client: &mut Client,
    mut request: v1::ListIdentitiesRequest,
) -> anyhow::Result<Vec<v1::Identity>> {
    let mut all = vec![];
    loop {
        let page = client.list_identities(request.clone()).await?.into_inner();
        all.extend(page.identities);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

/// Waits until no work is under way; a deletion ends with the identity, and there is none any more.
pub(super) async fn settled(
    client: &mut Client,
    mut identity: v1::Identity,
    timeout: Duration,
) -> anyhow::Result<Option<v1::Identity>> {
    // One that no clock reaches is none.
    let end = std::time::Instant::now().checked_add(timeout);
    // Hidden where standard error is no terminal.
    let progress = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear);
    loop {
        progress.tick();
        let operation = identity.operation.clone().unwrap_or_default();
        if identity.state() == v1::IdentityState::Failed {
            anyhow::bail!(
                "{} failed: {}; mend it and run `jeton identity enable {0}`",
                identity.name,
                operation.last_error
            );
        }
        progress.set_message(format!("{}: {} {}", identity.name, operation.kind, operation.step));
        if operation.kind.is_empty() || operation.step == "overlapped" {
            return Ok(Some(identity));
        }
        if end.is_some_and(|end| std::time::Instant::now() >= end) {
            let error = if operation.last_error.is_empty() {
                String::new()
            } else {
                format!(": {}", operation.last_error)
            };
            return Err(NotYet(format!(
                "{} is still at work ({} {}){error}; the broker goes on with it",
                identity.name, operation.kind, operation.step
            ))
            .into());
        }
        tokio::time::sleep(POLL).await;
        match client.get_identity(v1::GetIdentityRequest { name: identity.name.clone() }).await {
            Ok(found) => identity = found.into_inner().identity.unwrap_or_default(),
            Err(status) if status.code() == Code::NotFound && operation.kind == "delete" => {
                return Ok(None);
            }
            Err(status) => return Err(status.into()),
        }
    }
}

fn facts(identity: &serde_json::Value) -> Vec<(&'static str, String)> {
    let text = |name: &str| identity[name].as_str().unwrap_or_default().to_owned();
    let mut facts = vec![
        ("name", text("name")),
        ("state", text("state")),
        ("kind", text("kind")),
        ("authority", text("authority")),
        ("client id", text("client_id")),
        ("workload", text("workload")),
        ("display name", text("display_name")),
        ("uid", text("uid")),
        ("created", text("create_time")),
        ("last used", text("last_use_time")),
    ];
    let consumers = identity["consumers"].as_array().into_iter().flatten();
    facts.extend(consumers.map(|c| ("consumer", c.as_str().unwrap_or_default().to_owned())));
    for used in identity["uses"].as_array().into_iter().flatten() {
        let part = |name: &str| used[name].as_str().unwrap_or_default();
        let times = format!("first {}, last {}", part("first_use_time"), part("last_use_time"));
        facts.push(("used", format!("by {} for {}: {times}", part("principal"), part("target"))));
    }
    let operation = &identity["operation"];
    if let Some(kind) = operation["kind"].as_str() {
        let step = operation["step"].as_str().unwrap_or_default();
        facts.push(("operation", format!("{kind} {step}, {} failed tries", operation["attempts"])));
        facts.push(("last error", operation["last_error"].as_str().unwrap_or_default().into()));
    }
    for credential in identity["credentials"].as_array().into_iter().flatten() {
        let part = |name: &str| credential[name].as_str().unwrap_or_default().to_owned();
        let reference = [part("key"), part("x5t_s256")].join(" ");
        facts.push((
            "credential",
            format!("{} {} {reference} until {}", part("state"), part("kind"), part("expire_time")),
        ));
    }
    facts
}

impl State {
    fn wire(self) -> v1::IdentityState {
        match self {
            Self::Provisioning => v1::IdentityState::Provisioning,
            Self::Active => v1::IdentityState::Active,
            Self::Disabled => v1::IdentityState::Disabled,
            Self::Deleting => v1::IdentityState::Deleting,
            Self::Failed => v1::IdentityState::Failed,
        }
    }
}
