//! What happened lately, in memory: two rings, so that the many refreshes that go well do not push out the few things that do not.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jeton_core::{Permission, Uid, Wall};

/// Refreshes that went well, and everything else.
const MOST: [usize; 2] = [4_096, 12_288];

/// Something that happened. Never with a token or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Given by [`Events::record`]; rises.
    pub id: u64,
    /// When.
    pub at: Wall,
    /// What.
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// To which identity, by its name then. None: who hears of it needs its permission on everything.
    pub identity: Option<(Uid, Arc<str>)>,
    /// At which authority, by its name then.
    pub authority: Option<Arc<str>>,
    /// In words.
    pub message: Box<str>,
    /// By which the audit log knows it.
    pub correlation_id: Option<Box<str>>,
    /// What it takes to hear of it.
    pub needs: Permission,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Info,
    /// It failed or was refused, and callers have what they need.
    Warning,
    /// It needs somebody.
    Error,
}

macro_rules! kinds {
    ($($kind:ident $name:literal,)*) => {
        /// What happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "proto/jeton/v1/event.proto says what each is")]
        pub enum EventKind { $($kind,)* }

        impl EventKind {
            /// Its name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    Refreshed "refreshed",
    RefreshFailed "refresh_failed",
    KeyMade "key_made",
    Registered "registered",
    Verified "verified",
    Switched "switched",
    Rotated "rotated",
    Overlapped "overlapped",
    Removed "removed",
    StepFailed "step_failed",
    Created "created",
    Attached "attached",
    Updated "updated",
    Deleted "deleted",
    Disabled "disabled",
    Enabled "enabled",
    RotationAsked "rotation_asked",
    RefreshAsked "refresh_asked",
    Revoked "revoked",
    Changed "changed",
    Refused "refused",
    AlarmRaised "alarm_raised",
    AlarmCleared "alarm_cleared",
}

impl Event {
    /// Of nothing in particular yet.
    pub fn new(at: Wall, kind: EventKind, severity: Severity, message: impl Into<Box<str>>) -> Self {
        Self {
            id: 0,
            at,
            kind,
            severity,
            identity: None,
            authority: None,
            message: message.into(),
            correlation_id: None,
            needs: Permission::ReadIdentities,
        }
    }
}

/// A cloneable handle on what is remembered.
#[derive(Debug, Clone)]
pub struct Events(Arc<Mutex<Rings>>);

#[derive(Debug)]
struct Rings {
    last: u64,
    rings: [Ring; 2],
}

#[derive(Debug)]
struct Ring {
    most: usize,
    kept: VecDeque<Arc<Event>>,
    forgotten: u64,
    /// The id of the latest that is forgotten.
    until: u64,
}

impl Events {
    /// Of a process that starts now: its events' ids are above those of the processes before it, a thousand for each millisecond.
    pub fn new(now: Wall) -> Self {
        let last = u64::try_from(now.as_millis()).unwrap_or(0).saturating_mul(1_000);
        let ring = |most| Ring { most, kept: VecDeque::new(), forgotten: 0, until: last };
        Self(Arc::new(Mutex::new(Rings { last, rings: MOST.map(ring) })))
    }

    /// Remembers an event.
    pub fn record(&self, event: Event) {
        let ring = usize::from(event.kind != EventKind::Refreshed);
        let mut rings = self.lock();
        rings.last += 1;
        let event = Arc::new(Event { id: rings.last, ..event });
        rings.rings[ring].push(event);
    }

    /// The id of the latest.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// What came after an event, in order, and how many more there were at most.
    pub fn after(&self, id: u64) -> (Vec<Arc<Event>>, u64) {
        let rings = self.lock();
        if rings.last <= id {
            return (vec![], 0);
        }
        let mut found: Vec<_> = rings.rings.iter().flat_map(|ring| ring.after(id)).cloned().collect();
        let missed = rings.rings.iter().map(|ring| ring.forgotten.min(ring.until.saturating_sub(id))).sum();
        drop(rings);
        found.sort_unstable_by_key(|event| event.id);
        (found, missed)
    }

    /// The latest before an id that fit, the latest first.
    pub fn before(&self, id: u64, most: usize, fits: impl Fn(&Event) -> bool) -> Vec<Arc<Event>> {
        // Whether they fit is asked without the lock.
        let all: Vec<_> = self.lock().rings.iter().flat_map(|ring| ring.before(id)).cloned().collect();
        let mut found: Vec<_> = all.into_iter().filter(|event| fits(event)).collect();
        found.sort_unstable_by_key(|event| std::cmp::Reverse(event.id));
        found.truncate(most);
        found
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, event: Arc<Event>) {
        if self.kept.len() >= self.most
            && let Some(oldest) = self.kept.pop_front()
        {
            self.forgotten += 1;
            self.until = oldest.id;
        }
        self.kept.push_back(event);
    }

    fn after(&self, id: u64) -> impl Iterator<Item = &Arc<Event>> {
        self.kept.range(self.kept.partition_point(|event| event.id <= id)..)
    }

    fn before(&self, id: u64) -> impl Iterator<Item = &Arc<Event>> {
        self.kept.range(..self.kept.partition_point(|event| event.id < id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind) -> Event {
        Event::new(Wall::from_secs(1), kind, Severity::Info, "text")
    }

    fn ids(events: &[Arc<Event>]) -> Vec<u64> {
        events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn very_many_refreshes_push_out_nothing_else_and_whoever_reads_on_hears_how_many_it_missed() {
        let events = Events::new(Wall::from_millis(5));
        assert_eq!((events.last(), events.after(0)), (5_000, (vec![], 0)));
        events.record(event(EventKind::RefreshFailed));
        for _ in 0..MOST[0] + 10 {
            events.record(event(EventKind::Refreshed));
        }
        events.record(event(EventKind::Disabled));
        let (all, missed) = events.after(0);
        assert_eq!((all.len(), missed), (MOST[0] + 2, 10));
        assert_eq!((all[0].kind, all[0].id), (EventKind::RefreshFailed, 5_001));
        assert!(ids(&all).is_sorted());
        let last = all.last().unwrap().id;
        assert_eq!(events.after(last), (vec![], 0));
        events.record(event(EventKind::Enabled));
        let (new, missed) = events.after(last);
        assert_eq!((ids(&new), missed), (vec![last + 1], 0));
    }

    #[test]
    fn pages_go_back_and_show_what_fits_alone() {
        let events = Events::new(Wall::from_millis(0));
        for _ in 0..5 {
            events.record(event(EventKind::Refreshed));
            events.record(event(EventKind::RefreshFailed));
        }
        let failed = |event: &Event| event.kind == EventKind::RefreshFailed;
        assert_eq!(ids(&events.before(u64::MAX, 3, failed)), [10, 8, 6]);
        assert_eq!(ids(&events.before(6, 3, failed)), [4, 2]);
    }
}
