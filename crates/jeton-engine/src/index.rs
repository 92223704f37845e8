//! Which slots there are, and who makes room.
//!
//! The index is a lock-free map. Beside it stand two measures of room: all slots together, of which the least recently used make room;
//! and each caller's share, beyond which it pushes out its own oldest slots and nobody else's. The order of recency is told of no hit,
//! which would cost more than the hit: a slot whose turn it is and that was used meanwhile gets a second chance. A slot weighs at least
//! `max_bytes / max_entries`, so one bound holds both promises.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use jeton_core::{Now, Principal, TokenKey, Uid};

use crate::{
    EngineSettings,
    recency::Recency,
    slot::Slot,
    writer::{Pending, Writer},
};

/// As often a slot that was used since its turn came last gets a second chance; then the next one goes, used or not.
const SECOND_CHANCES: usize = 16;
/// How often the next in line are looked at, where those before them are needed.
const MOST_ROUNDS: usize = 64;

#[derive(Debug)]
pub(crate) struct Index {
    writer: Writer,
    slots: papaya::HashMap<TokenKey, Arc<Slot>>,
    /// The same in the order of their identities, for whoever acts on one.
    by_identity: Mutex<BTreeMap<Place, Arc<Slot>>>,
    recency: Recency,
    owners: Mutex<HashMap<Principal, Owner>>,
    weight: AtomicU64,
    least_weight: u64,
    max_weight: u64,
    share: u64,
}

/// An identity, and where the slot lies: its own as long as it lives.
type Place = (Uid, usize);

fn place(slot: &Arc<Slot>) -> Place {
    (slot.key.identity, Arc::as_ptr(slot).addr())
}

/// What one caller brought in, in the order of coming.
#[derive(Debug, Default)]
struct Owner {
    weight: u64,
    slots: VecDeque<Weak<Slot>>,
    /// At this length it is looked through again.
    compact_at: usize,
}

impl Owner {
    fn push(&mut self, slot: &Arc<Slot>, least_weight: u64) {
        // Slots that left the index otherwise stay in the line, and a weak reference keeps their memory.
        let living = usize::try_from(self.weight / least_weight).unwrap_or(usize::MAX);
        if self.slots.len() > 64 && self.slots.len() / 5 * 4 > living && self.slots.len() >= self.compact_at {
            self.slots.retain(|slot| slot.strong_count() > 0);
            self.compact_at = self.slots.len() / 4 * 5;
        }
        self.slots.push_back(Arc::downgrade(slot));
    }
}

/// The caller's share is full of slots that cannot be dropped.
#[derive(Debug)]
pub(crate) struct Full;

impl Index {
    pub(crate) fn new(settings: &EngineSettings, writer: Writer) -> Self {
        Self {
            writer,
            slots: papaya::HashMap::new(),
            by_identity: Mutex::default(),
            recency: Recency::default(),
            owners: Mutex::default(),
            weight: AtomicU64::new(0),
            least_weight: settings.least_weight(),
            max_weight: settings.max_bytes,
            share: settings.caller_share(),
        }
    }

    pub(crate) fn find(&self, key: &TokenKey) -> Option<Arc<Slot>> {
        self.slots.pin().get(key).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.weight.load(Relaxed)
    }

    /// Every slot, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Slot>> {
        self.slots.pin().values().cloned().collect()
    }

    /// The slots of one identity.
    pub(crate) fn of(&self, identity: Uid) -> Vec<Arc<Slot>> {
        let slots = self.by_identity();
        slots.range((identity, 0)..=(identity, usize::MAX)).map(|(_, slot)| Arc::clone(slot)).collect()
    }

    /// The slot of a key, made if it is not there.
    pub(crate) fn ensure(&self, key: &TokenKey, owner: &Principal, now: Now) -> Result<Arc<Slot>, Full> {
        if let Some(slot) = self.find(key) {
            return Ok(slot);
        }
        // What was kept over a restart is nobody's in particular, and was within the bounds before.
        if *owner != Principal::restored() {
            self.make_room(owner, now)?;
        }
        let made = Arc::new(Slot::new(key.clone(), owner.clone(), now));
        let kept = Arc::clone(self.slots.pin().get_or_insert_with(key.clone(), || Arc::clone(&made)));
        if Arc::ptr_eq(&kept, &made) {
            self.by_identity().insert(place(&kept), Arc::clone(&kept));
            // Somebody may have taken it out between the two.
            if kept.state().gone {
                self.by_identity().remove(&place(&kept));
            }
            self.weigh(&kept, now);
            self.own(&kept);
            // What is in use cannot go, so the new one does.
            if self.weight() > self.max_weight {
                self.remove(&kept);
                return Err(Full);
            }
        }
        Ok(kept)
    }

    /// Weighs a slot anew after its token changed, and drops what no longer fits.
    pub(crate) fn weigh(&self, slot: &Arc<Slot>, now: Now) {
        let next = slot.bytes().max(self.least_weight);
        {
            let state = slot.state();
            if state.gone {
                return;
            }
            let before = slot.weight.swap(next, Relaxed);
            // A refresh mostly brings a token of the same length.
            if before != next {
                self.change(&slot.owner, before, next);
            }
            self.recency.push(slot, next);
        }
        self.make_fit(now);
    }

    /// Takes a slot out, if it is still the one under its key.
    pub(crate) fn remove(&self, slot: &Arc<Slot>) {
        let removed = {
            let slots = self.slots.pin();
            matches!(slots.remove_if(&slot.key, |_, found| Arc::ptr_eq(found, slot)), Ok(Some(_)))
        };
        if !removed {
            return;
        }
        {
            let mut state = slot.state();
            state.gone = true;
            let weight = slot.weight.swap(0, Relaxed);
            self.change(&slot.owner, weight, 0);
        }
        self.by_identity().remove(&place(slot));
        // Whoever knows the place finds nothing there any more.
        slot.token.store(None);
        slot.tell(|seen| seen.ended = true);
        self.recency.remove(slot);
        self.writer.put(Pending::Remove(slot.key.clone()));
    }

    /// Puts a slot into its owner's line, unless it has left again.
    fn own(&self, slot: &Arc<Slot>) {
        let state = slot.state();
        if !state.gone {
            self.owners().entry(slot.owner.clone()).or_default().push(slot, self.least_weight);
        }
    }

    fn change(&self, owner: &Principal, before: u64, after: u64) {
        self.weight.fetch_add(after, Relaxed);
        self.weight.fetch_sub(before, Relaxed);
        let mut owners = self.owners();
        let entry = owners.entry(owner.clone()).or_default();
        entry.weight = (entry.weight + after).saturating_sub(before);
        // No slot weighs nothing.
        if entry.weight == 0 {
            owners.remove(owner);
        }
    }

    /// A caller at its share pushes out its own: idle ones, those used again since they came after the others.
    fn make_room(&self, owner: &Principal, now: Now) -> Result<(), Full> {
        loop {
            let (over, tries) = {
                let owners = self.owners();
                owners
                    .get(owner)
                    .map_or((false, 0), |o| (o.weight + self.least_weight > self.share, o.slots.len()))
            };
            if !over {
                return Ok(());
            }
            let victim = (0..tries).find_map(|_| self.next_of(owner, now)).ok_or(Full)?;
            self.remove(&victim);
        }
    }

    /// The owner's oldest slot if it may go; otherwise it moves to the end of the line.
    fn next_of(&self, owner: &Principal, now: Now) -> Option<Arc<Slot>> {
        let oldest = self.owners().get_mut(owner)?.slots.pop_front()?.upgrade()?;
        if oldest.state().gone {
            return None;
        }
        if oldest.evictable(now) {
            return Some(oldest);
        }
        self.owners().get_mut(owner)?.slots.push_back(Arc::downgrade(&oldest));
        None
    }

    /// The least recently used leave the index, unless they are needed; then the next in line are looked at.
    fn make_fit(&self, now: Now) {
        for round in 0..MOST_ROUNDS {
            let over = self.recency.over(self.max_weight);
            if over.is_empty() {
                return;
            }
            for slot in over {
                let full = self.weight() > self.max_weight.saturating_sub(self.least_weight);
                let spared = round < SECOND_CHANCES && slot.used_since_told(now);
                if full && slot.evictable(now) && !spared {
                    self.remove(&slot);
                    continue;
                }
                // Needed, used, or there is room after all: it goes to the end of the line.
                let state = slot.state();
                if !state.gone {
                    self.recency.push(&slot, slot.weight.load(Relaxed));
                }
            }
        }
    }

    fn by_identity(&self) -> std::sync::MutexGuard<'_, BTreeMap<Place, Arc<Slot>>> {
        self.by_identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owners(&self) -> std::sync::MutexGuard<'_, HashMap<Principal, Owner>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jeton_core::{Mono, Wall};

    use super::*;
    use crate::testing::{caller, key};

    #[test]
    fn of_a_caller_whose_slots_are_gone_nothing_is_left() {
        let now = Now { wall: Wall::default(), mono: Mono::default(), boot: Mono::default() };
        let (writer, _writes) = Writer::new(10);
        let index = Index::new(&EngineSettings::default(), writer);
        for n in 0..10_000_u32 {
            let slot = index.ensure(&key(u64::from(n), "a"), &caller(n), now).unwrap();
            index.remove(&slot);
        }
        assert_eq!((index.len(), index.weight()), (0, 0));
        assert_eq!(index.owners().len(), 0, "callers are remembered for nothing");
    }
}
