//! Questions under way: one for each key, however many callers wait for it.
//!
//! A flight is driven by those who wait for it, each of whom may leave; it ends when the last one does.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, Ready, Shared, WeakShared, ready},
};
use jeton_proto::v1;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};

use crate::{backoff::Backoff, broker::Broker, error::Error, near::Near, target::Key, token::Token};

/// What the callers and the client's task share.
pub(crate) struct Core {
    pub(crate) near: Near,
    pub(crate) broker: Broker,
    flights: Mutex<HashMap<Key, (u64, WeakShared<Flight>)>>,
    next_flight: AtomicU64,
    waiting: Semaphore,
    max_waiting: usize,
    timeout: Duration,
}

type Outcome = Result<Token, Error>;
type Flight = BoxFuture<'static, Outcome>;

impl Core {
    pub(crate) fn new(near: Near, broker: Broker, max_waiting: usize, timeout: Duration) -> Self {
        let (flights, next_flight) = (Mutex::default(), AtomicU64::default());
        Self {
            near,
            broker,
            flights,
            next_flight,
            waiting: Semaphore::new(max_waiting),
            max_waiting,
            timeout,
        }
    }

    /// Waits for a token that is not here, within the caller's deadline. `old`: not this one.
    pub(crate) async fn ask(self: &Arc<Self>, key: &Key, old: Option<&Token>) -> Outcome {
        let _place =
            self.waiting.try_acquire().map_err(|_| Error::TooManyWaiting { most: self.max_waiting })?;
        let (deadline, mut last) = (Instant::now() + self.timeout, None);
        loop {
            let error = match timeout_at(deadline, self.join(key, old)).await {
                Ok(Ok(token)) => return Ok(token),
                Ok(Err(error)) => error,
                Err(_) => return Err(last.unwrap_or_else(|| self.broker.timed_out(self.timeout))),
            };
            // The flight was somebody else's and its time is over; ours is not.
            match error.retry_after() {
                Some(delay) if Instant::now() + delay < deadline => sleep(delay).await,
                _ => return Err(error),
            }
            last = Some(error);
        }
    }

    /// Reports a refused token, within the time of a call.
    pub(crate) async fn report(
        &self,
        request: v1::ReportRejectedTokenRequest,
    ) -> Result<v1::ReportOutcome, Error> {
        let (deadline, mut backoff) = (Instant::now() + self.timeout, Backoff::default());
        loop {
            let error = match timeout_at(deadline, self.broker.report(request.clone())).await {
                Ok(Ok(outcome)) => return Ok(outcome),
                Ok(Err(error)) => error,
                Err(_) => return Err(self.broker.timed_out(self.timeout)),
            };
            pause(&error, &mut backoff, deadline).await.ok_or(error)?;
        }
    }

    /// The flight under way, or a new one; or the token, if one has landed meanwhile.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &Key,
        old: Option<&Token>,
    ) -> Either<Ready<Outcome>, Shared<Flight>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key).and_then(|(_, flight)| flight.upgrade()) {
            return Either::Right(flight);
        }
        if let Some(token) = self.near.token_of(key)
            && old.is_none_or(|old| !old.0.same(&token.0))
        {
            return Either::Left(ready(Ok(token)));
        }
        let number = self.next_flight.fetch_add(1, Relaxed);
        let landing = Landing { core: Arc::clone(self), key: key.clone(), number };
        let flight = landing.fly(old.cloned()).boxed().shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(key.clone(), (number, weak));
        }
        Either::Right(flight)
    }
}

/// Strikes the flight off the list, however it ends.
struct Landing {
    core: Arc<Core>,
    key: Key,
    number: u64,
}

impl Landing {
    async fn fly(self, old: Option<Token>) -> Outcome {
        let Core { near, broker, timeout, .. } = &*self.core;
        let (deadline, mut backoff, mut last) = (Instant::now() + *timeout, Backoff::default(), None);
        loop {
            let since = near.since();
            let error = match timeout_at(deadline, broker.token(&self.key)).await {
                Ok(Ok(token)) => match near.take_in(&self.key, token, since)? {
                    Some(token) => return Ok(token),
                    None => continue,
                },
                Ok(Err(error)) => error,
                Err(_) => return Err(last.unwrap_or_else(|| broker.timed_out(*timeout))),
            };
            tracing::debug!(%error, "no token yet");
            if pause(&error, &mut backoff, deadline).await.is_none() {
                return Err(error);
            }
            last = Some(error);
            // The watch may have been faster.
            if let Some(token) = near.token_of(&self.key)
                && old.as_ref().is_none_or(|old| !old.0.same(&token.0))
            {
                return Ok(token);
            }
        }
    }
}

/// Waits until another try may help; `None` if none does before the deadline.
async fn pause(error: &Error, backoff: &mut Backoff, deadline: Instant) -> Option<()> {
    let delay = error.retry_after()?.max(backoff.next());
    if Instant::now() + delay >= deadline {
        return None;
    }
    sleep(delay).await;
    Some(())
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.core.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            flights.remove(&self.key);
        }
    }
}
