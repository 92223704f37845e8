//! What else is asked of the engine: rejected tokens, evictions, and what it holds.

use std::time::Duration;

use jeton_core::{Freshness, Now, Token, TokenKey, Uid, Wall};

use crate::{
    Account, BudgetInfo, Engine, IssueError, TokenError,
    flight::Wish,
    slot::{Cached, Slot},
};

/// At most one forced refresh per key in this time.
const FORCED_INTERVAL: Duration = Duration::from_secs(60);

/// What a report of a rejected token led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// A refresh was started, or one was under way.
    Refreshing,
    /// The token in memory is another one already.
    Superseded,
    /// A forced refresh happened a short time ago.
    TooSoon,
}

/// What is known of a slot. Never the token.
#[derive(Debug, Clone)]
pub struct SlotInfo {
    /// What it is for.
    pub key: TokenKey,
    /// Where its token is in its life.
    pub state: SlotState,
    /// When the token ends.
    pub expires_at: Option<Wall>,
    /// When its refresh is due.
    pub refresh_at: Option<Wall>,
    /// When somebody asked last.
    pub last_used: Wall,
    /// Whether it is kept fresh although nobody asks.
    pub pinned: bool,
    /// How long the token may still be served; nothing: there is none, or not any more.
    pub served_for: Duration,
    /// Why the last try failed, if it did.
    pub last_error: Option<IssueError>,
}

/// Where a slot's token is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotState {
    /// Before its refresh.
    Fresh,
    /// Past it, served.
    Stale,
    /// Not served.
    Expired,
    /// No token.
    Empty,
}

impl SlotState {
    /// In lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::Empty => "empty",
        }
    }

    pub(crate) fn of(cached: Option<&Cached>, now: Now) -> Self {
        cached.map_or(Self::Empty, |cached| match cached.phases.at(now) {
            Freshness::Fresh => Self::Fresh,
            Freshness::Stale => Self::Stale,
            Freshness::Expired => Self::Expired,
        })
    }
}

/// Numbers about the engine.
#[derive(Debug, Clone, Default)]
pub struct EngineStats {
    /// Slots.
    pub slots: usize,
    /// Bytes, by the engine's own count.
    pub bytes: u64,
    /// Writes that the store could not follow.
    pub dropped_writes: u64,
    /// The authorities' budgets.
    pub budgets: Vec<BudgetInfo>,
}

impl Engine {
    /// A resource refused this key's token. `is_refused` tells whether the token in memory is the one that was refused.
    pub fn report_rejected(
        &self,
        key: &TokenKey,
        caller: impl Into<Account>,
        is_refused: impl FnOnce(&Token) -> bool,
    ) -> Result<Rejected, TokenError> {
        let (shared, account) = (&self.shared, caller.into());
        let now = shared.clock.now();
        let Some(slot) = shared.index.find(key) else { return Ok(Rejected::Superseded) };
        let cached = slot.token.load_full();
        if !cached.is_some_and(|c| is_refused(&c.token)) {
            return Ok(Rejected::Superseded);
        }
        if let Some(left) = shared.gate.held(key, now) {
            return Err(TokenError::Authority(crate::flight::held_back(left)));
        }
        {
            let mut state = slot.state();
            if state.flight.is_some() {
                return Ok(Rejected::Refreshing);
            }
            if state.forced_at.is_some_and(|at| now.boot.saturating_since(at) < FORCED_INTERVAL) {
                return Ok(Rejected::TooSoon);
            }
            shared.counts.refused(shared.callers.forced(&account, now))?;
            state.forced_at = Some(now.boot);
        }
        drop(shared.fly(&slot, Wish::of(&account.principal), false, now));
        Ok(Rejected::Refreshing)
    }

    /// Drops every token of an identity: it was disabled, deleted or revoked.
    pub fn evict_identity(&self, identity: Uid) {
        self.shared.index.of(identity).iter().for_each(|slot| self.shared.evict(slot));
    }

    /// Drops every token of an authority: its profile changed or it is gone.
    pub fn evict_authority(&self, authority: Uid) {
        self.shared.gate.authority_changed(authority, self.shared.clock.now());
        for slot in self.shared.index.all().iter().filter(|slot| slot.key.authority == authority) {
            self.shared.evict(slot);
        }
    }

    /// Forgets failures of an identity, so that the next caller tries at once: its credential was replaced.
    pub fn retry_identity(&self, identity: Uid) {
        let now = self.shared.clock.now();
        for slot in self.shared.index.of(identity) {
            let mut state = slot.state();
            if state.retry_at.take().is_some() {
                state.failures = 0;
                drop(state);
                self.shared.queue.push(&slot, now.boot);
            }
        }
    }

    /// Everything in memory, without the tokens; in no order.
    pub fn slots(&self) -> impl Iterator<Item = SlotInfo> {
        let now = self.shared.clock.now();
        self.shared.index.all().into_iter().map(move |slot| info(&slot, now))
    }

    /// The same in the order of identity and target; of one identity alone, if one is named.
    pub fn slots_in_order(&self, identity: Option<Uid>) -> impl Iterator<Item = SlotInfo> {
        let (now, index) = (self.shared.clock.now(), &self.shared.index);
        let mut slots = identity.map_or_else(|| index.all(), |identity| index.of(identity));
        slots.sort_by(|a, b| sort_key(&a.key).cmp(&sort_key(&b.key)));
        slots.into_iter().map(move |slot| info(&slot, now))
    }

    /// Numbers about the engine.
    pub fn stats(&self) -> EngineStats {
        let shared = &self.shared;
        EngineStats {
            slots: shared.index.len(),
            bytes: shared.index.weight(),
            dropped_writes: shared.writer.dropped(),
            budgets: shared.gate.budgets(shared.clock.now()),
        }
    }
}

fn sort_key(key: &TokenKey) -> (Uid, &str, Option<&str>) {
    (key.identity, key.target.as_str(), key.claims.as_ref().map(|c| c.as_str()))
}

fn info(slot: &Slot, now: Now) -> SlotInfo {
    let cached = slot.token.load_full();
    SlotInfo {
        key: slot.key.clone(),
        state: SlotState::of(cached.as_deref(), now),
        expires_at: cached.as_ref().map(|c| c.token.expires_at),
        refresh_at: cached.as_ref().map(|c| c.token.refresh_at),
        last_used: slot.last_used_wall(),
        pinned: slot.is_pinned(now),
        served_for: cached.as_ref().map_or(Duration::ZERO, |c| c.token.served_for(now)),
        last_error: slot.state().last_error.clone(),
    }
}
