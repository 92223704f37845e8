//! Two clocks, read together: what is over by either of them is over.
//!
//! The wall clock can be stepped, the boot-time clock cannot and goes on while the machine sleeps. A hit reads both, so the wall clock is
//! the kernel's coarse one: some milliseconds late, a fraction of the price. And the boot-time clock, which costs more, is read once in
//! each tick of that one.

#[cfg(feature = "testing")]
use std::sync::Arc;

/// A reading, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Since the Unix epoch.
    pub(crate) wall: i64,
    /// Since some start.
    pub(crate) boot: i64,
}

#[derive(Clone, Default)]
pub(crate) struct Clock(#[cfg(feature = "testing")] Option<ByHand>);

#[cfg(feature = "testing")]
type ByHand = Arc<dyn Fn() -> (std::time::SystemTime, std::time::Duration) + Send + Sync>;

impl Clock {
    #[cfg(feature = "testing")]
    pub(crate) fn by_hand(read: ByHand) -> Self {
        Self(Some(read))
    }

    pub(crate) fn now(&self) -> Moment {
        #[cfg(feature = "testing")]
        if let Some(read) = &self.0 {
            let (wall, boot) = read();
            return Moment { wall: millis(wall), boot: i64::try_from(boot.as_millis()).unwrap_or(i64::MAX) };
        }
        machine()
    }
}

#[cfg(target_os = "linux")]
fn machine() -> Moment {
    use rustix::time::{ClockId, clock_gettime};
    use std::sync::atomic::{
        AtomicI64,
        Ordering::{Acquire, Relaxed, Release},
    };
    /// In which tick of the wall clock the boot-time clock was read last, and what it said.
    static TICK: AtomicI64 = AtomicI64::new(i64::MIN);
    static BOOT: AtomicI64 = AtomicI64::new(0);
    let read = |id| {
        let at = clock_gettime(id);
        at.tv_sec * 1_000 + at.tv_nsec / 1_000_000
    };
    let wall = read(ClockId::RealtimeCoarse);
    if TICK.load(Acquire) == wall {
        return Moment { wall, boot: BOOT.load(Relaxed) };
    }
    // A thread that was held up between the two does not set it back.
    let boot = read(ClockId::Boottime);
    let boot = BOOT.fetch_max(boot, Relaxed).max(boot);
    TICK.store(wall, Release);
    Moment { wall, boot }
}

/// Elsewhere the monotonic clock stands in for the boot-time clock.
#[cfg(not(target_os = "linux"))]
fn machine() -> Moment {
    use std::{
        sync::LazyLock,
        time::{Instant, SystemTime},
    };
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let boot = i64::try_from(START.elapsed().as_millis()).unwrap_or(i64::MAX);
    Moment { wall: millis(SystemTime::now()), boot }
}

#[cfg(any(feature = "testing", not(target_os = "linux")))]
fn millis(wall: std::time::SystemTime) -> i64 {
    let since = wall.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
