//! `jeton status`: one screen that says what is wrong, what will be, and what helps.

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use jeton_proto::v1::{self, status_service_client::StatusServiceClient};
use serde_json::{Map, Value};
use tonic::Code;

use super::{Common, shown};
use crate::{
    exit,
    output::{self, Format},
    reach::Unreachable,
};

const EVERY: Duration = Duration::from_secs(2);
/// A broker that says nothing for so long is down.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clears a terminal, and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// `jeton status`
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    common: Common,
    /// Show it again every two seconds, until it is interrupted
    #[arg(long)]
    watch: bool,
    /// Exit code 0 while degraded too: for a supervisor's probe, which should not end what serves
    #[arg(long, conflicts_with = "watch")]
    alive: bool,
}

/// Shows how the broker is doing. The exit code is 0 if it is healthy, 1 if it is degraded, and 2 if it does not answer.
pub(crate) async fn run(arguments: StatusArguments) -> anyhow::Result<ExitCode> {
    if !arguments.watch {
        return Ok(ExitCode::from(shown_once(&arguments).await?));
    }
    let watching = async {
        loop {
            shown_once(&arguments).await?;
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::select! {
        failed = watching => failed,
        () = output::reader_gone() => Ok(ExitCode::SUCCESS),
    }
}

/// Shows it, and says with which code.
async fn shown_once(arguments: &StatusArguments) -> anyhow::Result<u8> {
    let (output, looked) = (arguments.common.output, look(&arguments.common).await);
    if arguments.watch && output == Format::Table && std::io::stdout().is_terminal() {
        output::text(CLEAR)?;
    }
    match looked {
        Ok(status) => {
            let value = shown::status(&status);
            match output {
                Format::Json => output.one(&value, |_| vec![])?,
                Format::Table => output::text(&screen(&value))?,
            }
            Ok(if status.healthy || arguments.alive { exit::HEALTHY } else { exit::DEGRADED })
        }
        Err(error) if is_down(&error) => {
            let down = serde_json::json!({"healthy": false, "down": true, "error": error.to_string()});
            match output {
                Format::Json => output.one(&down, |_| vec![])?,
                Format::Table => output::text(&format!("down: {error}\n"))?,
            }
            Ok(exit::DOWN)
        }
        Err(error) => Err(error),
    }
}

async fn look(common: &Common) -> anyhow::Result<v1::StatusResponse> {
    let asked = async {
        let mut client = StatusServiceClient::new(common.broker.admin_plane().await?);
        Ok(client.status(v1::StatusRequest {}).await?.into_inner())
    };
    let silent = || Unreachable(format!("the broker says nothing for {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, asked).await.map_err(|_| silent())?
}

/// Nobody answers, or not in time: whoever is not let in has reached a broker.
fn is_down(error: &anyhow::Error) -> bool {
    let late = |status: &tonic::Status| matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
    error.is::<Unreachable>() || error.downcast_ref().is_some_and(late)
}

fn screen(s: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let each = |name: &str| s[name].as_array().cloned().unwrap_or_default();
    let counts = |name: &str| {
        let all = s[name].as_object().into_iter().flatten();
        all.map(|(state, n)| format!("{n} {state}")).collect::<Vec<_>>().join(", ")
    };
    let problems = each("problems");
    let health = match problems.len() {
        0 => "healthy".to_owned(),
        1 => "degraded: one thing needs attention".to_owned(),
        n => format!("degraded: {n} things need attention"),
    };
    let own = env!("CARGO_PKG_VERSION");
    let version = match text(&s["version"]) {
        same if same == own => same,
        other => format!("{other} (this command {own})"),
    };
    let mut screen = format!(
        "{health}\nversion     {version}, node {}, up {}\nidentities  {}\ntokens      {}\n",
        text(&s["node"]),
        length(s["uptime_seconds"].as_f64().unwrap_or(0.0)),
        counts("identities"),
        counts("tokens"),
    );
    if let Some(rates) = s["rates"].as_object() {
        screen += &of_rates(rates);
    }
    each("authorities").iter().for_each(|authority| screen += &of_authority(authority));
    if let Some(first) = each("certificates").first() {
        let rotating = if first["rotating"] == true { ", another one is on its way" } else { "" };
        let (name, until) = (text(&first["identity"]), text(&first["expire_time"]));
        screen += &format!("certificate that ends first: {name}, {until}{rotating}\n");
    }
    for problem in problems {
        let left = match problem["starves_in_seconds"].as_f64() {
            Some(left) if left > 0.0 => format!("[{} left] ", length(left)),
            Some(_) => "[starved] ".to_owned(),
            None => String::new(),
        };
        let (subject, message) = (text(&problem["subject"]), text(&problem["message"]));
        screen += &format!("\n! {left}{subject}: {message}\n  {}\n", text(&problem["remedy"]));
    }
    for orphan in each("suspected_orphans") {
        let (authority, client) = (text(&orphan["authority"]), text(&orphan["client_name"]));
        screen += &format!("\nsuspected orphan at {authority}: {client} ({})\n", text(&orphan["time"]));
    }
    screen
}

/// Over the last minute.
fn of_rates(rates: &Map<String, Value>) -> String {
    let rate = |name: &str| rates[name].as_f64().unwrap_or(0.0);
    let fresh = rates["fresh_ratio"].as_f64();
    let fresh = fresh.map_or_else(String::new, |part| format!(" ({:.1} % fresh from memory)", part * 100.0));
    format!(
        "a second    {:.1} requests for tokens{fresh}, {:.1} misses, {:.1} denied; {:.1} refreshes, {:.1} failed; {:.1} calls to authorities\n\
         now         {} callers wait, {} connections\n",
        rate("lookups_per_second"),
        rate("misses_per_second"),
        rate("denied_per_second"),
        rate("refreshes_per_second"),
        rate("failed_refreshes_per_second"),
        rate("authority_calls_per_second"),
        rates["waiting_callers"],
        rates["connections"],
    )
}

fn of_authority(authority: &Value) -> String {
    let mut line = format!(
        "authority   {}: at most {:.0} requests/s, {} under way",
        authority["name"].as_str().unwrap_or_default(),
        authority["requests_per_second"].as_f64().unwrap_or(0.0),
        authority["in_flight"]
    );
    if let Some(left) = authority["retry_after_seconds"].as_f64() {
        line +=
            &format!(", Retry-After for {} more ({} identities)", length(left), authority["held_identities"]);
    }
    if let Some(left) = authority["starves_in_seconds"].as_f64() {
        let first = if left > 0.0 {
            format!("the first ends in {}", length(left))
        } else {
            "callers get none".into()
        };
        line += &format!(", {} refreshes fail, {first}", authority["failing_refreshes"]);
    }
    line + "\n"
}

/// A length of time as a person says it.
fn length(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..=119 => format!("{whole} s"),
        120..=7_199 => format!("{} min", whole / 60),
        7_200..=172_799 => format!("{} h", whole / 3_600),
        _ => format!("{} days", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_starves_first_is_said_with_what_is_left_and_what_helps() {
        let value = json!({
            "version": env!("CARGO_PKG_VERSION"), "node": "n", "uptime_seconds": 7_300.0,
            "identities": {"active": 2}, "tokens": {"stale": 1},
            "rates": {"lookups_per_second": 1_200.0, "fresh_ratio": 0.995, "misses_per_second": 1.5, "denied_per_second": 0.0,
                "refreshes_per_second": 2.0, "failed_refreshes_per_second": 0.5, "authority_calls_per_second": 2.5,
                "waiting_callers": 3, "connections": 7},
            "authorities": [{"name": "authorities/a", "requests_per_second": 200.0, "in_flight": 1, "held_identities": 2,
                "retry_after_seconds": 30.0, "failing_refreshes": 1, "starves_in_seconds": 125.0}],
            "certificates": [{"identity": "identities/x", "expire_time": "2027-01-01T00:00:00Z", "rotating": true}],
            "problems": [{"subject": "identities/x", "message": "it fails", "remedy": "jeton authority test authorities/a",
                "starves_in_seconds": 125.0}],
            "suspected_orphans": [],
        });
        let expected = format!(
            "degraded: one thing needs attention\nversion     {}, node n, up 2 h\nidentities  2 active\ntokens      1 stale\n\
             a second    1200.0 requests for tokens (99.5 % fresh from memory), 1.5 misses, 0.0 denied; 2.0 refreshes, 0.5 failed; 2.5 calls to authorities\n\
             now         3 callers wait, 7 connections\n\
             authority   authorities/a: at most 200 requests/s, 1 under way, Retry-After for 30 s more (2 identities), 1 refreshes fail, the first ends in 2 min\n\
             certificate that ends first: identities/x, 2027-01-01T00:00:00Z, another one is on its way\n\n\
             ! [2 min left] identities/x: it fails\n  jeton authority test authorities/a\n",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(screen(&value), expected);
    }
}
