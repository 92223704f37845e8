//! Everything that a program does with TokenService. `--help` lists the arguments; the last line of the output is for tests.
#![allow(clippy::print_stdout, reason = "a command-line program")]

mod connect;
mod watch;

/// Made by `build.rs`.
#[allow(missing_docs, clippy::all, unreachable_pub, reason = "generated; documented in proto/")]
mod v1 {
    tonic::include_proto!("jeton.v1");
}

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use aws_lc_rs::digest::{SHA256, digest};
use clap::Parser;
use serde_json::{Value, json};
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt;

use connect::{connect, local_address, retried, retry_after};
use v1::{
    BatchGetTokensRequest, GetTokenRequest, ReportRejectedTokenRequest, Token,
    batch_get_tokens_result::Outcome, token_service_client::TokenServiceClient,
};
use watch::Watch;

type Tokens = TokenServiceClient<Channel>;

const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Parser)]
#[command(about = "Everything that a program does with TokenService")]
struct Arguments {
    /// Of a broker on this machine
    #[arg(long, env = "JETON_DATA_DIR", default_value = ".jeton")]
    data_dir: PathBuf,
    /// unix:PATH or HOST:PORT, in place of --data-dir
    #[arg(long)]
    address: Option<String>,
    #[arg(long, default_value = "identities/billing")]
    identity: String,
    #[arg(long, default_value = "https://vault.example/.default")]
    scope: String,
    /// An identity that gets no token
    #[arg(long, default_value = "identities/nobody")]
    refused: String,
    /// End after so many tokens of the watch
    #[arg(long, default_value_t = 1)]
    updates: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let address = match &arguments.address {
        Some(address) => address.clone(),
        None => local_address(&arguments.data_dir)?,
    };
    let tokens = TokenServiceClient::new(connect(&address)?);
    let request = |identity: &str| GetTokenRequest {
        identity: identity.to_owned(),
        scopes: vec![arguments.scope.clone()],
        ..Default::default()
    };
    let (request, refused) = (request(&arguments.identity), request(&arguments.refused));
    let mut result = json!({ "language": "rust", "address": address });
    result["token"] = one_token(&tokens, &request).await?;
    result["batch"] = several_tokens(&tokens, vec![request.clone(), refused.clone()]).await?;
    result["refusal"] = a_refusal(&tokens, &refused).await?;
    watched(&tokens, &request, arguments.updates, &mut result).await?;
    println!("{result}");
    Ok(())
}

async fn one_token(tokens: &Tokens, request: &GetTokenRequest) -> anyhow::Result<Value> {
    let ask = async || tokens.clone().get_token(request.clone()).await;
    let token = retried(DEADLINE, ask).await?.token.context("an answer without a token")?;
    // The token itself goes into the header `authorization: Bearer ...` of a request, and nowhere else.
    let shown = json!({
        "identity": token.identity,
        "client_id": token.client_id,
        "expires_at": token.expires_at.unwrap_or_default().to_string(),
        "sha256": short_hash(&token),
    });
    println!("token   {shown}");
    Ok(shown)
}

/// One call for several tokens. Each fails or succeeds by itself, and the answers have the order of the requests.
async fn several_tokens(tokens: &Tokens, requests: Vec<GetTokenRequest>) -> anyhow::Result<Value> {
    let identities: Vec<_> = requests.iter().map(|request| request.identity.clone()).collect();
    let request = BatchGetTokensRequest { requests };
    let ask = async || tokens.clone().batch_get_tokens(request.clone()).await;
    let results = retried(DEADLINE, ask).await?.results;
    let mut batch = vec![];
    for (identity, result) in identities.iter().zip(results) {
        batch.push(match result.outcome.context("an answer without an outcome")? {
            Outcome::Response(response) => {
                json!({ "identity": identity, "sha256": short_hash(&response.token.unwrap_or_default()) })
            }
            Outcome::Failure(failure) => json!({ "identity": identity, "reason": failure.reason }),
        });
    }
    let batch = Value::from(batch);
    println!("batch   {batch}");
    Ok(batch)
}

async fn a_refusal(tokens: &Tokens, request: &GetTokenRequest) -> anyhow::Result<Value> {
    let ask = async || tokens.clone().get_token(request.clone()).await;
    let Err(error) = retried(DEADLINE, ask).await else {
        anyhow::bail!("{} was not refused", request.identity);
    };
    // There are no details if the broker was not reached: then the code came from tonic here.
    let info = error.get_details_error_info();
    let shown = json!({
        "code": code_name(error.code()),
        "reason": info.as_ref().map(|info| &info.reason),
        "correlation_id": info.as_ref().and_then(|info| info.metadata.get("correlation_id")),
        "retry_after_seconds": retry_after(&error).map(|after| after.as_secs_f64()),
    });
    println!("refused {shown} {}", error.message());
    Ok(shown)
}

/// Adds the first tokens of a watch. After the first one: what a program does when a resource refuses a token.
async fn watched(
    tokens: &Tokens,
    request: &GetTokenRequest,
    count: usize,
    result: &mut Value,
) -> anyhow::Result<()> {
    let (mut watch, mut updates) = (Watch::new(tokens.clone(), request.clone()), vec![]);
    while updates.len() < count {
        let token = watch.next().await?;
        updates.push(short_hash(&token));
        println!("watch   update {}: {}, after {:?}", updates.len(), short_hash(&token), watch.interruptions);
        if updates.len() == 1 {
            result["report"] = report(tokens, request, &token).await?.into();
        }
    }
    result["updates"] = updates.into();
    result["interruptions"] = watch.interruptions.len().into();
    Ok(())
}

/// For a token that a resource answered with 401 although it has not expired. The broker asks for another, which the watch brings.
async fn report(tokens: &Tokens, request: &GetTokenRequest, token: &Token) -> anyhow::Result<&'static str> {
    let report = ReportRejectedTokenRequest {
        identity: request.identity.clone(),
        scopes: request.scopes.clone(),
        token_sha256: digest(&SHA256, token.access_token.as_bytes()).as_ref().to_vec(),
        ..Default::default()
    };
    let ask = async || tokens.clone().report_rejected_token(report.clone()).await;
    let outcome = retried(DEADLINE, ask).await?.outcome().as_str_name();
    println!("report  {outcome}");
    Ok(outcome)
}

/// Tells tokens apart in logs, and gives nothing away.
fn short_hash(token: &Token) -> String {
    let hash = digest(&SHA256, token.access_token.as_bytes());
    hash.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A code as the specification spells it: `PermissionDenied` is PERMISSION_DENIED.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
