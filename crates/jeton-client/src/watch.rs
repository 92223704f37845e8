//! One WatchTokens stream for all keys of the near cache.
//!
//! The stream is made to say what the cache says: whenever something changed, and once a second, both are compared. So a stream that
//! broke, a broker that is about to stop and a key that was refused all come back in the same way. Meanwhile, and for good where the
//! broker refuses, the polls (`poll.rs`) take over.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use jeton_proto::v1::{self, watch_tokens_request::Action, watch_tokens_response::Event};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::{
    backoff::{Backoff, spread},
    error::Error,
    flight::Core,
    near::Entry,
};

/// How long a stream may take to open.
const OPENING: Duration = Duration::from_secs(10);
/// How often the stream is compared with the cache beside changes.
const COMPARE: Duration = Duration::from_secs(1);
/// When a broker that has no watches, or no room for one more, is asked again.
const NO_WATCHES: Duration = Duration::from_secs(300);
const NO_ROOM: Duration = Duration::from_secs(30);
/// Requests on their way to the broker; the others wait here.
const UNDER_WAY: usize = 64;
/// And so many: a broker that reads nothing gets another stream.
const MOST_WAITING: usize = 100_000;

/// Keeps a stream open as long as there is something to watch. Does not end by itself.
pub(crate) async fn watch(core: &Core) {
    let mut backoff = Backoff::default();
    loop {
        if core.near.is_empty() {
            core.near.changed.notified().await;
            continue;
        }
        let mut pause = Duration::ZERO;
        if let Err(error) = Watch::session(core, &mut backoff).await {
            tracing::debug!(%error, "no watch; tokens are asked for one by one");
            pause = pause_after(&error);
        }
        sleep(pause.max(backoff.next())).await;
    }
}

fn pause_after(error: &Error) -> Duration {
    match error.code() {
        Some(Code::Unimplemented) => spread(NO_WATCHES),
        Some(Code::ResourceExhausted) => spread(error.retry_after().unwrap_or_default().max(NO_ROOM)),
        _ => error.retry_after().unwrap_or_default(),
    }
}

/// One stream and what it was asked to send.
struct Watch<'a> {
    core: &'a Core,
    followed: HashMap<u64, Followed>,
    say: VecDeque<Action>,
}

struct Followed {
    entry: Arc<Entry>,
    /// The broker does not send it; asked for again then.
    refused_until: Option<Instant>,
}

impl<'a> Watch<'a> {
    /// Ends when the broker moves, when the connection breaks, and when there is no watch to be had.
    async fn session(core: &'a Core, backoff: &mut Backoff) -> Result<(), Error> {
        let (requests, receiver) = mpsc::channel(UNDER_WAY);
        let opening = timeout(OPENING, core.broker.watch(ReceiverStream::new(receiver))).await;
        let mut answers = opening.unwrap_or_else(|_| Err(core.broker.timed_out(OPENING)))?;
        let mut watch = Self { core, followed: HashMap::new(), say: VecDeque::new() };
        let mut compare = interval(COMPARE);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while watch.say.len() <= MOST_WAITING {
            tokio::select! {
                _ = compare.tick() => watch.compare(),
                () = core.near.changed.notified() => watch.compare(),
                place = requests.reserve(), if !watch.say.is_empty() => match (place, watch.say.pop_front()) {
                    (Ok(place), Some(action)) => place.send(v1::WatchTokensRequest { action: Some(action) }),
                    _ => return Ok(()),
                },
                answer = answers.message() => match answer.map_err(|status| core.broker.failed(&status))? {
                    None | Some(v1::WatchTokensResponse { event: Some(Event::Moving(_)), .. }) => return Ok(()),
                    Some(answer) => {
                        backoff.reset();
                        watch.take(answer);
                    }
                },
            }
        }
        Ok(())
    }

    /// Makes the stream say what the cache says.
    fn compare(&mut self) {
        let now = Instant::now();
        for entry in self.core.near.entries() {
            let known = self.followed.get(&entry.id);
            if known.is_none_or(|followed| followed.refused_until.is_some_and(|until| until <= now)) {
                let (id, request) = (entry.id.to_string(), Some(entry.key.request()));
                self.say.push_back(Action::Add(v1::WatchTokensAdd { id, request }));
                self.followed.insert(entry.id, Followed { entry, refused_until: None });
            }
        }
        let Self { core, followed, say } = self;
        followed.retain(|id, followed| {
            let stays = core.near.has(&followed.entry);
            if !stays && followed.refused_until.is_none() {
                say.push_back(Action::Remove(id.to_string()));
            }
            stays
        });
    }

    fn take(&mut self, answer: v1::WatchTokensResponse) {
        let Ok(id) = answer.id.parse::<u64>() else { return };
        let Some(followed) = self.followed.get_mut(&id) else { return };
        match answer.event {
            Some(Event::Token(v1::GetTokenResponse { token: Some(token), .. })) => {
                followed.refused_until = None;
                match self.core.near.renew(&followed.entry, token) {
                    Ok(()) => followed.entry.watched.store(true, Relaxed),
                    Err(error) => tracing::warn!(%error, "a watched token is of no use"),
                }
            }
            Some(Event::Failure(failure)) => {
                let error = Error::of_watch(failure);
                tracing::debug!(%error, "a watched token");
                match Means::of(&error) {
                    Means::LaterPerhaps => {}
                    Means::NotWatched(pause) => {
                        followed.entry.watched.store(false, Relaxed);
                        followed.refused_until = Some(Instant::now() + pause);
                    }
                    Means::TakenBack => {
                        self.core.near.take_back(&followed.entry);
                        self.followed.remove(&id);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        for followed in self.followed.values() {
            followed.entry.watched.store(false, Relaxed);
        }
    }
}

/// What a failure on the stream means for its token.
#[derive(Debug, PartialEq)]
pub(crate) enum Means {
    /// A refresh failed. The watch goes on, and what is here stays valid.
    LaterPerhaps,
    /// The watch of it is over, and the token stays valid.
    NotWatched(Duration),
    /// The broker decided that this caller has it no longer.
    TakenBack,
}

impl Means {
    pub(crate) fn of(error: &Error) -> Self {
        match (error.code(), error.reason()) {
            (Some(Code::ResourceExhausted), _) => {
                Self::NotWatched(spread(error.retry_after().unwrap_or_default().max(NO_ROOM)))
            }
            // Not a broker's words: one always gives a reason.
            (_, "") => Self::LaterPerhaps,
            (_, reason) if reason.starts_with("AUTHORITY_") => Self::LaterPerhaps,
            (_, "TOKENS_REVOKED") => Self::TakenBack,
            (Some(Code::Aborted), _) => Self::NotWatched(COMPARE),
            (
                Some(
                    Code::PermissionDenied
                    | Code::FailedPrecondition
                    | Code::InvalidArgument
                    | Code::NotFound,
                ),
                _,
            ) => Self::TakenBack,
            _ => Self::LaterPerhaps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_brokers_own_decision_takes_a_token_back() {
        let means = |code: Code, reason: &str| {
            Means::of(&Error::of_watch(v1::Failure {
                code: code as i32,
                reason: reason.into(),
                ..Default::default()
            }))
        };
        for (code, reason) in [
            (Code::Aborted, "TOKENS_REVOKED"),
            (Code::PermissionDenied, "ACCESS_DENIED"),
            (Code::FailedPrecondition, "FAILED_PRECONDITION"),
            (Code::InvalidArgument, "INVALID_TARGET"),
        ] {
            assert_eq!(means(code, reason), Means::TakenBack, "{reason}");
        }
        for (code, reason) in [
            (Code::FailedPrecondition, "AUTHORITY_REFUSED"),
            (Code::Unavailable, "AUTHORITY_UNAVAILABLE"),
            (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            (Code::Internal, "INTERNAL"),
            (Code::PermissionDenied, ""),
            (Code::Unauthenticated, "UNAUTHENTICATED"),
        ] {
            assert_eq!(means(code, reason), Means::LaterPerhaps, "{reason}");
        }
        assert_eq!(means(Code::Aborted, "CONFLICT"), Means::NotWatched(COMPARE));
        assert!(
            matches!(means(Code::ResourceExhausted, "OVERLOADED"), Means::NotWatched(pause) if pause >= NO_ROOM)
        );
    }
}
