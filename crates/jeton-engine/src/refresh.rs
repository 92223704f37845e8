//! The tick: what is due is prepared, refreshed or forgotten.
//!
//! One short periodic look at three clocks drives all refreshes. A one-shot timer would sleep through a suspend; the tick notices
//! that the clocks moved apart and looks at every slot anew.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use jeton_core::{Freshness, Now, Priority, Token, Uid, serve_floor};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::Shared,
    flight::Wish,
    gate::Permit,
    line::{Lines, Standing},
    slot::{Cached, Slot},
};

/// Wall and boot time apart by more than this: somebody set the clock.
const STEPPED_MILLIS: i64 = 1_000;
/// How long a slot without a token is kept after its last failure.
const EMPTY_SLOT_LIFE: Duration = Duration::from_secs(60);
/// Most that are taken out of one line at once: those that must not go out now make room for nobody.
const MOST_AT_ONCE: usize = 64;

/// What comes next for a slot that was looked at.
enum Next {
    /// Somebody else will say.
    Nothing,
    /// Another look, after this time.
    LookIn(Duration),
    /// Its turn at the authority.
    Turn(Standing),
}

/// Looks at the clocks until told to stop.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_millis(shared.settings.tick_ms));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut apart = distance(shared.clock.now());
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let now = shared.clock.now();
        if (distance(now) - apart).abs() > STEPPED_MILLIS {
            tracing::info!("the clocks were set; every token's times are looked at anew");
            shared.queue.clear();
            shared.index.all().iter().for_each(|slot| shared.queue.push(slot, now.boot));
        }
        apart = distance(now);
        shared.refresh_due(now).await;
    }
}

fn distance(now: Now) -> i64 {
    now.wall.as_millis() - i64::try_from(now.boot.as_millis()).unwrap_or(i64::MAX)
}

impl Shared {
    /// Puts a slot with a token in line: at its refresh, or a little before to have an assertion signed.
    pub(crate) fn enqueue(&self, slot: &Arc<Slot>, token: &Token) {
        let lead = self.lead(token);
        let due = jeton_core::Mono::from_millis(
            token.refresh_boot.as_millis().saturating_sub(u64::try_from(lead.as_millis()).unwrap_or(0)),
        );
        self.queue.push(slot, due);
    }

    fn lead(&self, token: &Token) -> Duration {
        self.settings.presign_lead().min(token.lifetime() / 8)
    }

    async fn refresh_due(self: &Arc<Self>, now: Now) {
        // Those who stand in line were there before.
        self.lines.authorities().into_iter().for_each(|authority| self.take_turns(authority, now));
        let mut later = vec![];
        let mut looked_at = 0_u32;
        while let Some(slot) = self.queue.pop(now.boot) {
            match self.look_at(&slot, now) {
                Next::Nothing => {}
                Next::LookIn(again) => later.push((slot, again)),
                Next::Turn(standing) => self.lines.push(&slot, standing),
            }
            looked_at += 1;
            if looked_at.is_multiple_of(64) {
                tokio::task::yield_now().await;
            }
        }
        for (slot, again) in later {
            self.queue.push(&slot, now.boot + again);
        }
    }

    /// Starts what stands in line at an authority, as far as its budget goes.
    pub(crate) fn take_turns(self: &Arc<Self>, authority: Uid, now: Now) {
        for line in Lines::of_each() {
            for _ in 0..MOST_AT_ONCE {
                let Some(slot) = self.lines.pop(authority, line) else { break };
                match self.look_at(&slot, now) {
                    Next::Nothing => {}
                    Next::LookIn(again) => self.queue.push(&slot, now.boot + again),
                    Next::Turn(standing) => {
                        self.lines.push(&slot, standing);
                        break;
                    }
                }
            }
        }
    }

    /// Does what is due for one slot.
    fn look_at(self: &Arc<Self>, slot: &Arc<Slot>, now: Now) -> Next {
        let cached = slot.token.load_full();
        let (busy, retry_in, gone, prepared) = {
            let state = slot.state();
            let retry_in =
                state.retry_at.map(|at| at.saturating_since(now.boot)).filter(|left| !left.is_zero());
            (state.flight.is_some(), retry_in, state.gone, state.prepared)
        };
        if gone || busy {
            return Next::Nothing;
        }
        let Some(cached) = cached else { return self.look_at_empty(slot, retry_in, now) };
        if !slot.wanted(&cached, now) {
            if cached.phases.at(now) == Freshness::Expired {
                return self.look_at_empty(slot, retry_in, now);
            }
            // Nobody asks: it stays until it expires, unless somebody comes back.
            return Next::LookIn(cached.token.remaining(now) + Duration::from_secs(1));
        }
        if let Some(left) = retry_in.max(self.gate.held(&slot.key, now)) {
            return Next::LookIn(left);
        }
        if cached.phases.at(now) == Freshness::Fresh {
            return Next::LookIn(self.before_refresh(slot, &cached, prepared, now));
        }
        let expiring_in = expiring_in(&cached.token, now);
        let at = now.boot + expiring_in;
        let (priority, standing) = match slot.restored.load(Relaxed) {
            _ if expiring_in.is_zero() => (Priority::Expiring, Standing::Refresh(at)),
            true => (Priority::WarmUp, Standing::WarmUp(at)),
            false => (Priority::Due, Standing::Refresh(at)),
        };
        self.start_refresh(slot, priority, standing, now)
    }

    fn look_at_empty(self: &Arc<Self>, slot: &Arc<Slot>, retry_in: Option<Duration>, now: Now) -> Next {
        if slot.is_pinned(now) {
            let (priority, standing) = match slot.watched() {
                true => (Priority::Due, Standing::First),
                false => (Priority::WarmUp, Standing::WarmUp(now.boot)),
            };
            return match retry_in.max(self.gate.held(&slot.key, now)) {
                Some(left) => Next::LookIn(left),
                None => self.start_refresh(slot, priority, standing, now),
            };
        }
        let idle = slot.idle(now);
        let left = retry_in.unwrap_or_default().max(EMPTY_SLOT_LIFE.saturating_sub(idle));
        if left.is_zero() {
            self.evict(slot);
            return Next::Nothing;
        }
        Next::LookIn(left)
    }

    /// Between the lead and the refresh: an assertion is asked for, once.
    fn before_refresh(&self, slot: &Slot, cached: &Cached, prepared: bool, now: Now) -> Duration {
        let due_in = cached
            .token
            .refresh_boot
            .saturating_since(now.boot)
            .min(cached.token.refresh_at.saturating_since(now.wall));
        let lead = self.lead(&cached.token);
        if due_in > lead {
            return due_in.saturating_sub(lead);
        }
        if !prepared {
            slot.state().prepared = true;
            self.source.prepare(&slot.key, due_in);
        }
        due_in.max(Duration::from_millis(1))
    }

    fn start_refresh(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        priority: Priority,
        standing: Standing,
        now: Now,
    ) -> Next {
        if self.flights.is_closed() {
            return Next::Nothing;
        }
        match self.gate.permit(&slot.key, priority, None, now) {
            Permit::Granted => {
                if let Some(cached) = slot.token.load().as_ref() {
                    self.counts
                        .delayed(slot.key.authority, now.boot.saturating_since(cached.token.refresh_boot));
                }
                drop(self.fly(slot, Wish::ours(priority), true, now));
                Next::Nothing
            }
            Permit::Busy => Next::Turn(standing),
            Permit::Held(left) => Next::LookIn(left),
        }
    }
}

/// When the token is about to reach its floor: zero if it is.
fn expiring_in(token: &Token, now: Now) -> Duration {
    let soon = serve_floor(token.lifetime()) * 2 + Duration::from_secs(5).min(token.lifetime() / 8);
    token.remaining(now).saturating_sub(soon)
}
