//! `jeton status`

use std::process::ExitCode;

use jeton_proto::v1::{self, status_service_client::StatusServiceClient};
use serde_json::Value;

use super::{Common, shown};
use crate::{
    exit,
    output::{self, Format},
};

/// `jeton status`
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    common: Common,
    /// Exit code 0 while degraded too: for a supervisor's probe, which should not end what serves
    #[arg(long)]
    alive: bool,
}

/// Shows how the broker is doing.
pub(crate) async fn run(arguments: StatusArguments) -> anyhow::Result<ExitCode> {
    let mut client = StatusServiceClient::new(arguments.common.broker.admin_plane().await?);
    let status = client.status(v1::StatusRequest {}).await?.into_inner();
    let value = shown::status(&status);
    match arguments.common.output {
        Format::Json => arguments.common.output.one(&value, |_| vec![])?,
        Format::Table => output::text(&screen(&value))?,
    }
    Ok(if status.healthy || arguments.alive { ExitCode::SUCCESS } else { ExitCode::from(exit::DEGRADED) })
}

fn screen(s: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let each = |name: &str| s[name].as_array().cloned().unwrap_or_default();
    let counts = |name: &str| {
        let all = s[name].as_object().into_iter().flatten();
        all.map(|(state, n)| format!("{n} {state}")).collect::<Vec<_>>().join(", ")
    };
    let health = if s["healthy"] == true { "healthy" } else { "degraded" };
    let mut screen = format!(
        "{health}, version {}, node {}, up {:.0} s\nidentities  {}\ntokens      {}\n",
        text(&s["version"]),
        text(&s["node"]),
        s["uptime_seconds"].as_f64().unwrap_or(0.0),
        counts("identities"),
        counts("tokens"),
    );
    for authority in each("authorities") {
        screen += &format!(
            "authority   {}: at most {} requests/s, {} under way, {} identities held back\n",
            text(&authority["name"]),
            authority["requests_per_second"],
            authority["in_flight"],
            authority["held_identities"]
        );
    }
    for problem in each("problems") {
        screen += &format!(
            "\n! {}: {}\n  {}\n",
            text(&problem["subject"]),
            text(&problem["message"]),
            text(&problem["remedy"])
        );
    }
    for orphan in each("suspected_orphans") {
        screen += &format!(
            "\nsuspected orphan at {}: {} ({})\n",
            text(&orphan["authority"]),
            text(&orphan["client_name"]),
            text(&orphan["time"])
        );
    }
    screen
}
