//! WatchTokens: one stream, many tokens, the latest of each.
//!
//! An event is taken from its slot when the reader has room for it, and not before: a slow reader finds the latest token, and none that
//! has expired in a queue. (What fits into the receive window of the reader's own HTTP/2 connection is out of our hands.)
//!
//! What a watcher was allowed when it asked is asked again when the role assignments change, when one of them expires, and before
//! every new token. When the last watched token is denied, the stream ends with the denial.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use jeton_access::{Authorized, Usage};
use jeton_core::{TokenKey, Wall};
use jeton_engine::{TokenError, WatchEvent};
use jeton_proto::v1::{self, watch_tokens_request::Action, watch_tokens_response::Event};
use tokio::sync::mpsc;
use tokio_stream::{StreamMap, wrappers::ReceiverStream};
use tonic::{Status, Streaming};
use tracing::Instrument;

use super::{
    convert::wire_duration,
    error::{Failure, Reason},
    routes::Broker,
    token::{account, no_room, response, short_enough},
};
use crate::door::Caller;

/// Tokens watched on one stream.
const MAX_WATCHES: usize = 1_000;
/// Answers waiting for a slow reader: the one that is being sent.
const BUFFER: usize = 1;
/// Failures and last words waiting for a slow reader. A reader that lets more come together has its stream ended.
const MAX_WORDS: usize = 2_000;
/// How often the expiry of assignments is looked at.
const EXPIRY_CHECK: Duration = Duration::from_secs(1);

pub(super) type Responses = Pin<Box<dyn Stream<Item = Result<v1::WatchTokensResponse, Status>> + Send>>;
type Events = Pin<Box<dyn Stream<Item = Option<WatchEvent>> + Send>>;

/// One watched token: what was asked, under which key it was allowed and until when, and how long the last one sent lives.
struct Watched {
    request: v1::GetTokenRequest,
    key: TokenKey,
    usage: Arc<Usage>,
    expires_at: Option<Wall>,
    lifetime: Duration,
}

struct Watcher {
    broker: Broker,
    caller: Arc<Caller>,
    answers: Answers,
    watched: HashMap<String, Watched>,
    events: StreamMap<String, Events>,
    /// What is to be said beside tokens, in order; it goes first.
    words: VecDeque<Result<v1::WatchTokensResponse, Status>>,
    /// Whether the stream ends behind them.
    last: bool,
}

/// Starts a stream. Its task is the stream's: when the caller goes away, it ends.
pub(super) fn start(
    broker: Broker,
    caller: Arc<Caller>,
    requests: Streaming<v1::WatchTokensRequest>,
) -> Responses {
    let (answers, receiver) = mpsc::channel(BUFFER);
    let (watched, events, words) = (HashMap::new(), StreamMap::new(), VecDeque::new());
    let watcher = Watcher { broker, caller, answers, watched, events, words, last: false };
    // What a watch is refused later on has an id of its own.
    tokio::spawn(jeton_trace::current().within(watcher.run(requests).in_current_span()));
    Box::pin(ReceiverStream::new(receiver))
}

impl Watcher {
    async fn run(mut self, mut requests: Streaming<v1::WatchTokensRequest>) {
        let (drain, mut changes) = (self.broker.drain.clone(), self.broker.access.changes());
        let mut expiry = tokio::time::interval(EXPIRY_CHECK);
        expiry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (answers, mut reading, mut draining) = (self.answers.clone(), true, false);
        while !(self.last && self.words.is_empty()) && self.words.len() <= MAX_WORDS {
            let (words, watching) = (!self.words.is_empty(), !self.events.is_empty());
            tokio::select! {
                place = answers.reserve(), if words => match (place, self.words.pop_front()) {
                    (Ok(place), Some(word)) => place.send(word),
                    _ => return,
                },
                Some((place, id, event)) = next(&answers, &mut self.events), if watching && !words && !self.last => {
                    if let Some(answer) = self.event(id, event) {
                        place.send(Ok(answer));
                    }
                }
                request = requests.next(), if reading && !self.last => match request {
                    Some(Ok(request)) => self.change(request),
                    Some(Err(status)) => match Failure::of_message(&status) {
                        Some(failure) => self.end(failure),
                        // The caller is gone.
                        None => return,
                    },
                    // The caller will add nothing more and goes on reading.
                    None => reading = false,
                },
                Ok(()) = changes.changed() => self.check(|_| true),
                _ = expiry.tick() => {
                    let now = self.broker.clock.now().wall;
                    self.check(|w| w.expires_at.is_some_and(|at| at <= now));
                }
                () = drain.begun(), if !draining => {
                    // A watch has no end of its own; with this word it ends, so that the drain need not wait for it.
                    draining = true;
                    let moving = v1::WatchTokensMoving { grace: Some(wire_duration(self.broker.drain_grace)) };
                    self.say(String::new(), Event::Moving(moving));
                    self.last = true;
                }
                () = answers.closed() => return,
            }
        }
    }

    fn change(&mut self, request: v1::WatchTokensRequest) {
        match request.action {
            Some(Action::Remove(id)) => self.forget(&id),
            Some(Action::Add(add)) => {
                let id = add.id.clone();
                if let Err(failure) = self.add(add) {
                    self.say(id, Event::Failure(failure.into()));
                }
            }
            None => {
                let failure = Failure::field("action", "say what to do: add or remove");
                self.say(String::new(), Event::Failure(failure.into()));
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
        let watch = self.broker.engine.watch(&authorized.key, account(&self.caller, &authorized))?;
        let events = futures_util::stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            let event = watch.next().await;
            let rest = event.is_some().then_some(watch);
            Some((event, rest))
        });
        let expires_at = authorized.assignment.expires_at;
        let usage = self.broker.tally.usage(&self.caller.principal, &authorized.key);
        let watched = Watched { request, key: authorized.key, usage, expires_at, lifetime: Duration::ZERO };
        self.watched.insert(id.clone(), watched);
        self.events.insert(id, Box::pin(events));
        Ok(())
    }

    fn forget(&mut self, id: &str) {
        self.watched.remove(id);
        self.events.remove(id);
    }

    /// What is to be sent for an event, if it is more than a word.
    fn event(&mut self, id: String, event: Option<WatchEvent>) -> Option<v1::WatchTokensResponse> {
        let event = match event {
            Some(WatchEvent::Token(hit)) => {
                if let Some(watched) = self.watched.get_mut(&id) {
                    watched.lifetime = hit.token.lifetime();
                }
                let room = || if self.broker.tally.has_room() { Ok(()) } else { Err(no_room()) };
                if let Err(failure) = room().and_then(|()| self.still_allowed(&id)) {
                    self.deny(id, failure);
                    return None;
                }
                if let Some(usage) = self.watched.get(&id).map(|watched| &watched.usage) {
                    usage.served(hit.encoded.hash, self.broker.clock.now().wall);
                }
                response(&hit).map_or_else(|f| Event::Failure(f.into()), Event::Token)
            }
            Some(WatchEvent::Failed(error)) => {
                Event::Failure(Failure::from(TokenError::Authority(error)).into())
            }
            Some(WatchEvent::Revoked) => {
                let text = "the token was taken back by an administrator; watch it again to get a new one";
                self.deny(id, Failure::new(Reason::TokensRevoked, text));
                return None;
            }
            None => {
                // The slot is gone: disabled, deleted, or the authority's profile changed. Asking again tells which.
                let before = self.watched.get(&id).map(|w| w.key.clone());
                let failure = match self.still_allowed(&id) {
                    Ok(()) if self.watched.get(&id).map(|w| &w.key) != before.as_ref() => return None,
                    Ok(()) => {
                        Failure::new(Reason::Conflict, "the identity changed meanwhile; watch it again")
                    }
                    Err(failure) => failure,
                };
                self.deny(id, failure);
                return None;
            }
        };
        Some(v1::WatchTokensResponse { id, event: Some(event) })
    }

    /// Asks again for those that something may have changed for.
    fn check(&mut self, concerned: impl Fn(&Watched) -> bool) {
        let ids: Vec<_> =
            self.watched.iter().filter(|(_, w)| concerned(w)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            if let Err(failure) = self.still_allowed(&id) {
                self.deny(id, failure);
            }
        }
    }

    /// Asks again, and goes on under another key if that is what the request means now.
    fn still_allowed(&mut self, id: &str) -> Result<(), Failure> {
        let Some(watched) = self.watched.get_mut(id) else { return Ok(()) };
        let authorized = self.broker.authorize(&self.caller, &watched.request)?;
        watched.expires_at = authorized.assignment.expires_at;
        short_enough(authorized.max_lifetime(), watched.lifetime)?;
        if authorized.key == watched.key {
            return Ok(());
        }
        let request = watched.request.clone();
        self.follow(id.to_owned(), request, authorized)
    }

    /// Ends the watch of one token, and with the last one the stream.
    fn deny(&mut self, id: String, failure: Failure) {
        self.forget(&id);
        self.say(id, Event::Failure(failure.clone().into()));
        if self.watched.is_empty() {
            self.end(failure);
        }
    }

    fn end(&mut self, failure: Failure) {
        self.words.push_back(Err(failure.into()));
        self.last = true;
    }

    fn say(&mut self, id: String, event: Event) {
        self.words.push_back(Ok(v1::WatchTokensResponse { id, event: Some(event) }));
    }
}

type Answers = mpsc::Sender<Result<v1::WatchTokensResponse, Status>>;
type Place<'a> = mpsc::Permit<'a, Result<v1::WatchTokensResponse, Status>>;

/// The next event, when there is room for it. The event is taken last, so that none is lost when something else comes first.
async fn next<'a>(
    answers: &'a Answers,
    events: &mut StreamMap<String, Events>,
) -> Option<(Place<'a>, String, Option<WatchEvent>)> {
    let place = answers.reserve().await.ok()?;
    let (id, event) = events.next().await?;
    Some((place, id, event))
}
