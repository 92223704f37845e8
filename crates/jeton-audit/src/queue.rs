//! What waits to be written. What is waited for goes first; of what comes often, the oldest goes when there is no room.

use std::{collections::VecDeque, time::Duration};

use jeton_core::{AuditEvent, AuditOutcome, AuditUnavailable, Wall};
use tokio::sync::oneshot;

use crate::{AuditSettings, OnFull, log::Entry};

/// Most entries of one write.
const MOST_AT_ONCE: usize = 4_096;
/// Longest text of an event, in bytes: a principal has no more, and of others the beginning says enough.
const MAX_TEXT: usize = 2_048;
/// Most resources of an event.
const MAX_RESOURCES: usize = 32;

pub(crate) type Waiter = oneshot::Sender<Result<(), AuditUnavailable>>;

/// Entries on their way.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Intents, outcomes, and whatever somebody waits for. Bounded by those who wait, and by what was begun by an intent on disk.
    kept: VecDeque<Kept>,
    frequent: VecDeque<Entry>,
    /// Frequent entries that are being written, and come back if that fails.
    in_hand: usize,
    /// When the oldest came of those that are being written.
    in_hand_since: Option<Wall>,
    /// Frequent entries that were dropped, and are not yet recorded as lost.
    pub(crate) dropped: u64,
    pub(crate) closing: bool,
}

#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) entry: Entry,
    pub(crate) waiter: Option<Waiter>,
    /// An intent: of no use if it cannot be written now.
    pub(crate) intent: bool,
}

/// What is written at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) kept: Vec<Kept>,
    pub(crate) frequent: Vec<Entry>,
    pub(crate) dropped: u64,
}

impl Queue {
    pub(crate) fn keep(&mut self, entry: Entry, waiter: Option<Waiter>, intent: bool) {
        self.kept.push_back(Kept { entry, waiter, intent });
    }

    /// Whether another one had to go for it.
    pub(crate) fn note(&mut self, entry: Entry, settings: &AuditSettings) -> bool {
        let full = self.frequent.len() >= most(settings);
        if full {
            self.frequent.pop_front();
            self.dropped += 1;
        }
        self.frequent.push_back(entry);
        full
    }

    pub(crate) fn has_room(&self, settings: &AuditSettings) -> bool {
        settings.on_full == OnFull::Drop || self.frequent.len() + self.in_hand < settings.max_queued
    }

    /// Whether somebody waits, or so much has come that it should not wait.
    pub(crate) fn is_urgent(&self) -> bool {
        self.closing
            || self.frequent.len() >= MOST_AT_ONCE
            || self.kept.iter().any(|kept| kept.waiter.is_some())
    }

    /// How many are not on disk, and when the oldest of them came.
    pub(crate) fn waiting(&self) -> (usize, Option<Wall>) {
        let fronts = [self.kept.front().map(|kept| kept.entry.0), self.frequent.front().map(|entry| entry.0)];
        let oldest = fronts.into_iter().flatten().chain(self.in_hand_since).min();
        (self.kept.len() + self.frequent.len() + self.in_hand, oldest)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.frequent.is_empty() && self.dropped == 0
    }

    pub(crate) fn take(&mut self) -> Batch {
        let kept: Vec<_> = self.kept.drain(..self.kept.len().min(MOST_AT_ONCE)).collect();
        let frequent: Vec<_> = self.frequent.drain(..self.frequent.len().min(MOST_AT_ONCE)).collect();
        self.in_hand = frequent.len();
        let oldest = kept.iter().map(|kept| kept.entry.0).chain(frequent.iter().map(|entry| entry.0)).min();
        self.in_hand_since = oldest;
        Batch { kept, frequent, dropped: std::mem::take(&mut self.dropped) }
    }

    /// What was taken is on disk.
    pub(crate) fn written(&mut self) {
        (self.in_hand, self.in_hand_since) = (0, None);
    }

    /// Puts back what is to be written later; whoever waits is told that it is not there yet.
    pub(crate) fn put_back(&mut self, batch: Batch, why: &AuditUnavailable, settings: &AuditSettings) {
        for mut kept in batch.kept.into_iter().rev() {
            if let Some(waiter) = kept.waiter.take() {
                // Whoever waited may have gone.
                let _ = waiter.send(Err(why.clone()));
            }
            if !kept.intent {
                self.kept.push_front(kept);
            }
        }
        (self.in_hand, self.in_hand_since) = (0, None);
        let room = most(settings).saturating_sub(self.frequent.len());
        let lost = batch.frequent.len().saturating_sub(room);
        self.dropped += batch.dropped + lost as u64;
        batch.frequent.into_iter().skip(lost).rev().for_each(|entry| self.frequent.push_front(entry));
    }
}

/// Most frequent entries that wait. Where none may be lost, those count that are under way when there is no more room.
fn most(settings: &AuditSettings) -> usize {
    match settings.on_full {
        OnFull::Drop => settings.max_queued,
        OnFull::Refuse => 2 * settings.max_queued,
    }
}

/// An event as JSON; every text of it bounded.
pub(crate) fn body(mut event: AuditEvent) -> String {
    let texts =
        [&mut event.method, &mut event.target, &mut event.reason, &mut event.correlation_id, &mut event.peer];
    texts.into_iter().flatten().for_each(shorten);
    event.resources.truncate(MAX_RESOURCES);
    let resources = event.resources.iter_mut().chain(event.workload.as_mut());
    resources.for_each(|resource| shorten(&mut resource.name));
    // Texts and numbers: that cannot fail.
    serde_json::to_string(&event).unwrap_or_else(|_| r#"{"kind":"log.unknown"}"#.into())
}

pub(crate) fn is_intent(event: &AuditEvent) -> bool {
    event.outcome == AuditOutcome::Intent
}

fn shorten(text: &mut Box<str>) {
    if text.len() > MAX_TEXT {
        *text = text[..text.floor_char_boundary(MAX_TEXT)].into();
    }
}

/// How long the thread may sleep when nothing is urgent.
pub(crate) fn nap(settings: &AuditSettings) -> Duration {
    settings.batch().min(settings.head_interval())
}

#[cfg(test)]
mod tests {
    use jeton_core::AuditKind;

    use super::*;

    fn entry(n: u64) -> Entry {
        (Wall::from_secs(1), n.to_string())
    }

    /// How many had to go for these.
    fn note(queue: &mut Queue, numbers: std::ops::Range<u64>, settings: &AuditSettings) -> usize {
        numbers.filter(|n| queue.note(entry(*n), settings)).count()
    }

    fn settings(on_full: OnFull) -> AuditSettings {
        AuditSettings { max_queued: 16, on_full, ..AuditSettings::default() }
    }

    #[test]
    fn the_oldest_goes_and_is_counted_and_what_is_kept_never_goes() {
        let (mut queue, settings) = (Queue::default(), settings(OnFull::Drop));
        (0..100).for_each(|n| queue.keep(entry(n), None, false));
        assert_eq!(note(&mut queue, 0..20, &settings), 4);
        assert!(queue.has_room(&settings));
        let batch = queue.take();
        assert_eq!((batch.kept.len(), batch.dropped), (100, 4));
        assert_eq!(batch.frequent.iter().map(|(_, b)| b.as_str()).next(), Some("4"));
        assert!(queue.is_empty());
    }

    #[test]
    fn what_could_not_be_written_comes_back_in_order_but_for_intents() {
        let (mut queue, settings) = (Queue::default(), settings(OnFull::Drop));
        let (waiter, mut told) = oneshot::channel();
        queue.keep(entry(1), None, false);
        queue.keep(entry(2), Some(waiter), true);
        queue.keep(entry(3), None, false);
        assert_eq!(note(&mut queue, 0..16, &settings), 0);
        let batch = queue.take();
        assert_eq!(note(&mut queue, 16..20, &settings), 0);
        queue.put_back(batch, &AuditUnavailable("full".into()), &settings);
        assert_eq!(told.try_recv().unwrap().unwrap_err().0, "full");
        let batch = queue.take();
        let kept: Vec<_> = batch.kept.iter().map(|k| k.entry.1.as_str()).collect();
        let frequent: Vec<_> = batch.frequent.iter().map(|(_, b)| b.as_str()).collect();
        assert_eq!((kept, batch.dropped), (vec!["1", "3"], 4));
        assert_eq!((frequent[0], frequent[15]), ("4", "19"));
    }

    #[test]
    fn where_none_may_be_lost_there_is_room_again_only_when_it_is_written() {
        let (mut queue, settings) = (Queue::default(), settings(OnFull::Refuse));
        assert_eq!(note(&mut queue, 0..16, &settings), 0);
        let batch = queue.take();
        assert!(!queue.has_room(&settings), "what is being written may come back");
        assert_eq!(note(&mut queue, 16..32, &settings), 0, "what was under way is not lost");
        queue.put_back(batch, &AuditUnavailable("full".into()), &settings);
        assert!(!queue.has_room(&settings));
        let batch = queue.take();
        assert_eq!((batch.frequent.len(), batch.dropped), (32, 0));
        queue.written();
        assert!(queue.has_room(&settings));
    }

    #[test]
    fn the_oldest_that_is_not_on_disk_is_known_until_it_is() {
        let (mut queue, settings) = (Queue::default(), settings(OnFull::Drop));
        assert_eq!(queue.waiting(), (0, None));
        queue.keep((Wall::from_secs(5), "a".into()), None, false);
        queue.note((Wall::from_secs(3), "b".into()), &settings);
        assert_eq!(queue.waiting(), (2, Some(Wall::from_secs(3))));
        let batch = queue.take();
        assert_eq!(queue.waiting().1, Some(Wall::from_secs(3)), "it is being written");
        queue.put_back(batch, &AuditUnavailable("full".into()), &settings);
        assert_eq!(queue.waiting(), (2, Some(Wall::from_secs(3))));
        drop(queue.take());
        queue.written();
        assert_eq!(queue.waiting(), (0, None));
    }

    #[test]
    fn no_event_makes_a_line_that_is_too_long() {
        let mut event = AuditEvent::new(AuditKind::AccessDenied, AuditOutcome::Denied);
        let long = "ü\u{1}".repeat(100_000);
        for text in [&mut event.method, &mut event.target, &mut event.reason, &mut event.peer] {
            *text = Some(long.as_str().into());
        }
        let body = body(event);
        assert!(body.len() < crate::chain::MAX_LINE, "{}", body.len());
    }
}
