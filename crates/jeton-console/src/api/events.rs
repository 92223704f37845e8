//! Events as they happen (Server-Sent Events): the latest of those before, and then each one. A browser that lost the stream comes back
//! with the id of the last one that it has.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use jeton_proto::v1::{self, watch_events_response::Told};
use serde_json::json;

use super::{Broker, asked};
use crate::{failure::Failure, shown};

/// Events before the first one that is new.
const BEFORE: i32 = 100;
/// So that whoever is between knows that the stream is alive.
const ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn events(State(broker): State<Broker>, headers: HeaderMap) -> Result<Response, Failure> {
    let place = broker.streams.clone().try_acquire_owned().map_err(|_| Failure::too_many())?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    let before = match last {
        Some(_) => vec![],
        None => {
            let request = v1::ListEventsRequest { page_size: BEFORE, ..Default::default() };
            asked(broker.events().list_events(request)).await?.events
        }
    };
    // With none before, there is none to miss either.
    let after = last.or_else(|| before.first().map(|event| event.id)).unwrap_or(0);
    let request = v1::WatchEventsRequest { after: Some(after), ..Default::default() };
    let live = asked(broker.events().watch_events(request)).await?;
    let live = live.take_while(|told| std::future::ready(told.is_ok())).filter_map(|told| {
        let told = told.ok().and_then(|told| told.told);
        std::future::ready(match told {
            Some(Told::Event(event)) => Some(sent(&event)),
            Some(Told::Missed(missed)) => {
                Some(Event::default().event("lagged").data(json!({"missed": missed}).to_string()))
            }
            None => None,
        })
    });
    let before: Vec<_> = before.iter().rev().map(sent).collect();
    let all = stream::iter(before).chain(live).map(move |event| {
        let _held = &place;
        Ok::<_, Infallible>(event)
    });
    Ok(Sse::new(all).keep_alive(KeepAlive::new().interval(ALIVE)).into_response())
}

fn sent(event: &v1::Event) -> Event {
    Event::default().event("event").id(event.id.to_string()).data(shown::event(event).to_string())
}
