//! One issuance under way for one slot: a task of its own, so that no caller that goes away takes it along.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use futures_util::FutureExt;
use jeton_core::{
    IssuedToken, Now, Principal, Priority, RefreshOutcome, RefreshPlan, Token, refresh::refresh_after,
};
use jeton_trace::Span;
use tracing::Instrument;

use crate::{
    IssueError, IssueErrorClass, TokenError,
    counts::Ended,
    engine::Shared,
    gate::Permit,
    slot::{Cached, Flight, Landing, Slot},
    writer::Pending,
};

/// Longer than any source may take.
const FLIGHT_TIMEOUT: Duration = Duration::from_secs(35);
/// How often a flight without a permit asks again.
const PERMIT_POLL: Duration = Duration::from_millis(25);

/// When a flight without a permit is tried again, if somebody still wants the token.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// The error inside a Retry-After, of which this much is left.
pub(crate) fn held_back(left: Duration) -> IssueError {
    let error =
        own(IssueErrorClass::Throttled, "the authority asked for a pause (Retry-After), which is not over");
    IssueError { retry_after: Some(left), ..error }
}

fn used_up() -> IssueError {
    let error = own(IssueErrorClass::Transient, "the budget of requests to this authority is used up");
    IssueError { retry_after: Some(BUSY_PAUSE), ..error }
}

/// How much a token is wanted, and who is charged for the request where a caller is.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) priority: Priority,
    pub(crate) caller: Option<Principal>,
}

impl Wish {
    /// Of somebody who waits.
    pub(crate) fn of(caller: &Principal) -> Self {
        Self { priority: Priority::Waiting, caller: Some(caller.clone()) }
    }

    /// Of nobody in particular.
    pub(crate) fn ours(priority: Priority) -> Self {
        Self { priority, caller: None }
    }
}

/// When a request went out.
#[derive(Clone, Copy)]
struct Asked {
    /// The slot's count of revocations then.
    revocations: u64,
    started: Now,
}

/// What a flight's task holds. If it dies without a landing, its owner logs it: here the slot is freed, so that the next one may fly, and
/// whoever waits hears of it.
struct Flying {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    landing: Landing,
}

impl Drop for Flying {
    fn drop(&mut self) {
        if !self.landing.initialized() {
            self.slot.state().flight = None;
            self.shared.queue.push(&self.slot, self.shared.clock.now().boot + BUSY_PAUSE);
            let _ = self.landing.set(Err(TokenError::Authority(died())));
        }
    }
}

/// The error of a flight whose task died.
pub(crate) fn died() -> IssueError {
    own(
        IssueErrorClass::Transient,
        "the request to the authority failed inside the broker; its log says more",
    )
}

fn own(class: IssueErrorClass, message: &str) -> IssueError {
    IssueError { class, retry_after: None, code: None, message: message.into() }
}

impl Shared {
    /// Joins the slot's flight, or starts one. `permitted`: a permit was taken already. None: the slot has left the index meanwhile, and
    /// what its flight brought would be lost.
    pub(crate) fn fly(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        wish: Wish,
        permitted: bool,
        now: Now,
    ) -> Option<Landing> {
        let mut state = slot.state();
        let landing = state.flight.as_ref().map(Flight::join);
        if landing.is_some() || state.gone {
            drop(state);
            if permitted {
                self.gate.done(&slot.key, wish.caller.as_ref(), false, now);
            }
            return landing;
        }
        let span = self.span(slot, &wish);
        // From here on nothing panics under the lock, which its drop takes.
        let flying = Flying { shared: Arc::clone(self), slot: Arc::clone(slot), landing: Landing::default() };
        let flight = Flight::new(Arc::clone(&flying.landing), &span);
        let landing = flight.join();
        state.flight = Some(flight);
        // Whoever waits takes its permit in the flight.
        state.by_itself = permitted;
        drop(state);
        let work = span.within(async move {
            let Flying { shared, slot, landing } = &flying;
            let outcome = shared.flight(slot, &wish, permitted).await;
            // Nobody else lands it.
            let _ = landing.set(outcome);
            shared.take_turns(slot.key.authority, shared.clock.now());
        });
        // Lines about it have the id and the caller of the request that began it.
        self.flights.spawn(work.in_current_span());
        Some(landing)
    }

    /// A part of what the first one who waits does, if that is recorded.
    fn span(&self, slot: &Slot, wish: &Wish) -> Span {
        let caller = jeton_trace::current();
        let span = if caller.is_recording() { caller.child("flight") } else { self.tracer.root("flight") };
        span.text("jeton.identity.uid", slot.key.identity);
        span.text("jeton.authority.uid", slot.key.authority);
        span.text("jeton.target", &slot.key.target);
        span.text("jeton.refresh.cause", if wish.caller.is_some() { "caller" } else { "plan" });
        span
    }

    async fn flight(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        wish: &Wish,
        permitted: bool,
    ) -> Result<Arc<Cached>, TokenError> {
        let mut permitted = permitted;
        loop {
            self.permitted(slot, wish, permitted).await?;
            // A revocation meanwhile makes what comes back nobody's, so it is asked for anew.
            if let Some(outcome) = self.ask_once(slot, wish).await {
                return outcome;
            }
            permitted = false;
        }
    }

    async fn permitted(&self, slot: &Arc<Slot>, wish: &Wish, permitted: bool) -> Result<(), TokenError> {
        if !permitted {
            match jeton_trace::current().child("permit").within(self.await_permit(slot, wish)).await {
                Ok(Permit::Granted) => {}
                Ok(Permit::Held(left)) => {
                    self.count(slot, wish, Ended::Held);
                    return Err(self.put_off(slot, held_back(left)));
                }
                Ok(Permit::Busy) | Err(_) => {
                    self.count(slot, wish, Ended::OverBudget);
                    // Not the authority's failure and not the key's: nothing backs off.
                    let error = self.put_off(slot, used_up());
                    return Err(if let TokenError::Authority(error) = error {
                        TokenError::Overloaded {
                            what: "the budget of requests to this authority is used up",
                            retry_after: error.retry_after.unwrap_or(BUSY_PAUSE),
                        }
                    } else {
                        error
                    });
                }
            }
        }
        Ok(())
    }

    /// One request, under a permit. None: a revocation overtook it.
    async fn ask_once(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        wish: &Wish,
    ) -> Option<Result<Arc<Cached>, TokenError>> {
        let asked = Asked { revocations: slot.state().revocations, started: self.clock.now() };
        // A panic in a source must not leave callers waiting.
        let call = AssertUnwindSafe(async { self.source.issue(slot.key.clone()).await }).catch_unwind();
        let answer = match tokio::time::timeout(FLIGHT_TIMEOUT, call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                tracing::error!("a token request died: report it with this line");
                Err(died())
            }
            Err(_) => Err(own(IssueErrorClass::Transient, "the authority did not answer within 35 s")),
        };
        let now = self.clock.now();
        let throttled = answer.as_ref().err().is_some_and(|e| e.class == IssueErrorClass::Throttled);
        self.gate.done(&slot.key, wish.caller.as_ref(), throttled, now);
        self.count(slot, wish, answer.as_ref().map_or_else(|e| Ended::Failed(e.class), |_| Ended::Issued));
        self.settle(slot, answer, asked, now)
    }

    fn count(&self, slot: &Slot, wish: &Wish, how: Ended) {
        self.counts.ended(slot.key.authority, wish.caller.is_none(), how);
        let span = jeton_trace::current();
        span.text("jeton.refresh.outcome", how.name());
        if how != Ended::Issued {
            span.fail(how.name());
        }
    }

    /// Waits for a permit; a pause that the authority asks for meanwhile ends the wait.
    pub(crate) async fn await_permit(
        &self,
        slot: &Slot,
        wish: &Wish,
    ) -> Result<Permit, tokio::time::error::Elapsed> {
        let waiting = async {
            loop {
                match self.gate.permit(&slot.key, wish.priority, wish.caller.as_ref(), self.clock.now()) {
                    Permit::Busy => tokio::time::sleep(PERMIT_POLL).await,
                    decided => return decided,
                }
            }
        };
        tokio::time::timeout(self.settings.max_wait(), waiting).await
    }

    /// Ends a flight that asked nobody. Watchers hear why, and whoever still wants the token is looked at again.
    fn put_off(&self, slot: &Arc<Slot>, error: IssueError) -> TokenError {
        let again = self.clock.now().boot + error.retry_after.unwrap_or(BUSY_PAUSE);
        slot.state().flight = None;
        slot.tell_failure(&error);
        self.queue.push(slot, again);
        TokenError::Authority(error)
    }

    /// Applies an outcome to the slot, and tells everybody. None: the token was asked for before a revocation.
    fn settle(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        answer: Result<IssuedToken, IssueError>,
        asked: Asked,
        now: Now,
    ) -> Option<Result<Arc<Cached>, TokenError>> {
        let outcome = match &answer {
            Ok(_) => RefreshOutcome::Issued,
            Err(error) => outcome_of(error),
        };
        let failures = slot.state().failures + 1;
        match (RefreshPlan::after(outcome, failures, self.draw.unit()), answer) {
            (RefreshPlan::Evict, _) => {
                slot.state().flight = None;
                self.evict(slot);
                Some(Err(TokenError::Denied))
            }
            (RefreshPlan::Keep { retry_in }, Err(error)) => {
                Some(Err(self.keep(slot, error, retry_in, failures, now)))
            }
            // The plan swaps for a token and keeps for an error, and for nothing else.
            (_, Err(error)) => Some(Err(TokenError::Authority(error))),
            (_, Ok(issued)) => self.swap(slot, issued, asked, now).map(Ok),
        }
    }

    fn swap(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        issued: IssuedToken,
        asked: Asked,
        now: Now,
    ) -> Option<Arc<Cached>> {
        let after = refresh_after(issued.expires_in, issued.refresh_in, self.draw.unit());
        let token = Token::new(issued, asked.started, after);
        let mut state = slot.state();
        if state.revocations != asked.revocations {
            return None;
        }
        // Under the lock, as a revocation takes it out: it is either before or after.
        let cached = self.put(slot, token);
        state.flight = None;
        state.failures = 0;
        state.last_error = None;
        state.retry_at = None;
        state.prepared = false;
        if state.by_itself {
            slot.mark_refreshed();
        }
        let gone = state.gone;
        drop(state);
        if !gone {
            self.index.weigh(slot, now);
            self.enqueue(slot, &cached.token);
            self.writer.put(Pending::Put(Arc::downgrade(slot)));
        } else {
            // Those who waited get it; nobody after them.
            slot.token.store(None);
        }
        Some(cached)
    }

    /// Puts a token into its slot, with its bytes, and shows it to the watchers.
    pub(crate) fn put(&self, slot: &Slot, mut token: Token) -> Arc<Cached> {
        let encoded = (self.encoder)(&token);
        token.issued.access_token = encoded.access_token.clone();
        let cached = Arc::new(Cached {
            phases: token.phases(),
            encoded,
            token: Arc::new(token),
            revoked: AtomicBool::new(false),
        });
        if let Some(before) = slot.token.swap(Some(Arc::clone(&cached))) {
            slot.note_earlier(before.token.expires_at);
        }
        slot.tell(|seen| {
            seen.token = Some(Arc::clone(&cached));
            seen.generation += 1;
            seen.error = None;
        });
        cached
    }

    fn keep(
        &self,
        slot: &Arc<Slot>,
        error: IssueError,
        retry_in: Duration,
        failures: u32,
        now: Now,
    ) -> TokenError {
        if let Some(delay) = error.retry_after {
            self.writer.put(Pending::Hold(self.gate.hold(&slot.key, delay, now)));
        }
        if matches!(outcome_of(&error), RefreshOutcome::Permanent { .. }) || failures.is_power_of_two() {
            let (identity, authority) = self.gate.names(&slot.key);
            tracing::warn!(identity, authority, identity_uid = %slot.key.identity, target = %slot.key.target, failures, error = %error.message,
                code = error.code.as_deref().unwrap_or_default(), "no token was issued; it is tried again unless the error says that no retry helps: `jeton status` tells how long the present one is served, docs/errors.md what to do");
        }
        let mut state = slot.state();
        state.flight = None;
        state.failures = failures;
        state.last_error = Some(error.clone());
        state.retry_at = Some(now.boot + retry_in);
        state.prepared = false;
        drop(state);
        slot.tell_failure(&error);
        self.queue.push(slot, now.boot + retry_in);
        TokenError::Authority(error)
    }

    /// Takes a slot out of memory and out of the store.
    pub(crate) fn evict(&self, slot: &Arc<Slot>) {
        self.leavings.empty(slot);
        self.index.remove(slot);
    }
}

fn outcome_of(error: &IssueError) -> RefreshOutcome {
    let retry_after = error.retry_after;
    match error.class {
        IssueErrorClass::Transient | IssueErrorClass::Throttled => RefreshOutcome::Transient { retry_after },
        IssueErrorClass::Permanent | IssueErrorClass::Credential => RefreshOutcome::Permanent { retry_after },
        IssueErrorClass::Denied => RefreshOutcome::Denied,
    }
}
