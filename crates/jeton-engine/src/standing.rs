//! How each identity's tokens fare, for whoever looks after very many; and asking for one's tokens anew.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jeton_core::{Now, Priority, Uid, Wall};

use crate::{Engine, IssueError, flight::Wish, slot::Slot};

/// Requests that one order to refresh begins at most. The authority's budget is for all identities.
const MOST_REFRESHED: usize = 100;

/// How one identity's tokens fare.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Slots.
    pub tokens: u32,
    /// If a refresh fails: the least time that a token may still be served, and why.
    pub failing: Option<(Duration, IssueError)>,
    /// When the next of them is asked for.
    pub next_refresh: Option<Wall>,
    /// When one of them was asked for last.
    pub last_used: Wall,
}

/// What an order to refresh led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refreshing {
    /// Requests that are under way now.
    pub under_way: u32,
    /// Slots that are not asked for: beyond the bound, or a Retry-After is not over.
    pub left: u32,
}

impl Engine {
    /// Of every identity that has a slot. With a million slots it takes a part of a second: not for a thread that serves.
    pub fn standings(&self) -> HashMap<Uid, Standing> {
        let now = self.shared.clock.now();
        let mut all = HashMap::new();
        for slot in self.shared.index.all() {
            note(&mut all, &slot, now);
        }
        all
    }

    /// Of one.
    pub fn standing(&self, identity: Uid) -> Option<Standing> {
        let now = self.shared.clock.now();
        let mut one = HashMap::new();
        self.shared.index.of(identity).iter().for_each(|slot| note(&mut one, slot, now));
        one.remove(&identity)
    }

    /// Asks for the tokens of an identity anew, those that were used last first. What is there is served meanwhile.
    pub fn refresh_identity(&self, identity: Uid) -> Refreshing {
        let (shared, now) = (&self.shared, self.shared.clock.now());
        let mut slots = shared.index.of(identity);
        slots.sort_by_cached_key(|slot| slot.idle(now));
        let mut outcome = Refreshing::default();
        for slot in slots {
            let waits = shared.gate.held(&slot.key, now).is_some();
            let most = outcome.under_way as usize >= MOST_REFRESHED;
            let begun = !waits && !most && shared.fly(&slot, Wish::ours(Priority::Due), false, now).is_some();
            let counted = if begun { &mut outcome.under_way } else { &mut outcome.left };
            *counted += 1;
        }
        outcome
    }
}

fn note(all: &mut HashMap<Uid, Standing>, slot: &Arc<Slot>, now: Now) {
    let cached = slot.token.load_full();
    let token = cached.as_ref().map(|cached| &cached.token);
    let state = slot.state();
    // A token that failed to be replaced before it was due is not tried again before it is.
    let retry = state.retry_at.map(|at| now.wall + at.saturating_since(now.boot));
    let next = [retry, token.map(|token| token.refresh_at)].into_iter().flatten().max();
    let standing = all.entry(slot.key.identity).or_insert_with(|| Standing {
        tokens: 0,
        failing: None,
        next_refresh: None,
        last_used: slot.last_used_wall(),
    });
    standing.tokens += 1;
    standing.last_used = standing.last_used.max(slot.last_used_wall());
    standing.next_refresh = [standing.next_refresh, next].into_iter().flatten().min();
    if let Some(error) = &state.last_error {
        let left = token.map_or(Duration::ZERO, |token| token.served_for(now));
        if standing.failing.as_ref().is_none_or(|(least, _)| left < *least) {
            standing.failing = Some((left, error.clone()));
        }
    }
}
