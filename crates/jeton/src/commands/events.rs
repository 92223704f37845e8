//! `jeton events`: what happened since the broker started, and what happens.

use std::time::Duration;

use jeton_proto::v1::{self, event_service_client::EventServiceClient, watch_events_response::Told};
use serde_json::Value;
use tonic::transport::Channel;

use super::{Common, full, shown};
use crate::output::{self, Format};

/// `jeton events`
#[derive(Debug, clap::Args)]
pub(crate) struct EventsArguments {
    #[command(flatten)]
    common: Common,
    /// Only those of this identity
    #[arg(long, value_name = "NAME", default_value = "")]
    identity: String,
    /// So many of the past
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i32).range(1..=1000))]
    lines: i32,
    /// Show those that happen from now on, too, until it is interrupted
    #[arg(long)]
    watch: bool,
}

/// Before a stream that ended is asked for again.
const AGAIN: Duration = Duration::from_millis(500);

type Client = EventServiceClient<Channel>;

/// Shows events, the oldest first. With `--watch` the JSON is a line for each.
pub(crate) async fn run(arguments: EventsArguments) -> anyhow::Result<()> {
    let identity = full(&arguments.identity, "identities/");
    let mut client = Client::new(arguments.common.broker.admin_plane().await?);
    let request = v1::ListEventsRequest {
        page_size: arguments.lines,
        identity: identity.clone(),
        ..Default::default()
    };
    let past = client.list_events(request).await?.into_inner().events;
    let last = past.iter().map(|event| event.id).max().unwrap_or_default();
    let past: Vec<_> = newest(&past, arguments.lines).map(shown::event).collect();
    if !arguments.watch {
        let heads = ["time", "kind", "identity", "authority", "message"];
        return arguments.common.output.many(&past, &heads, row);
    }
    past.iter().try_for_each(|event| show(arguments.common.output, event))?;
    tokio::select! {
        ended = watch(&mut client, v1::WatchEventsRequest { after: Some(last), identity }, arguments.common.output) => ended,
        () = output::reader_gone() => Ok(()),
    }
}

/// So many of a list that begins with the latest, the oldest first: what the registry knows of an identity comes on top of a page.
fn newest(listed: &[v1::Event], most: i32) -> impl Iterator<Item = &v1::Event> {
    listed.iter().take(usize::try_from(most).unwrap_or_default()).rev()
}

async fn watch(client: &mut Client, mut from: v1::WatchEventsRequest, format: Format) -> anyhow::Result<()> {
    loop {
        let mut stream = client.watch_events(from.clone()).await?.into_inner();
        while let Ok(Some(response)) = stream.message().await {
            match response.told {
                Some(Told::Event(event)) => {
                    show(format, &shown::event(&event))?;
                    from.after = Some(event.id);
                }
                Some(Told::Missed(missed)) if format == Format::Table => {
                    output::text(&format!("up to {missed} events were missed\n"))?;
                }
                Some(Told::Missed(missed)) => output::text(&format!("{{\"missed\":{missed}}}\n"))?,
                None => {}
            }
        }
        // Connections are ended for their age. Why it ended otherwise, the next call says.
        tokio::time::sleep(AGAIN).await;
    }
}

fn show(format: Format, event: &Value) -> anyhow::Result<()> {
    match format {
        Format::Json => output::text(&format!("{event}\n")),
        Format::Table => output::text(&format!("{}\n", row(event).join("  "))),
    }
}

fn row(event: &Value) -> Vec<String> {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    vec![text("time"), text("kind"), text("identity"), text("authority"), text("message")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_shown_than_were_asked_for_and_those_are_the_newest() {
        let listed = [9, 0, 8].map(|id| v1::Event { id, ..Default::default() });
        let shown = |most| newest(&listed, most).map(|event| event.id).collect::<Vec<_>>();
        assert_eq!((shown(2), shown(5)), (vec![0, 9], vec![8, 0, 9]));
    }
}
