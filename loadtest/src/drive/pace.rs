//! A constant rate.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use super::{Intent, Lane, Pace, Shared};

/// Requests that are due on a connection and cannot be sent; more are lost.
const MOST_DUE: usize = 100_000;
/// The pace is kept by looking at the clock when a request is due this soon; timers are coarser.
const SPIN: Duration = Duration::from_micros(1_500);
/// Requests that are handed out before connections have their turn, also where more are due.
const MOST_AT_ONCE: u64 = 64;

/// Keeps the rate.
pub(super) struct Pacer<'a> {
    shared: &'a Shared<'a>,
    lanes: &'a [Rc<Lane>],
    start: Instant,
    sent: u64,
    threads: usize,
    index: usize,
}

impl<'a> Pacer<'a> {
    /// Of one thread, whose requests begin at `start`.
    pub(super) fn new(shared: &'a Shared<'a>, lanes: &'a [Rc<Lane>], start: Instant, index: usize) -> Self {
        Self { shared, lanes, start, sent: 0, threads: shared.plan.threads, index }
    }

    /// Until the measurement's end.
    pub(super) async fn run(&mut self) {
        while let Some(next) = self.next() {
            let now = Instant::now();
            if next <= now {
                self.send(next, now);
                if self.sent.is_multiple_of(MOST_AT_ONCE) {
                    tokio::task::yield_now().await;
                }
            } else if next - now > SPIN {
                tokio::time::sleep(next - now - SPIN).await;
            } else {
                self.shared.worked.set(false);
                tokio::task::yield_now().await;
                if !self.shared.worked.get() {
                    self.shared.spun.set(self.shared.spun.get() + now.elapsed());
                }
            }
        }
    }

    /// When the generator is so late that it handed out not even all of what was due.
    pub(super) fn give_up(&mut self) {
        while let Some(at) = self.next() {
            if at >= self.shared.begin {
                let since = Instant::now().saturating_duration_since(self.shared.begin);
                self.shared.record.borrow_mut().error(since, "never sent: the generator is too late".into());
            }
            self.sent += 1;
        }
    }

    /// When the next request is due, if there is one before the end.
    fn next(&self) -> Option<Instant> {
        let Pace::Rate(rate) = self.shared.plan.pace else { return None };
        let gap = self.threads as f64 / rate;
        // The threads' requests lie between each other's.
        let first = gap * self.index as f64 / self.threads as f64;
        let next = self.start + Duration::from_secs_f64(first + gap * self.sent as f64);
        (next < self.shared.end && !self.lanes.is_empty()).then_some(next)
    }

    fn send(&mut self, at: Instant, now: Instant) {
        let ask = self.shared.target.draw(&mut *self.shared.rng.borrow_mut());
        let lane = &self.lanes[usize::try_from(self.sent).unwrap_or(0) % self.lanes.len()];
        let lost = match (lane.gone.get(), lane.due.borrow().len()) {
            (true, _) => Some("no connection any more"),
            (_, waiting) if waiting >= MOST_DUE => Some("too many requests are due"),
            _ => None,
        };
        self.sent += 1;
        if let Some(lost) = lost {
            if at >= self.shared.begin {
                let since = now.saturating_duration_since(self.shared.begin);
                self.shared.record.borrow_mut().error(since, lost.into());
            }
            return;
        }
        lane.due.borrow_mut().push_back(Intent { at, ask });
        if let Some(waker) = lane.waker.borrow_mut().take() {
            waker.wake();
        }
        if at >= self.shared.begin {
            let lag = u64::try_from((now - at).as_nanos()).unwrap_or(u64::MAX).max(1);
            self.shared.record.borrow_mut().lag.saturating_record(lag);
        }
    }
}
