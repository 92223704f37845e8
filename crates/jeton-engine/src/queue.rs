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
        heap.sequence += 1;
        let sequence = heap.sequence;
        slot.set_due(Some((due, sequence)));
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
    /// The slot, if it is still there and this is its latest entry: it may have got an earlier time since, and this one again after that.
    fn stands(&self) -> Option<Arc<Slot>> {
        self.slot.upgrade().filter(|slot| slot.entry() == Some(self.sequence))
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

#[cfg(test)]
mod tests {
    use jeton_core::{Now, Wall};

    use super::*;
    use crate::testing::{caller, key};

    #[test]
    fn slots_that_are_looked_at_early_and_come_back_to_their_time_leave_nothing_behind() {
        const SLOTS: usize = 200;
        let now = Now { wall: Wall::default(), mono: Mono::default(), boot: Mono::default() };
        let queue = Queue::default();
        let slots: Vec<_> =
            (0..SLOTS as u64).map(|n| Arc::new(Slot::new(key(n, "a"), caller(1), now))).collect();
        let due = Mono::from_millis(12 * 3_600_000);
        slots.iter().for_each(|slot| queue.push(slot, due));
        for tick in 0..100_000 {
            let now = Mono::from_millis(tick * 250);
            // In each tick some watch begins, and is over: another slot each time.
            let slot = &slots[usize::try_from(tick).unwrap() % SLOTS];
            queue.push(slot, now);
            assert!(queue.pop(now).is_some());
            queue.push(slot, due);
        }
        let entries = queue.lock().entries.len();
        assert!(entries <= SHORT, "{entries} entries for {SLOTS} slots");
    }
}
