//! The order in which slots got their tokens, and what they weigh together: the one at the front is the first that makes room.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::slot::Slot;

#[derive(Debug, Default)]
pub(crate) struct Recency(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    /// Slots with their weights, by their places.
    places: BTreeMap<u64, (Arc<Slot>, u64)>,
    /// Of places.
    given: u64,
    weight: u64,
}

impl Recency {
    /// Puts a slot with this weight at the end, wherever it stood.
    pub(crate) fn push(&self, slot: &Arc<Slot>, weight: u64) {
        let mut line = self.locked();
        line.remove(slot);
        line.given += 1;
        let place = line.given;
        slot.set_rank(Some(place));
        line.places.insert(place, (Arc::clone(slot), weight));
        line.weight += weight;
    }

    /// Takes a slot out, if it is there.
    pub(crate) fn remove(&self, slot: &Slot) {
        self.locked().remove(slot);
    }

    /// Takes out the first until the others weigh no more than that.
    pub(crate) fn over(&self, most: u64) -> Vec<Arc<Slot>> {
        let (mut line, mut over) = (self.locked(), vec![]);
        while line.weight > most
            && let Some((_, (slot, weight))) = line.places.pop_first()
        {
            line.weight -= weight;
            slot.set_rank(None);
            over.push(slot);
        }
        over
    }

    fn locked(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn remove(&mut self, slot: &Slot) {
        if let Some((_, weight)) = slot.rank().and_then(|place| self.places.remove(&place)) {
            self.weight -= weight;
            slot.set_rank(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use jeton_core::{Mono, Now, Wall};

    use super::*;
    use crate::testing::{caller, key};

    const NONE: [usize; 0] = [];

    fn slots<const N: usize>() -> [Arc<Slot>; N] {
        let now = Now { wall: Wall::default(), mono: Mono::default(), boot: Mono::default() };
        std::array::from_fn(|n| Arc::new(Slot::new(key(n as u64, "a"), caller(1), now)))
    }

    fn places(of: &[Arc<Slot>], all: &[Arc<Slot>]) -> Vec<usize> {
        of.iter().map(|slot| all.iter().position(|one| Arc::ptr_eq(one, slot)).unwrap()).collect()
    }

    #[test]
    fn who_came_first_and_did_not_come_again_makes_room() {
        let (recency, slots) = (Recency::default(), slots::<5>());
        slots.iter().for_each(|slot| recency.push(slot, 10));
        recency.push(&slots[0], 10);
        recency.remove(&slots[2]);
        assert_eq!(places(&recency.over(40), &slots), NONE);
        assert_eq!(places(&recency.over(15), &slots), [1, 3, 4]);
        // Out is out, and in again is at the end.
        recency.push(&slots[1], 10);
        assert_eq!(places(&recency.over(0), &slots), [0, 1]);
    }

    #[test]
    fn only_the_latest_weight_of_a_slot_counts() {
        let (recency, slots) = (Recency::default(), slots::<2>());
        recency.push(&slots[0], 10);
        recency.push(&slots[1], 10);
        recency.push(&slots[1], 30);
        assert_eq!(places(&recency.over(40), &slots), NONE);
        recency.push(&slots[1], 5);
        assert_eq!(places(&recency.over(15), &slots), NONE);
        recency.remove(&slots[1]);
        recency.remove(&slots[1]);
        assert_eq!(places(&recency.over(9), &slots), [0]);
        assert_eq!(places(&recency.over(0), &slots), NONE);
    }
}
