//! WatchTokens: one stream, many tokens, the latest of each.
//!
//! What a watcher was allowed when it asked is asked again when the role assignments change, when one of them expires, and before
//! every new token. When the last watched token is denied, the stream ends with the denial.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt};
use jeton_access::Authorized;
use jeton_core::{TokenKey, Wall};
use jeton_engine::{TokenError, WatchEvent};
use jeton_proto::v1::{self, watch_tokens_request::Action, watch_tokens_response::Event};
use tokio::sync::mpsc;
use tokio_stream::{StreamMap, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use super::{
    convert::wire_duration,
    error::{Failure, Reason},
    routes::Broker,
    token::response,
};
use crate::door::Caller;

/// Tokens watched on one stream.
const MAX_WATCHES: usize = 1_000;
/// Answers waiting for a slow reader.
const BUFFER: usize = 16;
/// How often the expiry of assignments is looked at.
const EXPIRY_CHECK: Duration = Duration::from_secs(1);

pub(super) type Responses = Pin<Box<dyn Stream<Item = Result<v1::WatchTokensResponse, Status>> + Send>>;
type Events = Pin<Box<dyn Stream<Item = Option<WatchEvent>> + Send>>;

/// One watched token: what was asked, under which key it was allowed, and until when.
struct Watched {
    request: v1::GetTokenRequest,
    key: TokenKey,
    expires_at: Option<Wall>,
}

struct Watcher {
    broker: Broker,
    caller: Arc<Caller>,
    answers: mpsc::Sender<Result<v1::WatchTokensResponse, Status>>,
    watched: HashMap<String, Watched>,
    events: StreamMap<String, Events>,
}

/// The stream has no reader any more.
struct Gone;

/// Starts a stream. Its task is the stream's: when the caller goes away, it ends.
pub(super) fn start(
    broker: Broker,
    caller: Arc<Caller>,
    requests: Streaming<v1::WatchTokensRequest>,
) -> Responses {
    let (answers, receiver) = mpsc::channel(BUFFER);
    let watcher = Watcher { broker, caller, answers, watched: HashMap::new(), events: StreamMap::new() };
    tokio::spawn(watcher.run(requests));
    Box::pin(ReceiverStream::new(receiver))
}

impl Watcher {
    async fn run(mut self, mut requests: Streaming<v1::WatchTokensRequest>) {
        let (drain, mut changes) = (self.broker.drain.clone(), self.broker.access.changes());
        let mut expiry = tokio::time::interval(EXPIRY_CHECK);
        expiry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reading = true;
        loop {
            let outcome = tokio::select! {
                next = requests.next(), if reading => match next {
                    Some(Ok(request)) => self.change(request).await,
                    Some(Err(_)) => return,
                    // The caller will add nothing more and goes on reading.
                    None => {
                        reading = false;
                        Ok(())
                    }
                },
                Some((id, event)) = self.events.next(), if !self.events.is_empty() => self.event(id, event).await,
                Ok(()) = changes.changed() => self.check(|_| true).await,
                _ = expiry.tick() => {
                    let now = self.broker.clock.now().wall;
                    self.check(|w| w.expires_at.is_some_and(|at| at <= now)).await
                }
                () = drain.begun() => {
                    // A watch has no end of its own; with this word it ends, so that the drain need not wait for it.
                    let moving = v1::WatchTokensMoving { grace: Some(wire_duration(self.broker.drain_grace)) };
                    let _ = self.send(String::new(), Event::Moving(moving)).await;
                    return;
                }
                () = self.answers.closed() => return,
            };
            if outcome.is_err() {
                return;
            }
        }
    }

    async fn change(&mut self, request: v1::WatchTokensRequest) -> Result<(), Gone> {
        match request.action {
            Some(Action::Remove(id)) => {
                self.forget(&id);
                Ok(())
            }
            Some(Action::Add(add)) => {
                let id = add.id.clone();
                match self.add(add) {
                    Ok(()) => Ok(()),
                    Err(failure) => self.send(id, Event::Failure(failure.into())).await,
                }
            }
            None => {
                let failure = Failure::field("action", "say what to do: add or remove");
                self.send(String::new(), Event::Failure(failure.into())).await
            }
        }
    }

    fn add(&mut self, add: v1::WatchTokensAdd) -> Result<(), Failure> {
        if !(1..=64).contains(&add.id.len()) {
            return Err(Failure::field("id", "1 to 64 characters"));
        }
        if self.watched.len() >= MAX_WATCHES {
            return Err(Failure::new(
                Reason::Overloaded,
                "at most 1000 tokens are watched on one stream; open another",
            ));
        }
        let request = add.request.unwrap_or_default();
        let authorized = self.broker.authorize(&self.caller, &request)?;
        self.follow(add.id, request, authorized)
    }

    fn follow(
        &mut self,
        id: String,
        request: v1::GetTokenRequest,
        authorized: Authorized,
    ) -> Result<(), Failure> {
        let watch = self.broker.engine.watch(&authorized.key, &self.caller.principal)?;
        let events = futures_util::stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            let event = watch.next().await;
            let rest = event.is_some().then_some(watch);
            Some((event, rest))
        });
        let expires_at = authorized.assignment.expires_at;
        self.watched.insert(id.clone(), Watched { request, key: authorized.key, expires_at });
        self.events.insert(id, Box::pin(events));
        Ok(())
    }

    fn forget(&mut self, id: &str) {
        self.watched.remove(id);
        self.events.remove(id);
    }

    async fn event(&mut self, id: String, event: Option<WatchEvent>) -> Result<(), Gone> {
        let event = match event {
            Some(WatchEvent::Token(hit)) => {
                if let Err(failure) = self.still_allowed(&id) {
                    return self.deny(id, failure).await;
                }
                response(&hit).map_or_else(|f| Event::Failure(f.into()), Event::Token)
            }
            Some(WatchEvent::Failed(error)) => {
                Event::Failure(Failure::from(TokenError::Authority(error)).into())
            }
            None => {
                // The slot is gone: disabled, deleted, or the authority's profile changed. Asking again tells which.
                let before = self.watched.get(&id).map(|w| w.key.clone());
                let failure = match self.still_allowed(&id) {
                    Ok(()) if self.watched.get(&id).map(|w| &w.key) != before.as_ref() => return Ok(()),
                    Ok(()) => {
                        Failure::new(Reason::Conflict, "the identity changed meanwhile; watch it again")
                    }
                    Err(failure) => failure,
                };
                return self.deny(id, failure).await;
            }
        };
        self.send(id, event).await
    }

    /// Asks again for those that something may have changed for.
    async fn check(&mut self, concerned: impl Fn(&Watched) -> bool) -> Result<(), Gone> {
        let ids: Vec<_> =
            self.watched.iter().filter(|(_, w)| concerned(w)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            if let Err(failure) = self.still_allowed(&id) {
                self.deny(id, failure).await?;
            }
        }
        Ok(())
    }

    /// Asks again, and goes on under another key if that is what the request means now.
    fn still_allowed(&mut self, id: &str) -> Result<(), Failure> {
        let Some(watched) = self.watched.get_mut(id) else { return Ok(()) };
        let authorized = self.broker.authorize(&self.caller, &watched.request)?;
        watched.expires_at = authorized.assignment.expires_at;
        if authorized.key == watched.key {
            return Ok(());
        }
        let request = watched.request.clone();
        self.follow(id.to_owned(), request, authorized)
    }

    /// Ends the watch of one token, and with the last one the stream.
    async fn deny(&mut self, id: String, failure: Failure) -> Result<(), Gone> {
        self.forget(&id);
        self.send(id, Event::Failure(failure.clone().into())).await?;
        if self.watched.is_empty() {
            // A reader that is gone needs no end.
            let _ = self.answers.send(Err(failure.into())).await;
            return Err(Gone);
        }
        Ok(())
    }

    async fn send(&mut self, id: String, event: Event) -> Result<(), Gone> {
        let answer = v1::WatchTokensResponse { id, event: Some(event) };
        self.answers.send(Ok(answer)).await.map_err(|_| Gone)
    }
}
