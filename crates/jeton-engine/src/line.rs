//! Refreshes that are due, and that their authority's budget has no room for. They stand in line: one goes out as soon as another one
//! comes back, and a tick looks too, because a budget also grows by itself.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use jeton_core::{Mono, Uid};

use crate::slot::Slot;

/// Which of an authority's lines. The budget may have room for the first of one line and none for that of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has a token, which is about to reach its floor from this time on: the earliest is the first.
    Refresh(Mono),
    /// It has none and somebody watches.
    First,
    /// Nobody asked since the start.
    WarmUp(Mono),
}

const LINES: usize = 3;

/// The lines of all authorities. A slot stands in one place at most; one that it left for another line says nothing any more.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    authorities: HashMap<Uid, [BinaryHeap<Reverse<Place>>; LINES]>,
    /// Of places. Each has a number of its own, from which its line can be told.
    given: u64,
}

/// In the order of time, then of arrival.
#[derive(Debug)]
struct Place {
    order: (Mono, u64),
    slot: Weak<Slot>,
}

impl Standing {
    fn line(self) -> usize {
        match self {
            Self::Refresh(_) => 0,
            Self::First => 1,
            Self::WarmUp(_) => 2,
        }
    }

    fn time(self) -> Mono {
        match self {
            Self::Refresh(at) | Self::WarmUp(at) => at,
            Self::First => Mono::from_millis(0),
        }
    }
}

impl Lines {
    /// Every line of an authority.
    pub(crate) fn of_each() -> impl Iterator<Item = usize> {
        0..LINES
    }

    /// Puts a slot in line, unless it stands there.
    pub(crate) fn push(&self, slot: &Arc<Slot>, standing: Standing) {
        let (mut inner, line) = (self.locked(), standing.line());
        if slot.place().is_some_and(|place| place as usize % LINES == line) {
            return;
        }
        inner.given += 1;
        let place = inner.given * LINES as u64 + line as u64;
        slot.set_place(Some(place));
        let entry = Place { order: (standing.time(), place), slot: Arc::downgrade(slot) };
        inner.authorities.entry(slot.key.authority).or_default()[line].push(Reverse(entry));
    }

    /// Takes the first out of a line.
    pub(crate) fn pop(&self, authority: Uid, line: usize) -> Option<Arc<Slot>> {
        let mut inner = self.locked();
        let lines = inner.authorities.get_mut(&authority)?;
        let slot = loop {
            let Some(Reverse(place)) = lines[line].pop() else { break None };
            let stands = |slot: &Arc<Slot>| slot.place() == Some(place.order.1);
            if let Some(slot) = place.slot.upgrade().filter(stands) {
                slot.set_place(None);
                break Some(slot);
            }
        };
        if lines.iter().all(BinaryHeap::is_empty) {
            inner.authorities.remove(&authority);
        }
        slot
    }

    /// Where somebody stands in line.
    pub(crate) fn authorities(&self) -> Vec<Uid> {
        self.locked().authorities.keys().copied().collect()
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Place {}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}
