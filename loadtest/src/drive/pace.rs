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

    /// When the generator is so late that it handed out not even all of what was due. That may be very much, so nobody counts one by one.
    pub(super) fn give_up(&mut self) {
        let Pace::Rate(rate) = self.shared.plan.pace else { return };
        let (begin, end) = (self.before(rate, self.shared.begin), self.before(rate, self.shared.end));
        let unsent = end.saturating_sub(self.sent.max(begin));
        self.sent = self.sent.max(end);
        if unsent > 0 {
            let since = Instant::now().saturating_duration_since(self.shared.begin);
            self.shared.record.borrow_mut().errors(since, "never sent: the generator is too late", unsent);
        }
    }

    /// When the next request is due, if there is one before the end.
    fn next(&self) -> Option<Instant> {
        let Pace::Rate(rate) = self.shared.plan.pace else { return None };
        let next = self.due(rate, self.sent);
        (next < self.shared.end && !self.lanes.is_empty()).then_some(next)
    }

    /// When the request of this number is due.
    fn due(&self, rate: f64, number: u64) -> Instant {
        let gap = self.threads as f64 / rate;
        // The threads' requests lie between each other's.
        let first = gap * self.index as f64 / self.threads as f64;
        self.start + Duration::from_secs_f64(first + gap * number as f64)
    }

    /// How many requests are due before this moment.
    fn before(&self, rate: f64, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.start).as_secs_f64();
        // Nearly; a few steps from there on what is due is looked at.
        let mut count = (since * rate / self.threads as f64) as u64;
        while count > 0 && self.due(rate, count - 1) >= moment {
            count -= 1;
        }
        while self.due(rate, count) < moment {
            count += 1;
        }
        count
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
                self.shared.record.borrow_mut().error(since, lost);
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

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use rand::{SeedableRng, distr::weighted::WeightedIndex, rngs::SmallRng};

    use super::*;
    use crate::{
        drive::Plan,
        record::Record,
        report::tests::plan,
        target::{Address, Ask, PATH, Target},
        wire::Request,
    };

    fn target() -> Target {
        let request = Request::new(false, "localhost", PATH, b"");
        Target {
            address: Address::Tcp(String::new()),
            tls: vec![],
            asks: vec![Ask { identity: "identities/a".into(), client_id: None, request }],
            mix: WeightedIndex::new([1.0]).unwrap(),
            scopes: vec![],
            pid: None,
        }
    }

    fn shared<'a>(target: &'a Target, plan: &'a Plan, begin: Instant, end: Instant) -> Shared<'a> {
        Shared {
            target,
            plan,
            record: RefCell::new(Record::new()),
            checker: RefCell::default(),
            rng: RefCell::new(SmallRng::seed_from_u64(1)),
            handed_out: Cell::new(false),
            worked: Cell::new(false),
            spun: Cell::default(),
            begin,
            end,
        }
    }

    /// How long a pacer looked at the clock, beside a connection that always has something to do, or nothing.
    fn spun(works: bool) -> Duration {
        let (target, plan, start) = (target(), plan(Pace::Rate(1_000.0)), Instant::now());
        let shared = shared(&target, &plan, start, start + Duration::from_millis(50));
        let lanes = [Rc::default()];
        let mut pacer = Pacer::new(&shared, &lanes, start, 0);
        let pace = async {
            pacer.run().await;
            shared.handed_out.set(true);
        };
        let connection = async {
            while !shared.handed_out.get() {
                shared.worked.set(works || shared.worked.get());
                tokio::task::yield_now().await;
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(futures_util::future::join(pace, connection));
        assert!(!lanes[0].due.borrow().is_empty());
        shared.spun.get()
    }

    #[test]
    fn all_that_was_never_sent_is_counted_at_once_however_much_it_is() {
        let (target, start) = (target(), Instant::now());
        let day = Duration::from_secs(86_400);
        for (rate, threads, unsent) in
            [(1e7, 1, 864_000_000_000), (1e7, 2, 864_000_000_000), (0.25, 3, 21_600)]
        {
            let plan = Plan { threads, ..plan(Pace::Rate(rate)) };
            // What is due in the warm-up is not measured.
            let shared = shared(
                &target,
                &plan,
                start + Duration::from_secs(60),
                start + Duration::from_secs(60) + day,
            );
            (0..threads).for_each(|index| Pacer::new(&shared, &[Rc::default()], start, index).give_up());
            assert_eq!(shared.record.borrow().failed(), unsent);
        }
    }

    #[test]
    fn who_waits_for_the_next_moment_is_idle_unless_a_connection_works_meanwhile() {
        assert_eq!(spun(true), Duration::ZERO);
        // Where something else has the processor until the end, nobody looks at the clock.
        assert!((0..20).any(|_| spun(false) > Duration::ZERO));
    }
}
