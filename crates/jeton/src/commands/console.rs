//! `jeton console`: the operator's page, for a browser on this machine, until it is interrupted.

use std::{
    io::IsTerminal,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context;
use jeton_console::Console;
use jeton_proto::v1::{self, status_service_client::StatusServiceClient};
use serde_json::json;
use tempfile::TempDir;

use super::Common;
use crate::{
    output::{self, Format},
    stop,
};

/// What opens a link, on the desktops that have one.
const OPENERS: &[&str] = &["xdg-open", "open", "wslview"];

/// `jeton console`
#[derive(Debug, clap::Args)]
pub(crate) struct ConsoleArguments {
    #[command(flatten)]
    common: Common,
    /// Where to listen, on loopback; port 0: a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Only print the link
    #[arg(long)]
    no_open: bool,
}

/// Serves the page in the name of whoever runs this.
pub(crate) async fn run(arguments: ConsoleArguments) -> anyhow::Result<()> {
    let stop = stop::on_signal()?;
    let broker = arguments.common.broker.admin_plane().await?;
    // Whoever may see nothing is told here, and not by an empty page.
    let me = StatusServiceClient::new(broker.clone()).who_am_i(v1::WhoAmIRequest {}).await?.into_inner();
    let console = Console::bind(arguments.listen).await?;
    match arguments.common.output {
        Format::Json => arguments.common.output.one(&json!({"url": console.link()}), |_| vec![])?,
        Format::Table => output::text(&format!(
            "{}\n\nThe link lets one browser in, once, within five minutes, as {}. The page ends with this command (Ctrl-C).\n",
            console.link(),
            me.principal
        ))?,
    }
    let seen = arguments.common.output == Format::Table && std::io::stdout().is_terminal();
    let _folder = if seen && !arguments.no_open { opened(console.link()) } else { None };
    let end = async {
        tokio::select! {
            () = stop.cancelled() => {}
            // Of whoever runs it over SSH and goes away.
            () = output::reader_gone() => {}
        }
    };
    console.serve(broker, end).await;
    Ok(())
}

/// Opens the link in a browser, if there is one. It goes there by a file that is this user's alone: what stands on a command line, every
/// user of the machine can read. The file goes with the folder.
fn opened(link: &str) -> Option<TempDir> {
    let folder = tempfile::tempdir().ok()?;
    let file = folder.path().join("console.html");
    led_to(&file, link).inspect_err(|error| tracing::warn!("no browser is opened: {error:#}")).ok()?;
    let open = |opener: &&str| {
        let mut command = Command::new(opener);
        let quiet = command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        quiet.spawn().is_ok()
    };
    OPENERS.iter().any(open).then_some(folder)
}

fn led_to(file: &Path, link: &str) -> anyhow::Result<()> {
    let page = format!(
        "<!doctype html><meta http-equiv=refresh content=\"0;url={link}\"><a href=\"{link}\">Jeton</a>\n"
    );
    std::fs::write(file, page).context("a file for the browser")
}
