//! EventService.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use http::Extensions;
use jeton_access::AdminCall;
use jeton_core::{CredentialState, Identity, Object, Uid, Wall};
use jeton_lifecycle::page_of;
use jeton_proto::v1::{self, event_service_server::EventService, watch_events_response::Told};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    convert::{self, page_size, timestamp},
    error::{Failure, Reason},
    permit::object,
    routes::Broker,
};
use crate::{Event, Severity};

/// How often watchers look for what is new.
const LOOK: Duration = Duration::from_millis(250);
/// Events waiting for a slow reader; what it does not read in time is in the ring for a while.
const BUFFER: usize = 64;

type Answer<T> = Result<Response<T>, Status>;
/// What goes out on a stream.
type Message = Result<v1::WatchEventsResponse, Status>;

#[tonic::async_trait]
impl EventService for Broker {
    type WatchEventsStream = Pin<Box<dyn Stream<Item = Message> + Send>>;

    async fn list_events(&self, request: Request<v1::ListEventsRequest>) -> Answer<v1::ListEventsResponse> {
        let call = self.admin_call(&request)?;
        let r = request.into_inner();
        let identity = self.one_identity(&call, &r.identity)?;
        let before = match r.page_token.as_str() {
            "" => u64::MAX,
            token => token.parse().map_err(|_| Failure::field("page_token", "not one that a list gave"))?,
        };
        let most = page_of(page_size(r.page_size)?);
        let of = identity.as_ref().map(|identity| identity.uid);
        let found = self.events.before(before, most + 1, |event| self.hears(&call, of, event));
        let more = found.len() > most;
        let next_page_token =
            found.get(most - 1).filter(|_| more).map_or_else(String::new, |e| e.id.to_string());
        let mut events: Vec<_> = found.iter().take(most).map(|event| shown(event)).collect();
        if let Some(identity) = identity.filter(|_| r.page_token.is_empty()) {
            let known = self.known_of(&identity, &found);
            events.extend(known);
            events.sort_by_key(|event| {
                std::cmp::Reverse(event.time.map(|at| (at.seconds, at.nanos, event.id)))
            });
        }
        Ok(Response::new(v1::ListEventsResponse { events, next_page_token }))
    }

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let call = self.admin_call(&request)?;
        let extensions = request.extensions().clone();
        let r = request.into_inner();
        let of = self.one_identity(&call, &r.identity)?.map(|identity| identity.uid);
        let place = Arc::clone(&self.watchers).try_acquire_owned().map_err(|_| {
            let text = "as many watch events as may at once: end another watch, or list them";
            Failure::new(Reason::Overloaded, text)
        })?;
        let (answers, receiver) = mpsc::channel(BUFFER);
        let after = r.after.unwrap_or_else(|| self.events.last());
        tokio::spawn(watch(self.clone(), extensions, of, after, answers, place));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn watch(
    broker: Broker,
    asked: Extensions,
    of: Option<Uid>,
    mut after: u64,
    answers: mpsc::Sender<Message>,
    _place: OwnedSemaphorePermit,
) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = broker.drain.begun() => {
                let text = "the broker is about to stop: watch again, from the last event on";
                let _ = answers.try_send(Err(Failure::new(Reason::ShuttingDown, text).into()));
                return;
            }
            () = answers.closed() => return,
        }
        // Roles are taken back while somebody watches.
        let permitted = broker.admin_call_of(&asked).and_then(|call| {
            call.must(Object::Something, "anything")?;
            Ok(call)
        });
        let call = match permitted {
            Ok(call) => call,
            Err(failure) => return drop(answers.try_send(Err(failure.into()))),
        };
        let (events, missed) = broker.events.after(after);
        after = events.last().map_or(after, |event| event.id);
        let missed = (missed > 0).then_some(Told::Missed(missed));
        let heard = events.iter().filter(|event| broker.hears(&call, of, event));
        for told in missed.into_iter().chain(heard.map(|event| Told::Event(shown(event)))) {
            if answers.send(Ok(v1::WatchEventsResponse { told: Some(told) })).await.is_err() {
                return;
            }
        }
    }
}

impl Broker {
    /// The identity that a request names, if it names one.
    fn one_identity(&self, call: &AdminCall, name: &str) -> Result<Option<Arc<Identity>>, Failure> {
        if name.is_empty() {
            return Ok(None);
        }
        let name = name.parse().map_err(Failure::from)?;
        self.must_on_identity(call, &name)?;
        let found = self.lifecycle.directory().identity_named(&name).cloned();
        found.map(Some).ok_or_else(|| Failure::not_found(&name))
    }

    /// Whether a caller that asks for those of one identity, or of all, hears of an event. What is of nobody any more belongs to nobody's
    /// part.
    fn hears(&self, call: &AdminCall, of: Option<Uid>, event: &Event) -> bool {
        let about = event.identity.as_ref().map(|(uid, _)| *uid);
        if of.is_some() && about != of {
            return false;
        }
        let directory = self.lifecycle.directory();
        let on = about.and_then(|uid| directory.identity(uid)).map_or(Object::All, |found| object(found));
        call.may(on) && call.has(event.needs, on)
    }

    /// What the registry knows of an identity's life, where no event tells it better.
    fn known_of(&self, identity: &Identity, heard: &[Arc<Event>]) -> Vec<v1::Event> {
        let directory = self.lifecycle.directory();
        let authority =
            directory.authority(identity.authority).map_or_else(String::new, |a| a.name.to_string());
        let fact = |at: Wall, kind: &str, message: String| v1::Event {
            id: 0,
            time: Some(timestamp(at)),
            kind: kind.into(),
            severity: v1::EventSeverity::Info.into(),
            identity: identity.name.to_string(),
            authority: authority.clone(),
            message,
            correlation_id: String::new(),
        };
        let mut facts = vec![fact(identity.created_at, "created", "it was created".into())];
        for credential in &identity.credentials {
            let state = match credential.state {
                CredentialState::Pending => "is being introduced",
                CredentialState::Current => "is in use",
                CredentialState::Overlap => "was replaced, and is still registered",
            };
            let until =
                credential.expires_at().map_or_else(String::new, |at| format!(", until {}", at.rfc3339()));
            let text = format!("a credential was made or brought along, which {state}{until}");
            facts.push(fact(credential.created_at, "key_made", text));
        }
        if let Some(operation) = &identity.operation {
            let kind = convert::operation_kind(operation.kind);
            facts.push(fact(
                operation.started_at,
                "changed",
                format!("the operation {kind} began; it is under way"),
            ));
        }
        // What happened while events are remembered is among them already.
        let told = |fact: &v1::Event| {
            let at = fact.time.as_ref().map(convert::wall).unwrap_or_default();
            heard.iter().any(|event| event.kind.as_str() == fact.kind && near(event.at, at))
        };
        facts.retain(|fact| !told(fact));
        facts
    }
}

fn near(a: Wall, b: Wall) -> bool {
    a.saturating_since(b).max(b.saturating_since(a)) < Duration::from_secs(5)
}

fn shown(event: &Event) -> v1::Event {
    v1::Event {
        id: event.id,
        time: Some(timestamp(event.at)),
        kind: event.kind.as_str().into(),
        severity: match event.severity {
            Severity::Info => v1::EventSeverity::Info,
            Severity::Warning => v1::EventSeverity::Warning,
            Severity::Error => v1::EventSeverity::Error,
        }
        .into(),
        identity: event.identity.as_ref().map_or_else(String::new, |(_, name)| name.to_string()),
        authority: event.authority.as_deref().unwrap_or_default().to_owned(),
        message: event.message.to_string(),
        correlation_id: event.correlation_id.as_deref().unwrap_or_default().to_owned(),
    }
}
