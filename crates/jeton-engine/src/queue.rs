//! When which slot is looked at next, on the boot-time clock. A slot stands in it at most once.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::Ordering::Relaxed},
};

use jeton_core::Mono;

use crate::slot::Slot;

#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<Heap>);

#[derive(Debug, Default)]
struct Heap {
    entries: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
    /// At this length, entries of slots that are gone are thrown out: a weak reference keeps its slot's memory.
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
    /// Puts a slot in line, unless it stands there already.
    pub(crate) fn push(&self, slot: &Arc<Slot>, due: Mono) {
        if !slot.queued.swap(true, Relaxed) {
            let mut heap = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            heap.sequence += 1;
            let sequence = heap.sequence;
            heap.entries.push(Reverse(Entry { due, sequence, slot: Arc::downgrade(slot) }));
            if heap.entries.len() >= heap.compact_at.max(SHORT) {
                heap.entries.retain(|Reverse(entry)| entry.slot.strong_count() > 0);
                heap.compact_at = heap.entries.len() * 2;
            }
        }
    }

    /// Takes out the next slot that is due; slots that are gone are passed over.
    pub(crate) fn pop(&self, now: Mono) -> Option<Arc<Slot>> {
        let mut heap = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while heap.entries.peek().is_some_and(|Reverse(head)| head.due <= now) {
            let slot = heap.entries.pop().and_then(|Reverse(entry)| entry.slot.upgrade());
            if let Some(slot) = slot {
                slot.queued.store(false, Relaxed);
                return Some(slot);
            }
        }
        None
    }

    /// Empties the line: the clocks were set, so every due time must be found anew.
    pub(crate) fn clear(&self) {
        let mut heap = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in heap.entries.drain().filter_map(|Reverse(entry)| entry.slot.upgrade()) {
            slot.queued.store(false, Relaxed);
        }
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
