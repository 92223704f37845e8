//! When which slot is looked at next, on the boot-time clock. Each slot has one such time: the earliest that somebody asked for.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use jeton_core::Mono;

use crate::slot::Slot;

#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<Heap>);

#[derive(Debug, Default)]
struct Heap {
    entries: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
    /// At this length, entries that say nothing any more are thrown out: a weak reference keeps its slot's memory.
    compact_at: usize,
}

/// Below this a line is not worth compacting.
const SHORT: usize = 1_024;

#[derive(Debug)]
struct Entry {
    due: Mono,
    sequence: u64,
    slot: Weak<Slot>,
}

impl Queue {
    /// Puts a slot in line. If it stands there already, the earlier time counts.
    pub(crate) fn push(&self, slot: &Arc<Slot>, due: Mono) {
        let mut heap = self.lock();
        if slot.due().is_some_and(|before| before <= due) {
            return;
        }
        slot.set_due(Some(due));
        heap.sequence += 1;
        let sequence = heap.sequence;
        heap.entries.push(Reverse(Entry { due, sequence, slot: Arc::downgrade(slot) }));
        if heap.entries.len() >= heap.compact_at.max(SHORT) {
            heap.entries.retain(|Reverse(entry)| entry.stands().is_some());
            heap.compact_at = heap.entries.len() / 4 * 5;
        }
    }

    /// Takes out the next slot that is due.
    pub(crate) fn pop(&self, now: Mono) -> Option<Arc<Slot>> {
        let mut heap = self.lock();
        while heap.entries.peek().is_some_and(|Reverse(head)| head.due <= now) {
            if let Some(slot) = heap.entries.pop().and_then(|Reverse(entry)| entry.stands()) {
                slot.set_due(None);
                return Some(slot);
            }
        }
        None
    }

    /// Empties the line: the clocks were set, so every due time must be found anew.
    pub(crate) fn clear(&self) {
        let mut heap = self.lock();
        for slot in heap.entries.drain().filter_map(|Reverse(entry)| entry.slot.upgrade()) {
            slot.set_due(None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Heap> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The slot, if it is still there and has not got an earlier time since.
    fn stands(&self) -> Option<Arc<Slot>> {
        self.slot.upgrade().filter(|slot| slot.due() == Some(self.due))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.sequence) == (other.due, other.sequence)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}
