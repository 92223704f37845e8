//! Refusals for the audit trail: each for itself up to a bound for each principal, and a count of those beyond it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jeton_core::{AuditEvent, AuditTrail, Principal, Wall};

const MINUTE: Duration = Duration::from_secs(60);
/// Principals that are counted apart; of more, all refusals are counted together.
const MOST_PRINCIPALS: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Refusals {
    most: u32,
    by_principal: Mutex<HashMap<Option<Principal>, Minute>>,
}

/// A principal's last minute.
#[derive(Debug)]
struct Minute {
    began: Wall,
    written: u32,
    /// One like those that were left out, with their count and times.
    left_out: Option<Box<AuditEvent>>,
}

impl Refusals {
    pub(crate) fn new(most: u32) -> Self {
        Self { most, by_principal: Mutex::default() }
    }

    pub(crate) fn refused(&self, event: AuditEvent, now: Wall, trail: &dyn AuditTrail) {
        let mut minutes = self.locked();
        let mut key = event.principal.clone();
        if minutes.len() >= MOST_PRINCIPALS && !minutes.contains_key(&key) {
            key = None;
        }
        let minute = minutes.entry(key).or_insert_with(|| Minute { began: now, written: 0, left_out: None });
        if minute.is_over(now) {
            minute.left_out.take().into_iter().for_each(|event| trail.note(*event));
            (minute.began, minute.written) = (now, 0);
        }
        if minute.written < self.most {
            minute.written += 1;
            return trail.note(event);
        }
        let left_out = minute.left_out.get_or_insert_with(|| {
            let mut like = event;
            (like.correlation_id, like.target, like.peer, like.resources) = (None, None, None, vec![]);
            (like.count, like.first) = (Some(0), Some(now));
            Box::new(like)
        });
        left_out.count = left_out.count.map(|count| count + 1);
        left_out.last = Some(now);
    }

    /// Writes down what was left out of minutes that are over, or of all.
    pub(crate) fn flush(&self, now: Wall, all: bool, trail: &dyn AuditTrail) {
        self.locked().retain(|_, minute| {
            let over = all || minute.is_over(now);
            if over {
                minute.left_out.take().into_iter().for_each(|event| trail.note(*event));
            }
            !over
        });
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<Option<Principal>, Minute>> {
        self.by_principal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Minute {
    fn is_over(&self, now: Wall) -> bool {
        now.saturating_since(self.began) >= MINUTE || now < self.began
    }
}

#[cfg(test)]
mod tests {
    use jeton_core::{AuditKind, AuditOutcome, audit::testing::MemoryTrail};

    use super::*;

    #[test]
    fn each_refusal_is_written_up_to_the_bound_and_those_beyond_it_are_counted() {
        let (refusals, trail) = (Refusals::new(2), MemoryTrail::default());
        let now = Wall::from_secs(1_000);
        let refuse = |principal: &str, at: Wall| {
            let mut event = AuditEvent::new(AuditKind::AccessDenied, AuditOutcome::Denied);
            event.principal = Some(principal.parse().unwrap());
            event.target = Some("resource:x".into());
            refusals.refused(event, at, &trail);
        };
        (0..10).for_each(|n| refuse("unix://n/uid/1", now + Duration::from_secs(n)));
        refuse("unix://n/uid/2", now);
        assert_eq!(trail.events().len(), 3, "two of the one, and the other's");
        refusals.flush(now + Duration::from_secs(59), false, &trail);
        assert_eq!(trail.events().len(), 3);
        refuse("unix://n/uid/1", now + Duration::from_secs(60));
        let events = trail.events();
        let left_out = &events[3];
        assert_eq!((left_out.count, left_out.target.as_deref()), (Some(8), None));
        assert_eq!(left_out.last, Some(now + Duration::from_secs(9)));
        assert!(events[4].count.is_none(), "and the first of the next minute for itself");
        refusals.flush(now + Duration::from_secs(60), true, &trail);
        assert_eq!(trail.events().len(), 5, "nothing was left out since");
    }
}
