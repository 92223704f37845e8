//! What one connection counts of itself: requests that it cancels, and bytes that ask for nothing.
//!
//! The HTTP/2 library stops bursts of resets, and not a steady stream of them; it answers pings as long as they come. Neither is a
//! crime by itself, so what is counted is the rate. Nothing is saved up: whoever asked much may not send more for nothing later.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{DoorSettings, received::Received};

/// Cancelled requests are counted for so long.
pub(crate) const CANCEL_WINDOW: Duration = Duration::from_secs(10);
const BYTES_WINDOW: Duration = Duration::from_secs(1);
/// What comes along with a request and is no header or body: the head of its data's frame, updates of windows, a ping that measures.
const REQUEST_OVERHEAD: u64 = 64;

/// Counts for one connection.
#[derive(Debug)]
pub(crate) struct Meter {
    asked: AtomicBool,
    misused: AtomicBool,
    /// Accepted since it was looked last.
    requests: AtomicU64,
    /// Bytes of accepted requests' bodies.
    bodies: AtomicU64,
    most_cancelled: u32,
    most_bytes: u64,
    /// Headers of one request.
    most_headers: u64,
    cancelled: Mutex<(Instant, u32)>,
    counted: Mutex<Counted>,
}

/// Which of a connection's bytes belong to its requests, as it was looked last.
#[derive(Debug)]
struct Counted {
    headers: u64,
    overhead: u64,
    /// When the window began, and how many had belonged to none by then.
    since: Instant,
    idle: u64,
}

impl Meter {
    pub(crate) fn new(settings: &DoorSettings) -> Self {
        let now = Instant::now();
        Self {
            asked: AtomicBool::new(false),
            misused: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            bodies: AtomicU64::new(0),
            most_cancelled: settings.max_cancelled_requests,
            most_bytes: settings.max_idle_bytes_per_second,
            most_headers: settings.max_header_bytes.into(),
            cancelled: Mutex::new((now, 0)),
            counted: Mutex::new(Counted { headers: 0, overhead: 0, since: now, idle: 0 }),
        }
    }

    /// A request was accepted.
    pub(crate) fn request(&self) {
        if !self.asked.load(Relaxed) {
            self.asked.store(true, Relaxed);
        }
        self.requests.fetch_add(1, Relaxed);
    }

    /// A part of an accepted request's body came.
    pub(crate) fn body(&self, bytes: usize) {
        self.bodies.fetch_add(bytes as u64, Relaxed);
    }

    /// Whether there was a request at all.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Relaxed)
    }

    /// The peer cancelled a request.
    pub(crate) fn cancel(&self) {
        let mut cancelled = self.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now - cancelled.0 >= CANCEL_WINDOW {
            *cancelled = (now, 0);
        }
        cancelled.1 += 1;
        if cancelled.1 > self.most_cancelled {
            self.misused.store(true, Relaxed);
        }
    }

    /// Whether the peer went too far, having sent this in all.
    pub(crate) fn misused(&self, received: Received) -> bool {
        if self.misused.load(Relaxed) {
            return true;
        }
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = counted.idle(received, self.requests.swap(0, Relaxed), self);
        // What bodies held is theirs when they are read.
        counted.idle = counted.idle.min(idle);
        if idle - counted.idle <= self.most_bytes {
            return false;
        }
        // The clock is looked at only now: an orderly peer never comes here.
        let now = Instant::now();
        let over = now - counted.since < BYTES_WINDOW;
        (counted.since, counted.idle) = (now, idle);
        over
    }
}

impl Counted {
    /// How many belong to no request, so many having been accepted since. A request is good for what may come with it, as far as that is
    /// here: the rest is forgotten.
    fn idle(&mut self, received: Received, requests: u64, meter: &Meter) -> u64 {
        self.headers = (self.headers + requests * meter.most_headers).min(received.headers);
        let beside = received.all.saturating_sub(self.headers + meter.bodies.load(Relaxed));
        self.overhead = (self.overhead + requests * REQUEST_OVERHEAD).min(beside);
        beside - self.overhead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn meter() -> Meter {
        Meter::new(&DoorSettings {
            max_cancelled_requests: 3,
            max_idle_bytes_per_second: MIB,
            ..DoorSettings::default()
        })
    }

    /// A peer of a meter.
    struct Sent(Meter, Received);

    impl Sent {
        fn new() -> Self {
            Self(meter(), Received::default())
        }

        /// A request with headers of this size on the wire.
        fn request(&mut self, headers: u64, body: u64) {
            self.0.request();
            self.0.body(usize::try_from(body).unwrap());
            self.1.headers += headers;
            self.1.all += headers + body;
        }

        /// Headers that were not accepted.
        fn refused(&mut self, headers: u64) {
            self.1.headers += headers;
            self.1.all += headers;
        }

        /// Anything else. Whether that was too much.
        fn other(&mut self, bytes: u64) -> bool {
            self.1.all += bytes;
            self.0.misused(self.1)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn cancelling_is_counted_in_ten_seconds() {
        let meter = meter();
        for _ in 0..5 {
            (0..3).for_each(|_| meter.cancel());
            assert!(!meter.misused(Received::default()));
            tokio::time::advance(CANCEL_WINDOW).await;
        }
        (0..4).for_each(|_| meter.cancel());
        assert!(meter.misused(Received::default()));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_of_requests_are_not_counted_however_many() {
        let mut peer = Sent::new();
        for n in 0..1_000 {
            // From headers that are all known to the longest, and what else comes along.
            peer.request(20 + n * 16, MIB);
            assert!(!peer.other(9 + 2 * 13 + 17), "{n}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_of_a_body_are_nobodys_only_until_they_are_read() {
        let mut peer = Sent::new();
        for _ in 0..100 {
            peer.request(20, 0);
            assert!(!peer.other(MIB / 2), "they wait");
            peer.0.body(MIB as usize / 2);
        }
        assert!(peer.other(2 * MIB), "what was read makes no room for what asks for nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_with_short_headers_save_nothing_up_for_a_flood() {
        let mut peer = Sent::new();
        for _ in 0..10_000 {
            peer.request(20, 10);
            assert!(!peer.other(0));
        }
        assert!(!peer.other(MIB));
        assert!(peer.other(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_covers_little_beside_itself_however_much_its_headers_mean() {
        for refused in [false, true] {
            let mut peer = Sent::new();
            let mut over = false;
            for _ in 0..1_000 {
                peer.request(20, 0);
                if refused {
                    peer.refused(32 * 1_024);
                }
                over |= peer.other(8 * 1_024);
            }
            assert!(over, "refused headers beside them: {refused}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn other_bytes_are_too_many_over_the_rate_and_not_at_it() {
        let mut peer = Sent::new();
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(250)).await;
            assert!(!peer.other(MIB / 4), "at the rate");
        }
        // After a long quiet time too.
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert!(!peer.other(2 * MIB));
        assert!(peer.other(2 * MIB));
    }
}
