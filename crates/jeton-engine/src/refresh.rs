//! The tick: what is due is prepared, refreshed or forgotten.
//!
//! One short periodic look at three clocks drives all refreshes. A one-shot timer would sleep through a suspend; the tick notices
//! that the clocks moved apart and looks at every slot anew.

use std::{sync::Arc, time::Duration};

use jeton_core::{Freshness, Now, Priority, Token, serve_floor};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::Shared,
    flight::Wish,
    gate::Permit,
    slot::{Cached, Slot},
};

/// Wall and boot time apart by more than this: somebody set the clock.
const STEPPED_MILLIS: i64 = 1_000;
/// How long a slot without a token is kept after its last failure.
const EMPTY_SLOT_LIFE: Duration = Duration::from_secs(60);

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
        let mut later = vec![];
        let mut looked_at = 0_u32;
        while let Some(slot) = self.queue.pop(now.boot) {
            if let Some(again) = self.look_at(&slot, now) {
                later.push((slot, again));
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

    /// Does what is due for one slot; the answer is when to look again, unless a flight's end will say.
    fn look_at(self: &Arc<Self>, slot: &Arc<Slot>, now: Now) -> Option<Duration> {
        let cached = slot.token.load_full();
        let (busy, retry_in, gone, prepared) = {
            let state = slot.state();
            let retry_in =
                state.retry_at.map(|at| at.saturating_since(now.boot)).filter(|left| !left.is_zero());
            (state.flight.is_some(), retry_in, state.gone, state.prepared)
        };
        if gone || busy {
            return None;
        }
        let Some(cached) = cached else { return self.look_at_empty(slot, retry_in, now) };
        if !slot.wanted(&cached, now) {
            if cached.phases.at(now) == Freshness::Expired {
                return self.look_at_empty(slot, retry_in, now);
            }
            // Nobody asks: it stays until it expires, unless somebody comes back.
            return Some(cached.token.remaining(now) + Duration::from_secs(1));
        }
        if let Some(left) = retry_in.max(self.gate.held(&slot.key, now)) {
            return Some(left);
        }
        if cached.phases.at(now) == Freshness::Fresh {
            return Some(self.before_refresh(slot, &cached, prepared, now));
        }
        self.start_refresh(slot, priority_of(slot, &cached.token, now), now)
    }

    fn look_at_empty(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        retry_in: Option<Duration>,
        now: Now,
    ) -> Option<Duration> {
        if slot.is_pinned(now) {
            let priority = if slot.watched() { Priority::Due } else { Priority::WarmUp };
            return match retry_in.max(self.gate.held(&slot.key, now)) {
                Some(left) => Some(left),
                None => self.start_refresh(slot, priority, now),
            };
        }
        let idle = slot.idle(now);
        let left = retry_in.unwrap_or_default().max(EMPTY_SLOT_LIFE.saturating_sub(idle));
        if left.is_zero() {
            self.evict(slot);
            return None;
        }
        Some(left)
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

    fn start_refresh(self: &Arc<Self>, slot: &Arc<Slot>, priority: Priority, now: Now) -> Option<Duration> {
        match self.gate.permit(&slot.key, priority, None, now) {
            Permit::Granted => {
                slot.state().by_itself = true;
                drop(self.fly(slot, Wish::ours(priority), true, now));
                None
            }
            Permit::Busy => Some(Duration::from_millis(self.settings.tick_ms)),
            Permit::Held(left) => Some(left),
        }
    }
}

fn priority_of(slot: &Slot, token: &Token, now: Now) -> Priority {
    let soon = serve_floor(token.lifetime()) * 2 + Duration::from_secs(5).min(token.lifetime() / 8);
    if token.remaining(now) < soon {
        Priority::Expiring
    } else if slot.restored.load(std::sync::atomic::Ordering::Relaxed) {
        Priority::WarmUp
    } else {
        Priority::Due
    }
}
