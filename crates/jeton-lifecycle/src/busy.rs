//! What is under way, in the order in which it is taken up: who was asked for first comes first. Taking up a step costs the same however
//! many wait.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jeton_core::{Identity, IdentityState, Step, Uid, Wall};

/// Identities with an operation, one line for each authority.
#[derive(Default)]
pub(crate) struct Busy {
    lines: BTreeMap<Uid, Line>,
    places: HashMap<Uid, Place>,
}

/// When somebody is taken up at the earliest, and who it is.
type Turn = (Wall, Uid);

#[derive(Default)]
struct Line {
    /// Their step changes something at the authority.
    changing: BTreeSet<Turn>,
    others: BTreeSet<Turn>,
}

struct Place {
    authority: Uid,
    changing: bool,
    at: Wall,
}

impl Busy {
    /// Notes where an identity stands now. One that has failed waits for somebody, and not for a time.
    pub(crate) fn put(&mut self, identity: &Identity) {
        self.remove(identity.uid);
        let Some(operation) = identity.operation.as_ref().filter(|_| identity.state != IdentityState::Failed)
        else {
            return;
        };
        let changing = matches!(operation.step(), Some(Step::Registered | Step::Removed));
        let place = Place { authority: identity.authority, changing, at: operation.next_try_at };
        self.lines.entry(place.authority).or_default().of(changing).insert((place.at, identity.uid));
        self.places.insert(identity.uid, place);
    }

    /// It is gone, or has nothing to do any more.
    pub(crate) fn remove(&mut self, uid: Uid) {
        let Some(Place { authority, changing, at }) = self.places.remove(&uid) else { return };
        let Some(line) = self.lines.get_mut(&authority) else { return };
        line.of(changing).remove(&(at, uid));
        if line.changing.is_empty() && line.others.is_empty() {
            self.lines.remove(&authority);
        }
    }

    /// The authorities at which somebody waits.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = Uid> {
        self.lines.keys().copied()
    }

    /// Who may be taken up at an authority by now, and whether the step changes something there: at most `most`, of which at most
    /// `changing` do, and none that is taken up already.
    pub(crate) fn next(
        &self,
        authority: Uid,
        now: Wall,
        most: usize,
        changing: usize,
        is_taken: impl Fn(Uid) -> bool,
    ) -> Vec<(Uid, bool)> {
        let Some(line) = self.lines.get(&authority) else { return vec![] };
        let waiting = |turns: &BTreeSet<Turn>, most, changing| -> Vec<_> {
            let due = turns.iter().take_while(|(at, _)| *at <= now).filter(|(_, uid)| !is_taken(*uid));
            due.take(most).map(|turn| (*turn, changing)).collect()
        };
        let mut turns = waiting(&line.changing, most.min(changing), true);
        turns.extend(waiting(&line.others, most, false));
        turns.sort_unstable();
        turns.truncate(most);
        turns.into_iter().map(|((_, uid), changing)| (uid, changing)).collect()
    }
}

impl Line {
    fn of(&mut self, changing: bool) -> &mut BTreeSet<Turn> {
        if changing { &mut self.changing } else { &mut self.others }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use jeton_core::{IdentityKind, Operation, OperationKind};

    use super::*;

    const NOW: Wall = Wall::from_secs(1_000);

    fn uid(n: u16) -> Uid {
        let [a, b] = n.to_be_bytes();
        Uid::new(Wall::from_secs(1), [0, 0, 0, 0, 0, 0, 0, 0, a, b])
    }

    fn waiting(n: u16, kind: OperationKind, at: Wall) -> Identity {
        Identity {
            uid: uid(n),
            name: format!("identities/n{n}").parse().unwrap(),
            display_name: String::new(),
            labels: Default::default(),
            kind: IdentityKind::Created,
            workload: None,
            authority: uid(0),
            state: IdentityState::Provisioning,
            client_id: None,
            registration: None,
            credentials: vec![],
            operation: Some(Operation::new(kind, at)),
            created_at: at,
            updated_at: at,
            version: 1,
        }
    }

    #[test]
    fn taking_up_a_step_looks_at_no_more_than_are_taken_up_however_many_wait() {
        let mut busy = Busy::default();
        for n in 1..=10_000 {
            let kind = if n % 2 == 0 { OperationKind::Provision } else { OperationKind::Delete };
            busy.put(&waiting(n, kind, Wall::from_secs(i64::from(n % 100))));
        }
        let looked_at = Cell::new(0);
        let next = busy.next(uid(0), NOW, 8, 8, |uid| {
            looked_at.set(looked_at.get() + 1);
            uid == self::uid(100)
        });
        assert_eq!(next.len(), 8);
        assert!(next.iter().all(|(uid, _)| *uid != self::uid(100)), "it is taken up already");
        assert!(looked_at.get() <= 17, "{} looked at", looked_at.get());
    }

    #[test]
    fn who_was_asked_for_first_comes_first_and_nobody_before_its_time() {
        let mut busy = Busy::default();
        let at = |seconds| NOW + std::time::Duration::from_secs(seconds);
        busy.put(&waiting(1, OperationKind::Provision, at(0)));
        busy.put(&waiting(2, OperationKind::Provision, at(1)));
        busy.put(&waiting(3, OperationKind::Delete, Wall::from_secs(999)));
        busy.put(&waiting(4, OperationKind::Delete, at(0)));
        let next = |busy: &Busy, changing| busy.next(uid(0), NOW, 8, changing, |_| false);
        assert_eq!(next(&busy, 8), [(uid(3), true), (uid(1), false), (uid(4), true)]);
        assert_eq!(next(&busy, 1), [(uid(3), true), (uid(1), false)], "one change at a time");
        assert_eq!(next(&busy, 0), [(uid(1), false)]);
        busy.remove(uid(1));
        let failed = Identity { state: IdentityState::Failed, ..waiting(3, OperationKind::Delete, NOW) };
        busy.put(&failed);
        assert_eq!(next(&busy, 8), [(uid(4), true)], "one is gone, and one waits for somebody");
        busy.remove(uid(4));
        busy.remove(uid(2));
        assert_eq!(busy.authorities().count(), 0);
    }
}
