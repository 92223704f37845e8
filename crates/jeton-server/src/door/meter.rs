//! What one connection counts of itself: requests that it cancels, and bytes that ask for nothing.
//!
//! The HTTP/2 library stops bursts of resets, and not a steady stream of them; it answers pings as long as they come. Neither is a
//! crime by itself, so what is counted is the rate.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

const CANCEL_WINDOW: Duration = Duration::from_secs(10);
const BYTES_WINDOW: Duration = Duration::from_secs(1);
/// Frame headers and what else comes with a request and is no header or body.
const REQUEST_OVERHEAD: u64 = 64;

/// Counts for one connection.
#[derive(Debug)]
pub(crate) struct Meter {
    asked: AtomicBool,
    misused: AtomicBool,
    /// Bytes that belong to accepted requests.
    accepted: AtomicU64,
    most_cancelled: u32,
    most_bytes: u64,
    cancelled: Mutex<(Instant, u32)>,
    bytes: Mutex<(Instant, u64)>,
}

impl Meter {
    pub(crate) fn new(most_cancelled: u32, most_bytes: u64) -> Self {
        let now = Instant::now();
        Self {
            asked: AtomicBool::new(false),
            misused: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            most_cancelled,
            most_bytes,
            cancelled: Mutex::new((now, 0)),
            bytes: Mutex::new((now, 0)),
        }
    }

    /// A request was accepted, with headers of this size.
    pub(crate) fn request(&self, header_bytes: u64) {
        if !self.asked.load(Relaxed) {
            self.asked.store(true, Relaxed);
        }
        self.accepted.fetch_add(header_bytes + REQUEST_OVERHEAD, Relaxed);
    }

    /// A part of an accepted request's body came.
    pub(crate) fn body(&self, bytes: usize) {
        self.accepted.fetch_add(bytes as u64, Relaxed);
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

    /// Whether the peer went too far, having sent this many bytes in all.
    pub(crate) fn misused(&self, read: u64) -> bool {
        if self.misused.load(Relaxed) {
            return true;
        }
        let idle = read.saturating_sub(self.accepted.load(Relaxed));
        let mut window = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.saturating_sub(window.1) <= self.most_bytes {
            return false;
        }
        // The clock is looked at only now: an orderly peer never comes here.
        let now = Instant::now();
        let over = now - window.0 < BYTES_WINDOW;
        *window = (now, idle);
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn cancelling_is_counted_in_ten_seconds() {
        let meter = Meter::new(3, MIB);
        for _ in 0..5 {
            (0..3).for_each(|_| meter.cancel());
            assert!(!meter.misused(0));
            tokio::time::advance(CANCEL_WINDOW).await;
        }
        (0..4).for_each(|_| meter.cancel());
        assert!(meter.misused(0));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_of_requests_are_not_counted_however_many() {
        let (meter, mut read) = (Meter::new(3, MIB), 0);
        for _ in 0..1_000 {
            meter.request(500);
            meter.body(MIB as usize);
            read += MIB + 500;
            assert!(!meter.misused(read));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn other_bytes_are_too_many_over_the_rate_and_not_at_it() {
        let (meter, mut read) = (Meter::new(3, MIB), 0);
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(250)).await;
            read += MIB / 4;
            assert!(!meter.misused(read), "at the rate");
        }
        // After a long quiet time too.
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert!(!meter.misused(read + 2 * MIB));
        assert!(meter.misused(read + 4 * MIB));
    }
}
