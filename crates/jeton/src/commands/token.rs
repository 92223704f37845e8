//! `jeton token`

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use jeton_proto::v1::{
    self, batch_get_tokens_result::Outcome, status_service_client::StatusServiceClient,
    token_service_client::TokenServiceClient, watch_tokens_request::Action, watch_tokens_response::Event,
};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use tonic::{Status, transport::Channel};

use super::{Common, PAGE, full, read_given, read_secret, shown};
use crate::{
    exit::{self, Misuse},
    output::{self, Format},
};

/// `jeton token`
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Get an access token
    Get {
        #[command(flatten)]
        what: What,
        /// The least life that it must have left, in seconds
        #[arg(long, value_name = "SECONDS")]
        min_validity: Option<i64>,
    },
    /// Get several, from a JSON list of objects with identity, scopes, resources and claims
    Batch {
        /// The file; - for standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Print a token whenever it changes
    Watch {
        #[command(flatten)]
        what: What,
        /// End after this many events
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Say that a resource refused a token, so that a new one is fetched
    ReportRejected {
        #[command(flatten)]
        what: What,
        /// The file that holds the token
        #[arg(long, value_name = "FILE")]
        token_file: PathBuf,
    },
    /// Show which tokens the broker holds; never the tokens themselves
    List {
        /// Only those of this identity
        #[arg(long, default_value = "")]
        identity: String,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct What {
    /// identities/NAME; the caller's system-assigned identity if absent
    #[arg(long, default_value = "")]
    identity: String,
    /// A scope, as at the authority; repeatable
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// A resource indicator (RFC 8707); repeatable
    #[arg(long = "resource", value_name = "URI")]
    resources: Vec<String>,
    /// A claims request or challenge (JSON)
    #[arg(long, value_name = "JSON", default_value = "")]
    claims: String,
}

/// An entry of a batch file.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Entry {
    identity: String,
    scopes: Vec<String>,
    resources: Vec<String>,
    claims: String,
}

/// Runs the command.
pub(crate) async fn run(arguments: TokenArguments) -> anyhow::Result<()> {
    let (output, broker) = (arguments.common.output, arguments.common.broker);
    match arguments.verb {
        Verb::List { identity } => {
            let mut client = StatusServiceClient::new(broker.admin_plane().await?);
            let (mut all, mut page_token) = (vec![], String::new());
            loop {
                let request = v1::ListTokensRequest {
                    page_size: PAGE,
                    page_token,
                    identity: full(&identity, "identities/"),
                };
                let page = client.list_tokens(request).await?.into_inner();
                all.extend(page.tokens.iter().map(shown::token_info));
                if page.next_page_token.is_empty() {
                    break;
                }
                page_token = page.next_page_token;
            }
            output.many(
                &all,
                &["identity", "target", "claims", "state", "expires at", "refresh at", "last error"],
                |t| {
                    let text = |name: &str| t[name].as_str().unwrap_or_default().to_owned();
                    vec![
                        text("identity"),
                        text("target"),
                        text("claims"),
                        text("state"),
                        text("expires_at"),
                        text("refresh_at"),
                        text("last_error"),
                    ]
                },
            )
        }
        Verb::Get { what, min_validity } => {
            let mut request = what.request();
            request.min_validity = min_validity.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
            let response =
                TokenServiceClient::new(broker.data_plane().await?).get_token(request).await?.into_inner();
            print(output, &shown::token(&response))
        }
        Verb::Batch { file } => {
            let entries: Vec<Entry> = serde_json::from_str(&read_given(&file)?).map_err(|e| {
                Misuse(format!(
                    "{} is no JSON list of objects with identity, scopes, resources and claims: {e}",
                    file.display()
                ))
            })?;
            let requests = entries.into_iter().map(Entry::request).collect();
            let mut client = TokenServiceClient::new(broker.data_plane().await?);
            let results =
                client.batch_get_tokens(v1::BatchGetTokensRequest { requests }).await?.into_inner().results;
            let shown: Vec<_> = results.iter().map(outcome).collect();
            output.many(&shown, &["identity", "state", "expires at", "access token, or why not"], |r| {
                let text = |name: &str| r[name].as_str().unwrap_or_default().to_owned();
                let last = [text("access_token"), text("message")].concat();
                vec![text("identity"), text("state"), text("expires_at"), last]
            })
        }
        Verb::Watch { what, count } => {
            let client = TokenServiceClient::new(broker.data_plane().await?);
            // A reader that goes away ends the watch at once, and not only when there is something to print.
            tokio::select! {
                watched = watch(client, what.request(), count) => watched,
                () = output::reader_gone() => Ok(()),
            }
        }
        Verb::ReportRejected { what, token_file } => {
            let token = read_secret(&token_file)?;
            let wanted = what.request();
            let request = v1::ReportRejectedTokenRequest {
                identity: wanted.identity,
                scopes: wanted.scopes,
                resources: wanted.resources,
                claims: wanted.claims,
                token_sha256: digest(&SHA256, token.expose_secret().as_bytes()).as_ref().to_vec(),
            };
            let mut client = TokenServiceClient::new(broker.data_plane().await?);
            let answer = client.report_rejected_token(request).await?.into_inner();
            let outcome = shown::short(answer.outcome().as_str_name(), "REPORT_OUTCOME_");
            output.one(&json!({"outcome": outcome}), |v| {
                vec![("outcome", v["outcome"].as_str().unwrap_or_default().into())]
            })
        }
    }
}

async fn watch(
    mut client: TokenServiceClient<Channel>,
    request: v1::GetTokenRequest,
    count: Option<u64>,
) -> anyhow::Result<()> {
    let add = v1::WatchTokensAdd { id: "1".into(), request: Some(request) };
    let first = v1::WatchTokensRequest { action: Some(Action::Add(add)) };
    // The request side stays open for as long as the watch shall last.
    let requests = tokio_stream::once(first).chain(tokio_stream::pending());
    let mut events = client.watch_tokens(requests).await?.into_inner();
    let mut seen = 0;
    while count.is_none_or(|most| seen < most) {
        let Some(event) = events.next().await.transpose()? else { break };
        seen += 1;
        match event.event {
            Some(Event::Token(response)) => output::text(&format!("{}\n", shown::token(&response)))?,
            Some(Event::Failure(failure)) => {
                output::text(&format!("{}\n", shown::failure(&failure)))?;
                // Nothing more comes for what is denied or cannot be meant; anything else may pass.
                let status = Status::new(failure.code.into(), failure.message);
                if matches!(exit::of_status(&status), 2 | 4 | 5) {
                    return Err(status.into());
                }
            }
            Some(Event::Moving(_)) => output::text(&format!("{}\n", json!({"moving": true})))?,
            None => {}
        }
    }
    Ok(())
}

fn print(output: Format, token: &Value) -> anyhow::Result<()> {
    output.one(token, |t| {
        let text = |name: &str| t[name].as_str().unwrap_or_default().to_owned();
        let scopes: Vec<_> =
            t["scopes"].as_array().into_iter().flatten().filter_map(|s| s.as_str()).collect();
        vec![
            ("identity", text("identity")),
            ("client id", text("client_id")),
            ("scopes", scopes.join(" ")),
            ("state", text("state")),
            ("issued at", text("issued_at")),
            ("refresh at", text("refresh_at")),
            ("expires at", text("expires_at")),
            ("token type", text("token_type")),
            ("access token", text("access_token")),
        ]
    })
}

fn outcome(result: &v1::BatchGetTokensResult) -> Value {
    match &result.outcome {
        Some(Outcome::Response(response)) => shown::token(response),
        Some(Outcome::Failure(failure)) => shown::failure(failure),
        None => Value::Null,
    }
}

impl What {
    fn request(&self) -> v1::GetTokenRequest {
        let what = self.clone();
        let entry = Entry {
            identity: what.identity,
            scopes: what.scopes,
            resources: what.resources,
            claims: what.claims,
        };
        entry.request()
    }
}

impl Entry {
    fn request(self) -> v1::GetTokenRequest {
        v1::GetTokenRequest {
            identity: full(&self.identity, "identities/"),
            scopes: self.scopes,
            resources: self.resources,
            claims: self.claims,
            min_validity: None,
        }
    }
}
